"""MPtrj's JSON as CHGNet released it, and the JSON that CHGNet makes of a VASP run; read as a stream."""

import itertools
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from hopline import units
from hopline.frames import UNSTATED
from hopline.labels import json_stream, text
from hopline.labels.candidates import SIGMA_TO_ZERO, Broken, Candidate

FORMAT = "mptrj"
STRUCTURE, ENERGY, FORCES, STRESS = "structure", "uncorrected_total_energy", "force", "stress"
CORRECTED = "corrected_total_energy"
"""What only MPtrj has: the energy with the Materials Project's corrections, which are no part of the DFT's forces."""
LEVEL_OF_THEORY = "PBE VASP; MPtrj (Materials Project, GGA or GGA+U)"
LEAST_ENERGY_EV_PER_ATOM = 0.1
"""What CHGNet takes for the energy of a VASP 5 run is its entropy term, next to nothing: VASP 5 misplaced it."""
PER_FRAME = re.compile(rb'\s*\{\s*"[^"]*"\s*:\s*\{\s*"[^"]*"\s*:\s*\{')
PER_COLUMN = re.compile(rb'\s*\{\s*"structure"\s*:\s*\[')
CALCULATION = re.compile(r"(.+)-\d+-\d+")
"""A frame's id: task, calculation, ionic step."""


def recognises(name: str, head: bytes) -> bool:  # noqa: ARG001  the readers' common signature
    """Tell whether a file is MPtrj's JSON, by its nesting and names."""
    if PER_COLUMN.match(head):
        return True
    return bool(PER_FRAME.match(head)) and any(f'"{key}"'.encode() in head for key in (STRUCTURE, ENERGY))


def read(path: Path) -> Iterator[Candidate]:
    """Yield frames one by one; never more than one of them is in memory.

    A frame without its DFT energy is not given another: ``energy_per_atom`` holds corrections in MPtrj. Its kind is
    known where CHGNet's ``parse_vasp_dir`` took it (VASP's ``e_0_energy``); MPtrj does not say which one it holds.

    Raises
    ------
    Broken
        Where the JSON ends early, is damaged or turns out to be something else.
    """
    if PER_COLUMN.match(text.head(path)):
        yield from _columns(path)
        return
    with text.open_bytes(path) as stream:
        for row, (keys, frame) in enumerate(json_stream.values(stream, depth=2)):
            found = CALCULATION.fullmatch(keys[-1])
            # the second calculation of a task starts where the first has ended, so the task is the run
            trajectory = "/".join([keys[0], found[1]] if found else keys[:1])
            yield _candidate(path, row, frame, trajectory=trajectory)


def _columns(path: Path) -> Iterator[Candidate]:
    """Yield the frames of CHGNet's ``parse_vasp_dir``: a list for each quantity, read side by side; all of one run."""
    import ijson

    names = (STRUCTURE, ENERGY, FORCES, STRESS)
    missing = object()
    with ExitStack() as stack:
        streams = [stack.enter_context(text.open_bytes(path)) for _ in names]
        columns = [
            ijson.items(stream, f"{name}.item", use_float=True)
            for name, stream in zip(names, streams, strict=True)
        ]
        absent: set[str] = set()
        try:
            for row, items in enumerate(itertools.zip_longest(*columns, fillvalue=missing)):
                ended = {name for name, item in zip(names, items, strict=True) if item is missing}
                if row == 0:
                    absent = ended
                if ended != absent:
                    short = ", ".join(sorted(ended ^ absent))
                    raise Broken(f"its lists differ in length: {short} ends after {row} frames")
                frame = {name: item for name, item in zip(names, items, strict=True) if name not in absent}
                yield _candidate(path, row, frame, energy_kind=SIGMA_TO_ZERO)
        except ijson.JSONError as error:
            raise json_stream.not_json(error) from error


# numbers of a damaged file may be of any size; the judge refuses what is not finite
@np.errstate(all="ignore")
def _candidate(
    path: Path, row: int, frame: object, *, trajectory: str = "", energy_kind: str = UNSTATED
) -> Candidate:
    try:
        if not isinstance(frame, Mapping) or STRUCTURE not in frame:
            raise Broken(f"no {STRUCTURE}")  # noqa: TRY301
        atoms = _atoms(frame[STRUCTURE])
        energy, forces, stress, corrected = (frame.get(name) for name in (ENERGY, FORCES, STRESS, CORRECTED))
        if CORRECTED not in frame and energy is not None:
            _refuse_entropy(energy, len(atoms))
        return Candidate(
            source=str(path),
            frame=row,
            atoms=atoms,
            energy_eV=None if energy is None else float(energy),
            forces_eV_per_A=None if forces is None else _array(forces),
            # VASP's own kbar, positive where the crystal wants to expand
            stress=None if stress is None else -_array(stress).reshape(3, 3) / units.KBAR_PER_EV_PER_A3,
            level_of_theory=LEVEL_OF_THEORY if CORRECTED in frame else None,
            energy_kind=energy_kind,
            trajectory=trajectory,
            corrected_energy_eV=None if corrected is None else float(corrected),
        )
    except Broken as error:
        reason = str(error)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = f"broken: {type(error).__name__}: {error}"
    return Candidate(str(path), row, reason=reason, trajectory=trajectory)


def _refuse_entropy(energy_eV: float, n_atoms: int) -> None:
    if abs(energy_eV) < LEAST_ENERGY_EV_PER_ATOM * n_atoms:
        raise Broken(
            f"its energy of {energy_eV:.4f} eV is next to nothing: CHGNet misreads VASP 5, ingest the run's own output"
        )


def _atoms(structure: Mapping[str, Any]) -> Atoms:
    """Return a pymatgen structure's dictionary as atoms; as in pymatgen the fractional coordinates count."""
    lattice, sites = structure["lattice"], structure["sites"]
    numbers = [_number(place, site["species"]) for place, site in enumerate(sites)]
    cell = _array(lattice["matrix"]).reshape(3, 3)
    fractional = _array([site["abc"] for site in sites]).reshape(len(sites), 3)
    return Atoms(numbers=numbers, positions=fractional @ cell, cell=cell, pbc=lattice.get("pbc", True))


def _number(place: int, species: list[Mapping[str, Any]]) -> int:
    if len(species) != 1 or species[0].get("occu", 1) != 1:
        raise Broken(f"site {place} is shared or partly occupied: no DFT run has such a site")
    number = atomic_numbers.get(species[0]["element"])
    if not number:
        raise Broken(f"site {place} holds {str(species[0]['element'])[:20]!r}: that is no element")
    return int(number)


def _array(value: Any) -> NDArray[np.float64]:
    """Return numbers, in a list or in the dictionary that older versions of CHGNet wrote of an array."""
    return np.asarray(value["data"] if isinstance(value, Mapping) else value, dtype=float)
