"""The table that a batch of labelled frames leaves: one row a frame."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from hopline import files

CONVERGED, REJECTED = "converged", "rejected"


@dataclass(frozen=True)
class Row:
    """How one frame was labelled: by which rung (see `ladder`), or for what reason it was not."""

    index: str
    status: str
    energy_eV: float | None
    scf_steps: int
    wall_time_s: float | None
    rung: str
    reason: str


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write the table of a batch as CSV."""
    files.write_rows(path, [field.name for field in fields(Row)], map(asdict, rows))


def summary(rows: Sequence[Row]) -> str:
    """Return how many frames of a batch have a label."""
    return f"{sum(row.status == CONVERGED for row in rows)} of {len(rows)} frames have a label"
