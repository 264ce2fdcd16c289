"""Forces on a batch of systems whose atoms stay the same while positions and cells change: what a run asks for."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from hopline.console import InputError


class SystemRefused(InputError):  # noqa: N818  it names what happened
    """Atoms of one system of a batch that the model cannot compute; ``row`` is the system's place in the batch."""

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


@dataclass(frozen=True, eq=False)
class BatchForces:
    """What a model says about a batch, all in float64.

    ``energies_eV`` (n_systems,), ``forces_eV_per_A`` (n_atoms, 3), ``stresses_eV_per_A3`` (n_systems, 3, 3) with ASE's
    sign and without the atoms' motion, None where it was not asked for. ``shortest_A`` (n_systems,) is the shortest
    distance between two atoms (infinite where none is within the cutoff): the model knows it anyway.
    """

    energies_eV: Tensor
    forces_eV_per_A: Tensor
    stresses_eV_per_A3: Tensor | None
    shortest_A: Tensor


class ForceField(ABC):
    """A model on one batch; it may keep what it built for earlier positions, and its answers never depend on that."""

    device: torch.device

    @abstractmethod
    def compute(self, positions_A: Tensor, cells_A: Tensor, *, stress: bool) -> BatchForces:
        """Return energies and forces, and the stresses if asked for, by one call of the model.

        ``positions_A`` (n_atoms, 3), atoms of one system after another, need not lie in their cells; ``cells_A``
        (n_systems, 3, 3) has vectors as rows; both float64 on ``device``.

        Raises
        ------
        SystemRefused
            If positions are no finite numbers, or the model cannot compute a system.
        """
