"""MACE: an ASE calculator from one model file. The one place for inference that imports the mace package.

MACE saves whole models by pickling, and a pickle can run code when it is opened. A card's checksum proves that the
model file is the one the card was written for, not that its author means well: open cards of people you trust.
"""

import os
import pickle
from collections.abc import Sequence
from typing import Any, ClassVar

import ase.stress
import mace  # noqa: F401  # before e3nn: it lets torch load e3nn's constants
import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import chemical_symbols
from mace.data import get_neighborhood

from hopline.console import InputError, say


class MaceCalculator(Calculator):
    """MACE as an ASE calculator that hands arrays to the model directly.

    MACE's own calculator wraps each frame in a data set, a loader and a batch, a third of the time of a small model
    on a small cell. The neighbour list and the model are MACE's. Stress is computed from the first time it is asked
    for on, so constant-volume dynamics never pays for it. Energy in eV, forces in eV/A, stress in eV/A^3 (ASE sign,
    Voigt).
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, model: Any, *, dtype: str, head: str | None) -> None:
        super().__init__()
        self.dtype = getattr(torch, dtype)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = model.to(self.device, self.dtype).eval()
        for parameter in self.model.parameters():
            parameter.requires_grad_(requires_grad=False)
        heads = list(getattr(model, "heads", None) or ["Default"])
        if head is not None and head not in heads:
            raise InputError(f"the model has no head {head!r}; it has {', '.join(heads)}")
        self.head = torch.tensor([heads.index(head) if head else len(heads) - 1], device=self.device)
        self.numbers = model.atomic_numbers.cpu().numpy()
        self.wants_stress = False

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy", "forces", "stress"),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute energy and forces of ``atoms``, and the stress where it is wanted."""
        super().calculate(atoms, properties, system_changes)
        self.wants_stress |= "stress" in properties
        graph = self._graph(self.atoms)
        out = self.model(graph, training=False, compute_force=True, compute_stress=self.wants_stress)
        energy_eV = float(out["energy"].detach())
        self.results = {
            "energy": energy_eV,
            "free_energy": energy_eV,
            "forces": out["forces"].detach().cpu().double().numpy(),
        }
        if self.wants_stress:
            stress = out["stress"].detach().cpu().double().numpy()[0]
            self.results["stress"] = ase.stress.full_3x3_to_voigt_6_stress(stress)

    def _graph(self, atoms: Atoms) -> dict[str, torch.Tensor]:
        """Return the model's input for one periodic frame."""
        strangers = set(atoms.numbers) - set(self.numbers)
        if strangers:
            symbols = ", ".join(chemical_symbols[number] for number in sorted(strangers))
            raise InputError(f"the MACE model was not trained on {symbols}")
        edges, shifts, unit_shifts, cell = get_neighborhood(
            atoms.positions, float(self.model.r_max), (True, True, True), atoms.cell.array.copy()
        )
        species = np.searchsorted(self.numbers, atoms.numbers)
        whole = {"edge_index": edges, "batch": np.zeros(len(atoms)), "ptr": np.array([0, len(atoms)])}
        real = {
            "positions": atoms.positions,
            "node_attrs": np.eye(len(self.numbers))[species],
            "shifts": shifts,
            "unit_shifts": unit_shifts,
            "cell": cell,
        }
        return {
            "head": self.head,
            **{
                name: torch.as_tensor(value, dtype=torch.long, device=self.device)
                for name, value in whole.items()
            },
            **{
                name: torch.tensor(value, dtype=self.dtype, device=self.device)
                for name, value in real.items()
            },
        }


def load_calculator(model_file: str | os.PathLike[str], *, dtype: str, head: str | None) -> Calculator:
    """Return the calculator (energy, forces, stress) of a MACE model file with one head."""
    say(f"{model_file} is a pickled MACE model: opening it runs what its author put there")
    try:
        model = torch.load(model_file, map_location="cpu", weights_only=False)
        return MaceCalculator(model, dtype=dtype, head=head)
    except (RuntimeError, EOFError, AttributeError, KeyError, ImportError, pickle.UnpicklingError) as error:
        raise InputError(f"{model_file} is not a whole MACE model file: {error}") from error
