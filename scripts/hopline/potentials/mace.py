"""MACE: a calculator from one model file, and one head of a foundation model as such a file.

The one place for inference that imports the mace package.

MACE saves whole models by pickling, and a pickle can run code when it is opened. A card's checksum proves that the
model file is the one the card was written for, not that its author means well: open cards of people you trust.
"""

import copy
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mace  # noqa: F401  # before e3nn: it lets torch load e3nn's constants
import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from mace.data import get_neighborhood
from mace.modules import MACE, ScaleShiftMACE
from mace.tools.scripts_utils import extract_config_mace_model, remove_pt_head
from numpy.typing import NDArray

from hopline.console import InputError, say
from hopline.files import read_torch
from hopline.potentials.calculator import BatchedCalculator, Prediction

ACADEMIC = ("small-omat-0", "medium-omat-0", "mace-matpes-pbe-0", "mace-matpes-r2scan-0")
"""Foundation models that the package says are under the Academic Software License (no commercial use)."""
UNNAMED_HEAD = "Default"
"""What mace calls the only head of a model whose file is older than heads."""
EVERY_MACE_HAS = ("r_max", "atomic_numbers", "atomic_energies_fn")
"""What no other pickle has by accident; a MACE of dipoles alone lacks the last."""
PROBE_SPACING_A = 2.5
MAX_RELATIVE_DIFFERENCE = {"float64": 1e-9, "float32": 1e-4}
"""Of a head's energy and forces before and after its export, both computed in float64: taking one head out of many
divides weights by a root, which the file's own type rounds."""


class MaceCalculator(BatchedCalculator):
    """MACE as a calculator that hands arrays to the model directly.

    MACE's own calculator wraps each frame in a data set, a loader and a batch, a third of the time of a small model
    on a small cell. The neighbour list and the model are MACE's. Atomic references, hundreds of eV an atom in some
    codes, are added in float64: in a float32 total they would leave steps of meV.
    """

    def __init__(self, model: Any, *, dtype: str, head: str | None) -> None:
        super().__init__()
        self.dtype = getattr(torch, dtype)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = model.to(self.device, self.dtype).eval()
        for parameter in self.model.parameters():
            parameter.requires_grad_(requires_grad=False)
        heads = heads_of(model)
        if head is not None and head not in heads:
            raise InputError(f"the model has no head {head!r}; it has {', '.join(heads)}")
        self.head = heads.index(head) if head else len(heads) - 1
        self.numbers = model.atomic_numbers.cpu().numpy()
        references_eV = torch.atleast_2d(model.atomic_energies_fn.atomic_energies)[self.head]
        self.references_eV = np.array(references_eV.tolist())

    def predict(self, frames: Sequence[Atoms], *, stress: bool) -> list[Prediction]:
        """Return energies, forces and, if wanted, stresses of periodic frames, in one call of the model."""
        out = self.model(self._batch(frames), training=False, compute_force=True, compute_stress=stress)
        ends = np.cumsum([len(atoms) for atoms in frames])[:-1]
        forces = np.split(out["forces"].detach().cpu().double().numpy(), ends)
        stresses = out["stress"].detach().cpu().double().numpy() if stress else [None] * len(frames)
        return [
            Prediction(*found) for found in zip(self._energies(out, frames), forces, stresses, strict=True)
        ]

    def _energies(self, out: dict[str, torch.Tensor], frames: Sequence[Atoms]) -> list[float]:
        """Return the energy (eV) of each frame that the model was asked for, references added in float64."""
        kind = type(self.model)
        if kind is ScaleShiftMACE:
            above_references = out["interaction_energy"]
        elif kind is MACE:
            # the first of the contributions are the references
            above_references = out["contributions"][:, 1:].sum(dim=1)
        else:
            # models with charges and the like have more terms, which only their total holds
            return [float(energy_eV) for energy_eV in out["energy"].tolist()]
        return [
            energy_eV + float(self.references_eV[self._species(atoms)].sum())
            for energy_eV, atoms in zip(above_references.tolist(), frames, strict=True)
        ]

    def _species(self, atoms: Atoms) -> NDArray[np.int64]:
        return np.searchsorted(self.numbers, atoms.numbers)

    def _batch(self, frames: Sequence[Atoms]) -> dict[str, torch.Tensor]:
        """Return the model's input for periodic frames: their graphs side by side, atoms counted through."""
        strangers = {number for atoms in frames for number in atoms.numbers} - set(self.numbers)
        if strangers:
            symbols = ", ".join(chemical_symbols[number] for number in sorted(strangers))
            raise InputError(f"the MACE model was not trained on {symbols}")
        cutoff_A, periodic = float(self.model.r_max), (True, True, True)
        parts = [get_neighborhood(one.positions, cutoff_A, periodic, one.cell.array.copy()) for one in frames]
        sizes = [len(atoms) for atoms in frames]
        starts = np.cumsum([0, *sizes])
        counts = {
            "edge_index": np.concatenate(
                [part[0] + start for part, start in zip(parts, starts[:-1], strict=True)], axis=1
            ),
            "batch": np.repeat(np.arange(len(frames)), sizes),
            "ptr": starts,
            "head": np.full(len(frames), self.head),
        }
        reals = {
            "positions": np.concatenate([atoms.positions for atoms in frames]),
            "node_attrs": np.eye(len(self.numbers))[np.concatenate([*map(self._species, frames)])],
            **{
                name: np.concatenate([part[row] for part in parts])
                for row, name in enumerate(("shifts", "unit_shifts", "cell"), start=1)
            },
        }
        return {
            name: torch.as_tensor(value, dtype=torch.long, device=self.device)
            for name, value in counts.items()
        } | {name: torch.tensor(value, dtype=self.dtype, device=self.device) for name, value in reals.items()}


