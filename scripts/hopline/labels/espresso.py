"""Quantum ESPRESSO (pw.x) single points: settings and input files; `espresso_run` runs, `espresso_output` reads."""

import io
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import ase.io.espresso
import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike

from hopline import files, frames
from hopline.console import InputError
from hopline.labels import origin, selection
from hopline.labels.pseudopotentials import MIN_DUAL, recommended_cutoffs

PREFIX, SCRATCH = "hopline", "scratch"
"""Of the files that pw.x keeps to go on from, and their folder beside the input."""
RECOMMENDED = "recommended"
"""Instead of a cutoff: what the pseudopotentials' makers recommend (see `pseudopotentials`)."""
NO_SMEARING = "none"
SMEARINGS = (NO_SMEARING, "gaussian", "cold", "methfessel-paxton", "fermi-dirac")
STARTING_MAGNETIZATION = 0.5
"""First guess, as a fraction of the valence electrons; the run itself keeps ``total_magnetization``."""
MESH_TOLERANCE = 1e-6
"""A quotient this little above a whole number is that number: cells that differ in rounding get one mesh."""
HASH_PREFIX_LENGTH = 8


@dataclass(frozen=True)
class EspressoSettings:
    """Settings of a pw.x single point; energies in Ry, as pw.x takes them.

    ``functional`` names what the pseudopotentials were made with; pw.x takes it from them.
    ``nosym`` stays true for molecular-dynamics frames: they have no symmetry, and with it off pw.x expands a
    shifted mesh to the stars of the lattice, at four times the cost.
    The mesh is ``kpoints``, or each cell's own from ``kpoint_spacing_per_A`` (see `mesh`): one of the two.
    ``total_magnetization`` (unpaired electrons per cell) makes the run spin-polarised; None: not polarised.
    """

    functional: str
    wavefunction_cutoff_Ry: float
    density_cutoff_Ry: float
    kpoints: tuple[int, int, int] | None
    kpoints_shift: tuple[int, int, int]
    smearing: str
    smearing_width_Ry: float
    scf_threshold_Ry: float
    mixing_beta: float
    max_scf_steps: int
    kpoint_spacing_per_A: float | None = None
    nosym: bool = True
    total_magnetization: float | None = None

    def __post_init__(self) -> None:
        """Refuse settings that pw.x would refuse, or would take for something else, hours later."""
        if not self.wavefunction_cutoff_Ry > 0:
            raise InputError(f"wavefunction_cutoff_Ry is {self.wavefunction_cutoff_Ry}: it must be positive")
        if self.density_cutoff_Ry < MIN_DUAL * self.wavefunction_cutoff_Ry:
            raise InputError(
                f"density_cutoff_Ry is {self.density_cutoff_Ry}: it must be at least four times "
                f"wavefunction_cutoff_Ry ({MIN_DUAL * self.wavefunction_cutoff_Ry})"
            )
        if (self.kpoints is None) == (self.kpoint_spacing_per_A is None):
            raise InputError("give either kpoints or kpoint_spacing_per_A")
        if self.kpoint_spacing_per_A is not None and not self.kpoint_spacing_per_A > 0:
            raise InputError(f"kpoint_spacing_per_A is {self.kpoint_spacing_per_A}: it must be positive")
        if min(self.kpoints or (1,)) < 1 or not set(self.kpoints_shift) <= {0, 1}:
            raise InputError(
                f"kpoints {self.kpoints} must be positive, kpoints_shift {self.kpoints_shift} made of 0 and 1"
            )
        if self.smearing not in SMEARINGS:
            raise InputError(f"smearing {self.smearing} is unknown; {', '.join(SMEARINGS)} are understood")
        if self.smearing != NO_SMEARING and self.smearing_width_Ry <= 0:
            raise InputError(f"smearing_width_Ry is {self.smearing_width_Ry}: it must be positive")


def settings_from(values: Mapping[str, Any], pseudopotentials: Mapping[str, Path]) -> EspressoSettings:
    """Return settings from a mapping by name (parsed flags, a config section); other keys are left alone.

    A cutoff may be `RECOMMENDED`: the largest that is recommended for the elements of ``pseudopotentials``. The
    recommended density cutoff is raised to four times a wavefunction cutoff that was given higher.
    """
    chosen = {field.name: values[field.name] for field in fields(EspressoSettings) if field.name in values}
    for key in ("kpoints", "kpoints_shift"):
        chosen[key] = None if chosen.get(key) is None else tuple(chosen[key])
    wavefunction, density = chosen["wavefunction_cutoff_Ry"], chosen["density_cutoff_Ry"]
    if RECOMMENDED in {wavefunction, density}:
        best = recommended_cutoffs(pseudopotentials)
        wavefunction = best.wavefunction_Ry if wavefunction == RECOMMENDED else wavefunction
        density = max(best.density_Ry, MIN_DUAL * wavefunction) if density == RECOMMENDED else density
    return EspressoSettings(**chosen | {"wavefunction_cutoff_Ry": wavefunction, "density_cutoff_Ry": density})


