"""VASP single points: settings by name and input files; `potcars` checks POTCARs, `vasp_run` runs."""

import difflib
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from ase import Atoms

from hopline import files, frames
from hopline.console import InputError
from hopline.labels import origin, potcars, vasp_output
from hopline.labels.espresso import HASH_PREFIX_LENGTH
from hopline.labels.potcars import Check
from hopline.labels.selection import KEPT_INFO

if TYPE_CHECKING:
    from pymatgen.io.vasp.inputs import Incar, Kpoints

SCRIPT = "run_vasp.sh"
SPEC = "POTCAR.spec"
SINGLE_POINT = {"NSW": 0, "IBRION": -1, "ISIF": 2, "LCHARG": True, "LWAVE": False}
"""What makes a run a label: atoms at rest, forces and stress; and its density kept to go on from, which is small."""
NOT_YOURS = {*SINGLE_POINT, "ICHARG", "ISTART", "ML_LMLFF", "ML_MODE"}
BY_ELEMENT = {"MAGMOM", "LDAUU", "LDAUJ", "LDAUL"}
SETS = ("MPStaticSet", "MatPESStaticSet")
SCRIPT_SETUP = """\
set -euo pipefail
cd "$(dirname "$0")"
: "${VASP_COMMAND:?what starts VASP, e.g. mpirun -np 16 vasp_std}" "${POTCAR_FOLDER:?the folder of your POTCARs}"
potcar_folder=$(cd "$POTCAR_FOLDER" && pwd)
trap 'rm -f [0-9]*/POTCAR' EXIT

while read -r symbol _ sha256; do
    [ -f "$potcar_folder/$symbol/POTCAR" ] || { echo "no $potcar_folder/$symbol/POTCAR" >&2; exit 2; }
    [ "$sha256" = - ] || echo "$sha256  $potcar_folder/$symbol/POTCAR" | sha256sum --check --quiet >&2 || exit 2
done < POTCAR.checks
write_potcar() { while read -r symbol; do cat "$potcar_folder/$symbol/POTCAR"; done < "$1/POTCAR.spec" > "$1/POTCAR"; }
"""
"""POTCAR.checks says which POTCARs are meant: symbol, release, SHA-256; they lie here only while VASP runs."""
RUN_SCRIPT = f"""\
#!/usr/bin/env bash
# Runs VASP in each folder here that has no finished vasprun.xml yet; after a break, start it again:
#   VASP_COMMAND="mpirun -np 16 vasp_std" POTCAR_FOLDER=/path/to/potpaw ./{SCRIPT}
# Then: python scripts/ingest_labels.py --source THIS_FOLDER --frames accepted.extxyz --rejected rejected.csv
{SCRIPT_SETUP}
finished() {{ tail -c 64 "$1/vasprun.xml" 2> /dev/null | grep -q '</modeling>'; }}
failed=0
for folder in [0-9]*; do
    if finished "$folder"; then continue; fi
    rm -f "$folder/WAVECAR" "$folder/CHGCAR" # of a run that was broken off
    write_potcar "$folder"
    echo "$(date '+%F %T') $folder"
    (cd "$folder" && $VASP_COMMAND > vasp.out 2>&1) || echo "$folder: VASP ended with an error, see vasp.out" >&2
    rm -f "$folder/POTCAR"
    if finished "$folder"; then rm -f "$folder"/{{WAVECAR,CHGCAR,CHG}}; else failed=$((failed + 1)); fi
done
echo "$failed folders without a finished vasprun.xml"
[ "$failed" -eq 0 ]
"""
REQUIRED = ("ENCUT", "GGA", "ISMEAR", "SIGMA", "PREC", "EDIFF", "NELM")
"""Tags that make the level of theory, or decide whether it was reached: none is left to VASP's default."""


@dataclass(frozen=True)
class Preset:
    """Settings of a VASP single point.

    ``input_set`` names one of `SETS`, whose tags, k-points and POTCARs are taken; INCAR tags of ``incar`` win over it,
    None leaves one out. ``kpoints`` is a mesh about Gamma; without it the set's density or a KSPACING holds.
    ``potcars`` names the POTCAR of each element where no set does, ``potcar_release`` whose they are (`potcars`),
    ``sha256`` the content of some by symbol.
    """

    input_set: str | None = None
    incar: Mapping[str, Any] = field(default_factory=dict)
    kpoints: tuple[int, int, int] | None = None
    potcars: Mapping[str, str] = field(default_factory=dict)
    potcar_release: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Inputs:
    """The input files of one frame.

    ``atoms`` are in the order of the POSCAR, ``symbols`` in that of its species. ``theory`` and ``species`` make the
    level of theory: what holds for the whole run, and what is known by element (POTCAR, Hubbard U).
    """

    atoms: Atoms
    incar: "Incar"
    kpoints: "Kpoints | None"
    poscar: str
    symbols: tuple[str, ...]
    theory: str
    species: Mapping[str, str]


