"""What moves the atoms of a batch: the interface of both engines, and what a run sees of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

ENGINES = ("batched", "ase")


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One system at one instant.

    ``positions_A`` (n_atoms, 3) unwrapped, ``momenta`` (n_atoms, 3) in ASE's units, ``cell_A`` (3, 3),
    ``forces_eV_per_A`` (n_atoms, 3), energies in eV, ``pressure_GPa`` with the atoms' motion (None where
    no stress was computed), and ``shortest_A``, the shortest distance between two atoms (infinite where none is near).
    """

    positions_A: NDArray[np.float64]
    momenta: NDArray[np.float64]
    cell_A: NDArray[np.float64]
    forces_eV_per_A: NDArray[np.float64]
    potential_energy_eV: float
    kinetic_energy_eV: float
    pressure_GPa: float | None
    shortest_A: float

    @property
    def volume_A3(self) -> float:
        """Volume of the cell."""
        return float(abs(np.linalg.det(self.cell_A)))

    @property
    def energy_eV(self) -> float:
        """Total energy."""
        return self.potential_energy_eV + self.kinetic_energy_eV


@dataclass(frozen=True, eq=False)
class Saved:
    """All that a system's next step depends on: arrays by name, and plain values that JSON can hold.

    Among the arrays are ``positions_A`` (n_atoms, 3), ``momenta`` (n_atoms, 3) and ``cells_A`` (1, 3, 3).
    """

    arrays: Mapping[str, NDArray[Any]]
    values: Mapping[str, Any]


class Engine(Protocol):
    """Systems that advance together, each with its own temperature and noise; rows count those still in the batch."""

    name: str

    def advance(self, temperatures_K: Sequence[float]) -> None:
        """Go one timestep; a system that the model refuses raises SystemRefused, and no system has moved."""

    def scale_cells(self, scales: Sequence[float]) -> None:
        """Multiply the lengths of each cell, atoms along with it."""

    def snapshots(self) -> list[Snapshot]:
        """Return every system as it is now."""

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these systems only."""

    def saved(self, row: int) -> Saved:
        """Return all that a system's next step depends on."""
