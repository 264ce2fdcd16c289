"""From a potential card to a calculator, of one frame as ASE asks for it or of many at once, whatever the family."""

import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import ase.stress
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from numpy.typing import NDArray

from hopline.console import InputError
from hopline.potentials.card import read_card

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
    in eV, forces in eV/A, stress in eV/A^3 (ASE sign, Voigt).
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]
    results: dict[str, Any]
    wants_stress = False

    @abstractmethod
    def predict(self, frames: Sequence[Atoms], *, stress: bool) -> list[Prediction]:
        """Return what the model says about periodic frames, computed together; ``stress``: that too."""

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy", "forces", "stress"),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute energy and forces of ``atoms``, and the stress where it is wanted."""
        super().calculate(atoms, properties, system_changes)
        self.wants_stress |= "stress" in properties
        found = self.predict([self.atoms], stress=self.wants_stress)[0]
        self.results = {
            "energy": found.energy_eV,
            "free_energy": found.energy_eV,
            "forces": found.forces_eV_per_A,
        }
        if found.stress_eV_per_A3 is not None:
            self.results["stress"] = ase.stress.full_3x3_to_voigt_6_stress(found.stress_eV_per_A3)


class Family(Protocol):
    """What a module in ``potentials/`` offers for its family."""

    def load_calculator(
        self, model_file: str | os.PathLike[str], *, dtype: str, head: str | None
    ) -> BatchedCalculator:
        """Return a calculator of energy, forces and stress."""

    def export_weights(
        self, weights: str, path: str | os.PathLike[str], *, source: Path | None, head: str | None
    ) -> tuple[str, str | None]:
        """Write weights as they are, from the package or from a file, with one head; return data type and head."""


def load_calculator(card_path: str | os.PathLike[str]) -> BatchedCalculator:
    """Return the calculator (energy eV, forces eV/A, stress eV/A^3) that a potential card describes."""
    card, model = read_card(card_path)
    return family_module(card.family).load_calculator(model, dtype=card.dtype, head=card.head)


def family_module(family: str) -> Family:
    """Import the module of a potential family; only then is the family's package loaded."""
    if family == "chgnet":
        from hopline.potentials import chgnet

        return chgnet
    if family == "mace":
        from hopline.potentials import mace

        return mace
    raise InputError(f"potential family {family!r} is not known; there are {', '.join(FAMILIES)}")