def mesh(cell: ArrayLike, *, kpoint_spacing_per_A: float) -> tuple[int, int, int]:
    """Return the mesh whose neighbouring k-points lie no further apart than a spacing.

    As VASP's KSPACING and the ``kpoints_distance`` of AiiDA's workflows the spacing is in 1/A and holds the factor
    2 pi: N_i = ceil(|b_i| / spacing) with a_i . b_j = 2 pi delta_ij.

    Parameters
    ----------
    cell
        Lattice vectors as rows, (3, 3), in A.
    kpoint_spacing_per_A
        Largest distance, 1/A.
    """
    reciprocal = 2 * np.pi * np.linalg.inv(np.asarray(cell, dtype=float)).T
    lengths = np.linalg.norm(reciprocal, axis=1) / kpoint_spacing_per_A
    n1, n2, n3 = (max(1, math.ceil(length - MESH_TOLERANCE)) for length in lengths)
    return n1, n2, n3


def mesh_of(settings: EspressoSettings, atoms: Atoms) -> tuple[int, int, int]:
    """Return the mesh that settings mean for a frame."""
    if settings.kpoint_spacing_per_A is not None:
        return mesh(atoms.cell.array, kpoint_spacing_per_A=settings.kpoint_spacing_per_A)
    assert settings.kpoints is not None  # noqa: S101  the settings hold one of the two; this tells the type checker
    return settings.kpoints


def level_of_theory(settings: EspressoSettings, pseudopotentials: Mapping[str, Path]) -> str:
    """Return one line that two runs share only if their energies may be compared.

    It holds the functional, both cutoffs, the mesh or the spacing of k-points (so that cells of different size share
    one level), the smearing, the spin, and the first digits of the SHA-256 of each element's pseudopotential.
    """
    spin, spacing = settings.total_magnetization, settings.kpoint_spacing_per_A
    points = f"{spacing:g}/A" if spacing is not None else "x".join(map(str, settings.kpoints or ()))
    parts = [
        f"{settings.functional} pw.x",
        f"{settings.wavefunction_cutoff_Ry:g}/{settings.density_cutoff_Ry:g} Ry",
        f"k {points}+{''.join(map(str, settings.kpoints_shift))}",
        "fixed occupations"
        if settings.smearing == NO_SMEARING
        else f"{settings.smearing} {settings.smearing_width_Ry:g} Ry",
        *([f"magnetization {spin:g}"] if spin is not None else []),
        *(
            f"{element} {files.sha256(path)[:HASH_PREFIX_LENGTH] if path.is_file() else 'unknown'}"
            for element, path in sorted(pseudopotentials.items())
        ),
    ]
    return "; ".join(parts)


def write_input(atoms: Atoms, settings: EspressoSettings, pseudopotentials: Mapping[str, Path]) -> str:
    """Return the pw.x input of a single point with forces and stress.

    Parameters
    ----------
    atoms
        The frame; periodic in three directions.
    settings
        Settings of the run.
    pseudopotentials
        UPF file of each element, all in one folder (see `pseudopotentials.find_pseudopotentials`).
    """
    if atoms.cell.rank != 3:  # noqa: PLR2004
        raise InputError("a frame without a three-dimensional cell cannot go to pw.x: give it one")
    bare = _bare(atoms)
    missing = sorted(set(bare.symbols) - set(pseudopotentials))
    if missing:
        raise InputError(f"no pseudopotential was given for {', '.join(missing)}")
    chosen = {element: Path(pseudopotentials[element]).resolve() for element in dict.fromkeys(bare.symbols)}
    folders = {path.parent for path in chosen.values()}
    if len(folders) > 1:
        raise InputError(f"pw.x reads pseudopotentials from one folder, these lie in {len(folders)}")
    if settings.total_magnetization is not None:
        bare.set_initial_magnetic_moments(np.full(len(bare), STARTING_MAGNETIZATION))
    kpoints = mesh_of(settings, bare)
    gamma_only = kpoints == (1, 1, 1) and not any(settings.kpoints_shift)
    text = io.StringIO()
    ase.io.espresso.write_espresso_in(
        text,
        bare,
        input_data=_namelists(settings, str(folders.pop())),
        pseudopotentials={element: path.name for element, path in chosen.items()},
        kpts=None if gamma_only else kpoints,  # ASE's None: real wavefunctions, half the cost
        koffset=settings.kpoints_shift,
    )
    return text.getvalue()


