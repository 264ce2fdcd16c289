"""Which potential, composition and temperature a result belongs to, read from the folders it lies in."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from hopline.console import InputError

TEMPERATURE = re.compile(r"([0-9.]*[0-9])K")


@dataclass(frozen=True, order=True)
class Point:
    """One condition of one potential; ``temperature_K`` in K."""

    potential: str
    composition: str
    temperature_K: float

    @property
    def line(self) -> tuple[str, str]:
        """Potential and composition: what one Arrhenius line belongs to."""
        return self.potential, self.composition


def names_below(path: str | os.PathLike[str], folder: str, count: int) -> tuple[str, ...]:
    """Return the ``count`` path parts that follow the last ``folder`` in a path.

    Raises
    ------
    InputError
        If the path has no such folder or is too short.
    """
    parts = Path(path).parts
    rows = [row for row, part in enumerate(parts[:-1]) if part == folder]
    if not rows or len(parts) < rows[-1] + 1 + count:
        raise InputError(
            f"{path} does not lie {count} names below a folder {folder}/: keep the layout of results/"
        )
    return parts[rows[-1] + 1 : rows[-1] + 1 + count]


def point_of(path: str | os.PathLike[str], folder: str) -> Point:
    """Return the point of ``{folder}/{potential}/{composition}/{temperature}K...``."""
    potential, composition, name = names_below(path, folder, 3)
    return Point(potential, composition, temperature_of(name, path))


def temperature_of(name: str, path: str | os.PathLike[str]) -> float:
    """Return the temperature in K that a file or folder name begins with, such as 850 of ``850K.rdf.csv``."""
    found = TEMPERATURE.match(name)
    if not found:
        raise InputError(f"{path}: {name} does not begin with a temperature such as 850K")
    return float(found.group(1))


def system_of(path: str | os.PathLike[str], folder: str) -> str:
    """Return the system a result belongs to: the folder above ``folder``."""
    names_below(path, folder, 1)
    parts = Path(path).parts
    row = max(row for row, part in enumerate(parts[:-1]) if part == folder)
    if not row:
        raise InputError(f"{path} has no folder of a system above {folder}/: keep the layout of results/")
    return parts[row - 1]
