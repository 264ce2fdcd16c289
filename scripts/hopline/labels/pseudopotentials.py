"""Pseudopotential files: which one belongs to an element, and the cutoffs that its makers recommend."""

import hashlib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hopline.console import InputError
from hopline.files import read_json
from hopline.units import RYDBERG_PER_HARTREE

MIN_DUAL = 4.0
"""Density cutoff over wavefunction cutoff: products of plane waves reach twice their wave vectors."""
SUGGESTED_IN_V1 = re.compile(r"^\s*(\S+)\s+(\S+)\s+Suggested cutoff for wfc and rho", re.MULTILINE)
HEADER_BYTES = 1 << 20
"""The header stands behind the generator's own input; it ends long before this."""


@dataclass(frozen=True)
class Cutoffs:
    """Recommended plane-wave cutoffs in Ry, and the file that recommends them."""

    wavefunction_Ry: float
    density_Ry: float
    source: str


def find_pseudopotentials(
    folder: str | os.PathLike[str], elements: Iterable[str], *, allow_missing: bool = False
) -> dict[str, Path]:
    """Return each element's UPF file in a folder: ``Li.upf``, ``Li.UPF``, ``li_pbe.upf``, ``Li.x.upf``.

    With ``allow_missing`` an element without a file gets the name ``Li.upf``, for inputs to be run elsewhere.

    Raises
    ------
    InputError
        If the folder is missing, or an element has no file or more than one.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir() and not allow_missing:
        raise InputError(f"the folder of pseudopotentials {folder} does not exist")
    upfs = sorted(path for path in folder.glob("*") if path.suffix.lower() == ".upf")
    found: dict[str, Path] = {}
    for element in sorted(set(elements)):
        fitting = [path for path in upfs if re.split(r"[._\-]", path.name)[0].lower() == element.lower()]
        if not fitting and allow_missing:
            fitting = [folder / f"{element}.upf"]
        if not fitting:
            raise InputError(f"{folder} holds no pseudopotential of {element}: put {element}.upf there")
        if len(fitting) > 1:
            names = ", ".join(path.name for path in fitting)
            raise InputError(
                f"{folder} holds {len(fitting)} pseudopotentials of {element} ({names}): keep one"
            )
        found[element] = fitting[0]
    return found


def recommended_cutoffs(pseudopotentials: Mapping[str, Path]) -> Cutoffs:
    """Return the largest of the elements' recommended cutoffs, each of the two by itself.

    Looked for in this order: a table of the family in the same folder (SSSP's JSON: ``cutoff_wfc``, ``cutoff_rho``,
    Ry), the element's ``.toml`` (PseudoDojo: ``Ecut`` in Ha at normal accuracy), the header of the file itself.

    Raises
    ------
    InputError
        If an element has no recommendation.
    """
    each = {element: _recommended(element, Path(path)) for element, path in pseudopotentials.items()}
    return Cutoffs(
        wavefunction_Ry=max(cutoffs.wavefunction_Ry for cutoffs in each.values()),
        density_Ry=max(cutoffs.density_Ry for cutoffs in each.values()),
        source=", ".join(f"{element}: {cutoffs.source}" for element, cutoffs in sorted(each.items())),
    )


def _recommended(element: str, upf: Path) -> Cutoffs:
    if not upf.is_file():
        raise InputError(f"{upf} is not here to recommend a cutoff: give the cutoffs as numbers")
    found = _from_table(element, upf) or _from_toml(upf) or _from_header(upf)
    if found is None:
        raise InputError(
            f"{upf} recommends no cutoff for {element}, neither in its header nor beside it (PseudoDojo's .toml, "
            "SSSP's .json): give the cutoffs as numbers"
        )
    return found


def _from_table(element: str, upf: Path) -> Cutoffs | None:
    for table in sorted(upf.parent.glob("*.json")):
        entry = read_json(table).get(element)
        if not isinstance(entry, dict) or "cutoff_wfc" not in entry:
            continue
        # a table of another version of the family speaks of another file
        if "md5" in entry and hashlib.md5(upf.read_bytes()).hexdigest() != entry["md5"]:  # noqa: S324  a name, no seal
            continue
        wavefunction = _number(entry["cutoff_wfc"], table)
        density = _number(entry.get("cutoff_rho", MIN_DUAL * wavefunction), table)
        return Cutoffs(wavefunction, density, table.name)
    return None


def _from_toml(upf: Path) -> Cutoffs | None:
    table = upf.with_suffix(".toml")
    if not table.is_file():
        return None
    try:
        content = tomllib.loads(table.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{table} is not whole TOML ({error})") from error
    normal = content.get("cutoffs_normal", content)
    if not isinstance(normal, dict) or "Ecut" not in normal:
        return None
    wavefunction = RYDBERG_PER_HARTREE * _number(normal["Ecut"], table)
    # supersampling is that of the real-space grid: twice the wave vector is four times the energy
    density = wavefunction * _number(normal.get("supersampling", MIN_DUAL**0.5), table) ** 2
    return Cutoffs(wavefunction, density, table.name)


def _from_header(upf: Path) -> Cutoffs | None:
    """Return what the header recommends; zero or a density cutoff alone is no recommendation.

    ``rho_cutoff`` is in Ry where ``wfc_cutoff`` stands beside it; ONCVPSP writes it alone and means the radius in bohr
    up to which it tabulates.
    """
    with upf.open("rb") as file:
        head = file.read(HEADER_BYTES).decode(errors="replace")
    written = [re.search(rf'\b{name}\s*=\s*"\s*([^"]*?)\s*"', head) for name in ("wfc_cutoff", "rho_cutoff")]
    older = SUGGESTED_IN_V1.search(head)
    if older is not None:
        words = older.groups()
    elif written[0] is not None:
        words = (written[0][1], written[1][1] if written[1] is not None else "0")
    else:
        return None
    wavefunction, density = (_number(word.replace("D", "E"), upf) for word in words)
    if wavefunction <= 0:
        return None
    return Cutoffs(wavefunction, max(density, MIN_DUAL * wavefunction), upf.name)


def _number(value: object, where: Path) -> float:
    try:
        return float(str(value))
    except ValueError as error:
        raise InputError(f"{where}: the recommended cutoff {value} is no number") from error