def _namelists(settings: EspressoSettings, pseudo_dir: str) -> dict[str, dict[str, object]]:
    system: dict[str, object] = {
        "ecutwfc": settings.wavefunction_cutoff_Ry,
        "ecutrho": settings.density_cutoff_Ry,
        "nosym": settings.nosym,
    }
    if settings.smearing == NO_SMEARING:
        system["occupations"] = "fixed"
    else:
        system |= {
            "occupations": "smearing",
            "smearing": settings.smearing,
            "degauss": settings.smearing_width_Ry,
        }
    if settings.total_magnetization is not None:
        system |= {"nspin": 2, "tot_magnetization": settings.total_magnetization}
    return {
        "control": {
            "calculation": "scf", "prefix": PREFIX, "pseudo_dir": pseudo_dir, "outdir": f"./{SCRATCH}",
            "disk_io": "low", "tprnfor": True, "tstress": True,
        },
        "system": system,
        "electrons": {
            "conv_thr": settings.scf_threshold_Ry, "mixing_beta": settings.mixing_beta,
            "electron_maxstep": settings.max_scf_steps,
        },
    }  # fmt: skip


def write_job(
    folder: str | os.PathLike[str],
    atoms: Atoms,
    settings: EspressoSettings,
    pseudopotentials: Mapping[str, Path],
    *,
    defaults: Mapping[str, object] | None = None,
) -> None:
    """Write a run folder: ``pw.in`` and ``frame.extxyz``, the frame as it went in with where it came from.

    ``pseudopotentials`` are those of the whole set, so that its frames share one level of theory even where
    a composition lacks an element. ``defaults`` fill ``info`` (system, composition, ...) where it is silent.
    """
    folder = Path(folder)
    frame = _bare(atoms)
    known = {**(defaults or {}), **atoms.info}
    frame.info = {key: known[key] for key in selection.KEPT_INFO if known.get(key) is not None}
    frame.info["level_of_theory"] = level_of_theory(settings, pseudopotentials)
    with files.whole(folder / "pw.in") as temporary:
        temporary.write_text(write_input(frame, settings, pseudopotentials))
    frames.write_frames(folder / origin.FRAME, [frame])


def _bare(atoms: Atoms) -> Atoms:
    """Return species, positions and cell only: no constraint or magnetic moment leaks into pw.x."""
    return Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)


def with_keywords(text: str, namelist: str, keywords: Mapping[str, object]) -> str:
    """Return a pw.x input with keywords of a namelist set, or left out where the value is None.

    Raises
    ------
    InputError
        If the input has no such namelist.
    """
    opened = re.search(rf"^[ \t]*&{namelist}\b[^\n]*\n", text, flags=re.IGNORECASE | re.MULTILINE)
    closed = (
        None if opened is None else re.compile(r"^[ \t]*/[ \t]*$", re.MULTILINE).search(text, opened.end())
    )
    if opened is None or closed is None:
        raise InputError(f"the pw.x input has no namelist &{namelist.upper()} that ends with a line /")
    body = text[opened.end() : closed.start()]
    for keyword in keywords:
        assignment = rf"(?<![\w%]){keyword}[ \t]*=[ \t]*(?:'[^']*'|[^\s,]+)[ \t]*,?"
        body = re.sub(
            rf"^[ \t]*{assignment}[ \t]*\n|{assignment}", "", body, flags=re.IGNORECASE | re.MULTILINE
        )
    lines = "".join(f"   {key} = {_fortran(value)}\n" for key, value in keywords.items() if value is not None)
    return text[: opened.end()] + lines + body + text[closed.start() :]


def keyword(text: str, name: str) -> str | None:
    """Return the value of a keyword of a pw.x input as it is written, without quotes; None where it is not set."""
    found = re.search(rf"(?<![\w%]){name}[ \t]*=[ \t]*(?:'([^']*)'|([^\s,]+))", text, flags=re.IGNORECASE)
    return None if found is None else (found[1] if found[1] is not None else found[2])


def _fortran(value: object) -> str:
    if isinstance(value, bool):
        return ".true." if value else ".false."
    return f"'{value}'" if isinstance(value, str) else str(value)