def load_calculator(model_file: str | os.PathLike[str], *, dtype: str, head: str | None) -> MaceCalculator:
    """Return the calculator (energy, forces, stress) of a MACE model file with one head."""
    return MaceCalculator(read_model(model_file), dtype=dtype, head=head)


def read_model(model_file: str | os.PathLike[str]) -> Any:
    """Open a pickled MACE model on the CPU, saying so, since opening it can run code of whoever made it."""
    if Path(model_file).is_file():
        say(f"{model_file} is a pickled MACE model: opening it runs what its author put there")
    model = read_torch(model_file, kind="MACE model", only_tensors=False)
    if isinstance(model, torch.jit.ScriptModule) or not all(hasattr(model, name) for name in EVERY_MACE_HAS):
        raise InputError(
            f"{model_file} is not a whole MACE model file: what it holds is of type {type(model).__name__}; wanted "
            "is a model with energies as mace-torch saves it whole, neither compiled nor its weights alone"
        )
    return model


def foundation_address(name: str) -> str:
    """Return where mace-torch says that the foundation model of this name is to be had."""
    from mace.calculators.foundations_models import mace_mp_urls

    if name not in mace_mp_urls:
        raise InputError(f"mace-torch knows no foundation model {name!r}; it knows {', '.join(mace_mp_urls)}")
    return str(mace_mp_urls[name])


def heads_of(model: Any) -> list[str]:
    """Return the names of a model's heads; older models have one without a name."""
    return list(getattr(model, "heads", None) or [UNNAMED_HEAD])


def dtype_of(model: Any) -> str:
    """Return the precision of a model's own parameters, as in ``float32``."""
    return str(next(model.parameters()).dtype).removeprefix("torch.")


def single_head(model: Any, head: str) -> Any:
    """Return a new model with one head of a model that has several, or the model itself if it has this one alone."""
    if heads_of(model) == [head]:
        return model
    if head not in heads_of(model):
        raise InputError(f"the model has no head {head!r}; it has {', '.join(heads_of(model))}")
    if "error" in extract_config_mace_model(model):
        raise InputError(f"the heads of a {type(model).__name__} cannot be taken apart by mace-torch")
    with _default_dtype(dtype_of(model)):
        return remove_pt_head(model, head)


def export_weights(
    weights: str, path: str | os.PathLike[str], *, source: Path | None, head: str | None
) -> tuple[str, str | None]:
    """Write one head of a model file (``source``) as a model file; return its data type and the head's name.

    A model with one head is copied byte for byte. A head taken out of several is proven to compute what it did among
    them: energy and forces of a crystal of all the model's elements.

    Raises
    ------
    InputError
        If there is no file, it is no MACE model, the head is not there, there are several and none is named, or what
        came out computes something else.
    """
    if source is None:
        raise InputError(f"the MACE weights {weights} come from a model file: give it")
    model = read_model(source)
    heads = heads_of(model)
    if head is None and len(heads) > 1:
        raise InputError(
            f"{source} has the heads {', '.join(heads)}: say which one to take (head of the potential in the config)"
        )
    head = head or heads[0]
    single = single_head(model, head)
    if single is model:
        shutil.copyfile(source, path)
    else:
        _refuse_other_answers(model, single, head)
        torch.save(single, path)
    return dtype_of(model), head


def _refuse_other_answers(model: Any, single: Any, head: str) -> None:
    numbers = model.atomic_numbers.cpu().numpy()
    side = int(np.ceil(len(numbers) ** (1 / 3)))
    sites = np.stack(np.unravel_index(np.arange(len(numbers)), (side, side, side)), axis=1)
    probe = Atoms(numbers, PROBE_SPACING_A * sites, cell=[PROBE_SPACING_A * side] * 3, pbc=True)
    probe.rattle(0.1, seed=0)
    answers = []
    for one in (model, single):
        # a calculator changes its model's type and asks for no gradients of its weights
        calculator = MaceCalculator(copy.deepcopy(one), dtype="float64", head=head)
        calculator.calculate(probe)
        answers.append(np.append(calculator.results["forces"].ravel(), calculator.results["energy"]))
    before, after = answers
    difference = float(np.abs(after - before).max() / np.abs(before).max())
    if not difference <= MAX_RELATIVE_DIFFERENCE[dtype_of(model)]:
        raise InputError(
            f"head {head} alone does not compute what it did among the others (relative difference {difference:.2g}): "
            "mace-torch cannot take it out of this model"
        )


@contextmanager
def _default_dtype(dtype: str) -> Iterator[None]:
    """Have new tensors of this type; mace builds models of the default type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        yield
    finally:
        torch.set_default_dtype(before)
