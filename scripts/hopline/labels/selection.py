"""The frames that inputs are written for: rows of a pool, each checked against its id."""

import os
from collections.abc import Iterable, Sequence

import numpy as np
from ase import Atoms

from hopline import files, frames
from hopline.console import InputError

KEPT_INFO = ("system", "composition", "source", "source_frame", "temperature_K")
"""What a frame keeps of its origin on its way through a DFT code."""


def selected(pool: str | os.PathLike[str], selection: str | os.PathLike[str] | None) -> list[Atoms]:
    """Read the frames of a pool (extended XYZ) that a selection (CSV with a column row) names; all without one.

    Raises
    ------
    InputError
        If a file cannot be read, or as `pick`.
    """
    found = frames.read_frames(pool)
    if selection is None:
        return found
    table = files.read_table(selection, ["row"])
    rows = table["row"].to_numpy()
    if not len(rows) or not np.issubdtype(rows.dtype, np.integer):
        raise InputError(
            f"{selection}: the column row must hold whole numbers; make it with select_direct.py"
        )
    ids = table["frame_id"].fillna("").astype(str) if "frame_id" in table else [""] * len(rows)
    return pick(found, rows.tolist(), list(ids), where=str(selection))


def pick(
    pool: Sequence[Atoms], rows: Sequence[int], frame_ids: Sequence[str], *, where: str = "selection"
) -> list[Atoms]:
    """Return the selected frames of a pool, in the selection's order, each checked against its id.

    Raises
    ------
    InputError
        If a row lies outside the pool or holds another frame than the one that was selected.
    """
    chosen = []
    for row, expected in zip(rows, frame_ids, strict=True):
        if not 0 <= row < len(pool):
            raise InputError(
                f"{where} names row {row} of a pool of {len(pool)} frames: give the pool it was made from"
            )
        found = frames.frame_id(pool[row])
        if expected and found != expected:
            raise InputError(
                f"{where}: row {row} is frame {found}, not {expected}: give the pool it was made from"
            )
        chosen.append(pool[row])
    return chosen


def elements_of(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Return the elements in files of frames (extended XYZ), sorted."""
    return sorted(
        {symbol for path in paths for frame in frames.read_frames(path) for symbol in frame.symbols}
    )
