"""From a potential card to a calculator, of one frame as ASE asks for it or of many at once, whatever the family."""

import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import ase.stress
import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from numpy.typing import NDArray

from hopline.console import InputError
from hopline.potentials.card import NOT_ACCELERATED, read_card
from hopline.potentials.forcefield import BatchForces, ForceField, SystemRefused
from hopline.potentials.neighbours import SKIN_A

FAMILIES = ("chgnet", "mace")


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of a frame: energy (eV), forces (n_atoms, 3) in eV/A, stress (3, 3) in eV/A^3 (ASE's sign)."""

    energy_eV: float
    forces_eV_per_A: NDArray[np.float64]
    stress_eV_per_A3: NDArray[np.float64] | None = None


class BatchedCalculator(Calculator):
    """An ASE calculator that computes any number of frames in one call of its model.

    The stress is computed from the first time it is asked for on, so constant-volume dynamics never pays for it. Energy
    in eV, forces in eV/A, stress in eV/A^3 (ASE sign, Voigt). Cells are periodic whatever a frame's ``pbc`` says.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]
    results: dict[str, Any]
    wants_stress = False

    def __init__(self) -> None:
        super().__init__()
        self._joined: tuple[NDArray[np.int64], ForceField] | None = None

    @abstractmethod
    def join(self, frames: Sequence[Atoms], *, skin_A: float = SKIN_A) -> ForceField:
        """Return the model on the atoms of periodic frames, for any positions and cells they may come to have.

        ``skin_A`` is how much farther than the cutoff neighbours are searched for, to be found without a search later.
        """

    def predict(self, frames: Sequence[Atoms], *, stress: bool) -> list[Prediction]:
        """Return what the model says about periodic frames, computed together; ``stress``: that too."""
        found = _computed(self.join(frames, skin_A=0.0), frames, stress=stress)
        forces = np.split(
            found.forces_eV_per_A.cpu().numpy(), np.cumsum([len(atoms) for atoms in frames])[:-1]
        )
        tensors = found.stresses_eV_per_A3
        stresses = [None] * len(frames) if tensors is None else list(tensors.cpu().numpy())
        energies_eV = found.energies_eV.tolist()
        return [Prediction(*one) for one in zip(energies_eV, forces, stresses, strict=True)]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy", "forces", "stress"),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute energy and forces of ``atoms``, and the stress where it is wanted."""
        super().calculate(atoms, properties, system_changes)
        self.wants_stress |= "stress" in properties
        if self._joined is None or not np.array_equal(self._joined[0], self.atoms.numbers):
            self._joined = (self.atoms.numbers.copy(), self.join([self.atoms]))
        found = _computed(self._joined[1], [self.atoms], stress=self.wants_stress)
        energy_eV = float(found.energies_eV[0])
        self.results = {
            "energy": energy_eV,
            "free_energy": energy_eV,
            "forces": found.forces_eV_per_A.cpu().numpy(),
        }
        if found.stresses_eV_per_A3 is not None:
            stress = found.stresses_eV_per_A3[0].cpu().numpy()
            self.results["stress"] = ase.stress.full_3x3_to_voigt_6_stress(stress)


def _computed(field: ForceField, frames: Sequence[Atoms], *, stress: bool) -> BatchForces:
    """Return what a force field says about frames; a refusal names the frame."""
    positions_A = np.concatenate([atoms.positions for atoms in frames])
    cells_A = np.stack([atoms.cell.array for atoms in frames])
    try:
        return field.compute(
            torch.tensor(positions_A, dtype=torch.float64, device=field.device),
            torch.tensor(cells_A, dtype=torch.float64, device=field.device),
            stress=stress,
        )
    except SystemRefused as refusal:
        frame = frames[refusal.row].info.get("frame_id", "?")
        raise SystemRefused(f"frame {frame}: {refusal}", refusal.row) from refusal


class Family(Protocol):
    """What a module in ``potentials/`` offers for its family."""

    def load_calculator(
        self,
        model_file: str | os.PathLike[str],
        *,
        dtype: str,
        head: str | None,
        accelerate: str = NOT_ACCELERATED,
    ) -> BatchedCalculator:
        """Return a calculator of energy, forces and stress; ``accelerate``: how its model is made faster on a GPU."""

    def export_weights(
        self, weights: str, path: str | os.PathLike[str], *, source: Path | None, head: str | None
    ) -> tuple[str, str | None]:
        """Write weights as they are, from the package or from a file, with one head; return data type and head."""


def load_calculator(
    card_path: str | os.PathLike[str], *, accelerate: str = NOT_ACCELERATED
) -> BatchedCalculator:
    """Return the calculator (energy eV, forces eV/A, stress eV/A^3) that a potential card describes.

    ``accelerate`` is one of `card.ACCELERATIONS`; what family, machine or packages do not offer is refused.
    """
    card, model = read_card(card_path)
    family = family_module(card.family)
    return family.load_calculator(model, dtype=card.dtype, head=card.head, accelerate=accelerate)


def family_module(family: str) -> Family:
    """Import the module of a potential family; only then is the family's package loaded."""
    if family == "chgnet":
        from hopline.potentials import chgnet

        return chgnet
    if family == "mace":
        from hopline.potentials import mace

        return mace
    raise InputError(f"potential family {family!r} is not known; there are {', '.join(FAMILIES)}")