def read_preset(path: Path, name: str) -> Preset:
    """Return a preset by name from a YAML file of presets.

    Raises
    ------
    InputError
        If the file is broken, or the preset is missing or holds a key that is no field of `Preset`.
    """
    try:
        presets = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not whole YAML ({error})") from error
    if not isinstance(presets, dict) or not isinstance(presets.get(name), dict):
        names = ", ".join(presets) if isinstance(presets, dict) else "none"
        raise InputError(f"{path} holds no preset {name}: {names} are there")
    values = dict(presets[name])
    values["input_set"] = values.pop("set", None)
    unknown = set(values) - set(Preset.__dataclass_fields__)
    if unknown or values["input_set"] not in {None, *SETS}:
        wrong = ", ".join(sorted(unknown)) or f"set: {values['input_set']} (known: {', '.join(SETS)})"
        raise InputError(f"{path}: preset {name} holds {wrong}, which is not understood")
    if values.get("kpoints") is not None:
        values["kpoints"] = tuple(int(number) for number in values["kpoints"])
    return Preset(**values)


def with_tags(preset: Preset, assignments: Iterable[str]) -> Preset:
    """Return a preset with INCAR tags of the user's, each as ``TAG=VALUE``; MAGMOM and U as ``{Ti: 2}``.

    Values are read as YAML; ``null`` leaves a tag out. A KSPACING replaces the mesh of the preset.

    Raises
    ------
    InputError
        If a tag is unknown to VASP, would make the run another thing than a label, or its value is no value.
    """
    tags: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        tag = name.strip().upper()
        if not equals or not value.strip():
            raise InputError(f"{assignment} is not TAG=VALUE")
        _refuse_tag(tag)
        try:
            tags[tag] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"{assignment}: the value cannot be read") from error
        if tag in BY_ELEMENT and not isinstance(tags[tag], dict):
            raise InputError(
                f"{tag} is given by element, for example {tag}={{Ti: 2}}: frames differ in number"
            )
    kpoints = None if tags.get("KSPACING") else preset.kpoints
    return replace(preset, incar={**preset.incar, **tags}, kpoints=kpoints)


def _refuse_tag(tag: str) -> None:
    from pymatgen.io.vasp.inputs import Incar

    if tag in NOT_YOURS:
        raise InputError(f"{tag} is not yours to set: these runs are single points that can be gone on with")
    if tag not in Incar.INCAR_PARAMS:
        near = difflib.get_close_matches(tag, Incar.INCAR_PARAMS, n=1)
        raise InputError(f"{tag} is no INCAR tag{f'; did you mean {near[0]}?' if near else ''}")


def ordered(atoms: Atoms) -> Atoms:
    """Return a frame as VASP takes it: atoms grouped by element, alphabetically, each group in its former order.

    A left-handed cell, which VASP refuses, becomes its negative: the same lattice, the same atoms in it.
    """
    chosen = np.argsort(np.array(atoms.get_chemical_symbols()), kind="stable")
    cell = atoms.cell.array * (np.sign(np.linalg.det(atoms.cell.array)) or 1.0)
    return Atoms(numbers=atoms.numbers[chosen], positions=atoms.positions[chosen], cell=cell, pbc=True)


def inputs_of(atoms: Atoms, preset: Preset) -> Inputs:
    """Return the input files of a single point of a frame.

    Raises
    ------
    InputError
        If the frame has no cell, the preset names no POTCAR of an element, or leaves a tag of `REQUIRED` out.
    """
    if atoms.cell.rank != 3:  # noqa: PLR2004
        raise InputError("a frame without a three-dimensional cell cannot go to VASP: give it one")
    from pymatgen.io.ase import AseAtomsAdaptor
    from pymatgen.io.vasp.inputs import Poscar

    frame = ordered(atoms)
    structure = AseAtomsAdaptor.get_structure(frame)
    chosen = _input_set(structure, preset)
    incar = chosen.incar
    absent = [tag for tag in REQUIRED if tag not in incar]
    if absent:
        raise InputError(f"the preset gives no {', '.join(absent)}: VASP's defaults are no settings")
    elements, symbols = chosen.poscar.site_symbols, tuple(chosen.potcar_symbols)
    tags = {tag: _printed(value) for tag, value in incar.items()}
    u_values = zip(*(tags.get(tag, "").split() for tag in ("LDAUL", "LDAUU", "LDAUJ")), strict=True)
    with_u = [f" U {u} J {j} l {channel}" if float(u) or float(j) else "" for channel, u, j in u_values]
    return Inputs(
        atoms=frame,
        incar=incar,
        kpoints=chosen.kpoints,
        # sixteen decimals, Cartesian: positions as they are, to the last digit that extended XYZ keeps
        poscar=Poscar(structure, comment=frame.get_chemical_formula()).get_str(direct=False),
        symbols=symbols,
        theory=vasp_output.level_of_theory(tags, [], _sampling(preset, incar), 0.0),
        species={
            element: symbol + u
            for element, symbol, u in zip(elements, symbols, with_u or [""] * len(symbols), strict=True)
        },
    )


