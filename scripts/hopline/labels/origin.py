"""Where a finished run came from: the frame.extxyz that Hopline wrote beside its input, and whether they agree."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.geometry import find_mic

from hopline import frames
from hopline.console import InputError
from hopline.labels.candidates import Broken, Candidate

FRAME = "frame.extxyz"
SAME_STRUCTURE_A = 1e-4
"""pw.x prints positions to 1e-7 of the lattice parameter, VASP to 1e-5 A; what is further off is another structure."""


def frame_beside(output: Path) -> Atoms | None:
    """Return the frame that lies beside an output, None where there is none."""
    beside = output.with_name(FRAME)
    if not beside.is_file():
        return None
    try:
        return frames.read_frames(beside)[0]
    except InputError as error:
        raise Broken(str(error)) from error


def with_origin(candidate: Candidate, frame: Atoms) -> Candidate:
    """Return a run's frame with positions and origin of the frame that went in, rejected if it is another.

    The frame's own level of theory counts, since it names pseudopotentials by their content; that the run kept its
    cutoffs is checked.
    """
    reason = candidate.reason
    if candidate.atoms is not None:
        reason = _another_structure(frame, candidate.atoms) or reason
    level = frame.info.get("level_of_theory")
    if level is None:
        return replace(candidate, atoms=frame, reason=reason)
    other = "; ".join(_not_in(str(level), candidate))
    if not reason and other:
        reason = f"the run had {other}, the frame was written for: {level}"
    return replace(candidate, atoms=frame, reason=reason, level_of_theory=str(level), pseudopotentials={})


def _not_in(level: str, candidate: Candidate) -> Iterator[str]:
    """Yield what an output says of its theory and a frame's level does not.

    Of a pw.x run functional and cutoffs: fixed occupations may stand in for the smearing asked for (see `ladder`). Of
    a VASP run all but the k-points, which a set of many cells may name by their density, and the POTCARs by symbol.
    """
    parts = (candidate.level_of_theory or "").split("; ")
    if "VASP" not in parts[0]:
        yield from (part for part in parts[:2] if part and part not in level)
        return
    yield from (part for part in parts if not part.lower().startswith("k") and part not in level)
    words = level.replace(";", " ").split()
    for element, title in sorted(candidate.pseudopotentials.items()):
        if not set(title.split()[1:2]) <= set(words):
            yield f"{element} {title}"


def _another_structure(frame: Atoms, printed: Atoms) -> str:
    """Return how the structure in an output differs from the frame that went in; empty where it does not."""
    if list(frame.numbers) != list(printed.numbers):
        return f"the output is of another structure: {printed.symbols}, {FRAME} holds {frame.symbols}"
    cell_A = float(np.abs(frame.cell.array - printed.cell.array).max())
    if cell_A > SAME_STRUCTURE_A:
        return f"the output is of another structure: its cell differs by {cell_A:.4f} A from {FRAME}"
    moved_A = find_mic(printed.positions - frame.positions, frame.cell, pbc=True)[1]
    if moved_A.max() > SAME_STRUCTURE_A:
        worst = int(moved_A.argmax())
        return f"the output is of another structure: atom {worst} is {moved_A[worst]:.4f} A off {FRAME}"
    return ""