def _input_set(structure: Any, preset: Preset) -> Any:
    from pymatgen.io.vasp import sets
    from pymatgen.io.vasp.inputs import Kpoints

    options: dict[str, Any] = {
        "user_incar_settings": {**preset.incar, **SINGLE_POINT},
        "user_kpoints_settings": Kpoints.gamma_automatic(preset.kpoints) if preset.kpoints else {},
        "sort_structure": False,
        # else the style of the mesh follows the symmetry: a perfect crystal and its frames would get two
        "force_gamma": True,
    }
    if preset.input_set is not None:
        return getattr(sets, preset.input_set)(structure, **options)
    missing = sorted({site.specie.symbol for site in structure} - set(preset.potcars))
    if missing:
        raise InputError(f"the preset names no POTCAR of {', '.join(missing)}: add it there")
    if preset.kpoints is None and not preset.incar.get("KSPACING"):
        raise InputError("the preset gives no k-points, neither kpoints nor KSPACING")
    config = {"INCAR": {}, "POTCAR": dict(preset.potcars)}
    return sets.VaspInputSet(structure=structure, config_dict=config, **options)


def _printed(value: object) -> str:
    """Return a tag's value as VASP prints it in its outputs."""
    if isinstance(value, bool):
        return "T" if value else "F"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _sampling(preset: Preset, incar: "Incar") -> str:
    """Return how k-points are chosen, in the same words for cells of every size that are sampled alike."""
    if preset.kpoints is not None:
        return vasp_output.mesh_line(preset.kpoints, np.zeros((1, 3)))
    if "KSPACING" in incar:
        return vasp_output.spacing_line(incar["KSPACING"], gamma=incar.get("KGAMMA", True))
    return f"k-points of {preset.input_set}"


def write_jobs(
    folder: Path,
    chosen: Sequence[Atoms],
    preset: Preset,
    *,
    potcar_folder: Path | None = None,
    defaults: Mapping[str, object] | None = None,
) -> str:
    """Write a run folder for each frame, a script that runs them, and return the set's level of theory.

    Each folder gets INCAR, POSCAR, KPOINTS (unless KSPACING is set), POTCAR.spec, and ``frame.extxyz``: the frame as
    VASP takes it (see `ordered`) with where it came from; ``defaults`` fill its ``info`` where it is silent. POTCARs
    are checked if their folder is given; none is written.

    Raises
    ------
    InputError
        As `inputs_of` and `potcars.load`, or if the frames would be at two levels of theory: a Hubbard U depends on an
        element's neighbours, pymatgen leaves the tetrahedron method where there are few k-points.
    """
    jobs = [inputs_of(atoms, preset) for atoms in chosen]
    species: dict[str, str] = {}
    theories = sorted({job.theory for job in jobs})
    if len(theories) > 1:
        raise InputError(f"the frames would be at several levels of theory: {' | '.join(theories)}")
    for job in jobs:
        for element, words in job.species.items():
            if species.setdefault(element, words) != words:
                raise InputError(f"{element} would be {species[element]} in one frame, {words} in another")
    symbols = sorted({symbol for job in jobs for symbol in job.symbols})
    checks = {symbol: Check(preset.potcar_release, preset.sha256.get(symbol)) for symbol in symbols}
    if potcar_folder is not None:
        found = {symbol: potcars.load(potcar_folder, symbol, check) for symbol, check in checks.items()}
        checks = {symbol: replace(check, sha256=found[symbol].sha256) for symbol, check in checks.items()}
    level = "; ".join([*theories, *potcar_words(species, checks)])
    for index, (job, atoms) in enumerate(zip(jobs, chosen, strict=True)):
        _write_job(folder / f"{index:04d}", job, {**(defaults or {}), **atoms.info, "level_of_theory": level})
    potcars.write_checks(folder / potcars.CHECKS, checks)
    write_script(folder / SCRIPT, RUN_SCRIPT)
    return level


def write_script(path: Path, content: str) -> None:
    """Write a shell script that whoever may read it may run."""
    with files.whole(path) as temporary:
        temporary.write_text(content)
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def potcar_words(species: Mapping[str, str], checks: Mapping[str, Check]) -> Iterator[str]:
    """Yield what the level of theory says of each element: its POTCAR, release, and content where it is known."""
    for element, words in sorted(species.items()):
        check = checks[words.split()[0]]
        yield " ".join(
            filter(None, [element, words, check.release, (check.sha256 or "")[:HASH_PREFIX_LENGTH]])
        )


def _write_job(folder: Path, job: Inputs, known: Mapping[str, object]) -> None:
    frame = job.atoms.copy()
    frame.info = {key: known[key] for key in (*KEPT_INFO, "level_of_theory") if known.get(key) is not None}
    contents = {"INCAR": str(job.incar), "POSCAR": job.poscar, SPEC: "\n".join(job.symbols) + "\n"}
    if job.kpoints is not None:
        contents["KPOINTS"] = str(job.kpoints)
    for name, content in contents.items():
        with files.whole(folder / name) as temporary:
            temporary.write_text(content)
    if job.kpoints is None:
        (folder / "KPOINTS").unlink(missing_ok=True)  # an earlier preset's would win over KSPACING
    frames.write_frames(folder / origin.FRAME, [frame])
