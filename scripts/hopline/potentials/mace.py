"""MACE: a calculator from one model file, and one head of a foundation model as such a file.

The one place for inference that imports the mace package.

MACE saves whole models by pickling, and a pickle can run code when it is opened. A card's checksum proves that the
model file is the one the card was written for, not that its author means well: open cards of people you trust.
"""

import copy
import os
import shutil
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mace  # noqa: F401  # before e3nn: it lets torch load e3nn's constants
import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from mace.modules import MACE, ScaleShiftMACE
from mace.tools.compile import prepare
from mace.tools.scripts_utils import extract_config_mace_model, extract_model, remove_pt_head
from torch import Tensor

from hopline.console import InputError, say
from hopline.files import read_torch
from hopline.potentials.calculator import BatchedCalculator
from hopline.potentials.card import ACCELERATIONS, NOT_ACCELERATED
from hopline.potentials.edge_forcefield import EdgeForceField, shortest_of
from hopline.potentials.forcefield import BatchForces, ForceField
from hopline.potentials.neighbours import SKIN_A, NeighbourList, Pairs

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
    on a small cell. Atomic references, hundreds of eV an atom in some codes, are added in float64: in a float32 total
    they would leave steps of meV.
    """

    def __init__(
        self, model: Any, *, dtype: str, head: str | None, accelerate: str = NOT_ACCELERATED
    ) -> None:
        super().__init__()
        self.dtype = getattr(torch, dtype)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        heads = heads_of(model)
        if head is not None and head not in heads:
            raise InputError(f"the model has no head {head!r}; it has {', '.join(heads)}")
        self.head = heads.index(head) if head else len(heads) - 1
        self.model = accelerated(model.to(self.device, self.dtype).eval(), accelerate)
        for parameter in self.model.parameters():
            parameter.requires_grad_(requires_grad=False)
        self.numbers = model.atomic_numbers.cpu().numpy()

    def join(self, frames: Sequence[Atoms], *, skin_A: float = SKIN_A) -> ForceField:
        """Return the model on the atoms of periodic frames; elements it was not trained on are refused."""
        strangers = {number for atoms in frames for number in atoms.numbers} - set(self.numbers)
        if strangers:
            symbols = ", ".join(chemical_symbols[number] for number in sorted(strangers))
            raise InputError(f"the MACE model was not trained on {symbols}")
        sizes = [len(atoms) for atoms in frames]
        species = np.searchsorted(self.numbers, np.concatenate([atoms.numbers for atoms in frames]))
        constants = {
            "node_attrs": torch.eye(len(self.numbers), dtype=self.dtype)[torch.from_numpy(species)],
            "batch": torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)),
            "ptr": torch.from_numpy(np.cumsum([0, *sizes])),
            "head": torch.full((len(sizes),), self.head),
        }
        constants = {name: value.to(self.device) for name, value in constants.items()}
        kind = FIELDS.get(_kind(self.model), _ForcesOfPositions)
        return kind(self.model, constants, sizes, skin_A=skin_A, dtype=self.dtype, device=self.device)


class _ForcesOfEdges(EdgeForceField):
    """A MACE whose energy hangs on the vectors between neighbours alone, run on a batch.

    MACE adds the shifts of neighbours' images to the differences of positions: with all positions zero the shifts are
    the vectors, and its own forward pass does the rest.
    """

    def __init__(
        self, model: Any, constants: Mapping[str, Tensor], sizes: Sequence[int], *, skin_A: float,
        dtype: torch.dtype, device: torch.device,
    ) -> None:  # fmt: skip
        super().__init__(sizes, cutoff_A=float(model.r_max), skin_A=skin_A, dtype=dtype, device=device)
        self.model = model
        nowhere = {
            "positions": torch.zeros((sum(sizes), 3), dtype=dtype, device=device),
            "cell": torch.zeros((3 * len(sizes), 3), dtype=dtype, device=device),
        }
        self.constants = {**constants, **nowhere}
        self._pairs: Pairs | None = None

    def energies(self, pairs: Pairs, vectors_A: Tensor) -> Tensor:
        """Return the energies (n_systems,) in eV."""
        if pairs is not self._pairs:
            self._pairs = pairs
            self.constants["edge_index"] = torch.stack([pairs.centre, pairs.neighbour])
        # a copy: the model writes into what it is given
        out = self.model(
            {**self.constants, "shifts": vectors_A}, training=False, compute_force=False, compute_stress=False
        )
        return self.summed(out)

    @abstractmethod
    def summed(self, out: Mapping[str, Tensor]) -> Tensor:
        """Return the energies (n_systems,) that the model's outputs add up to, references in float64."""


class _ScaleShiftForces(_ForcesOfEdges):
    """The kind of MACE that tells the energy of each atom in float64."""

    def summed(self, out: Mapping[str, Tensor]) -> Tensor:
        """Return the sums of the atoms' energies."""
        by_atom = out["node_energy"]
        return by_atom.new_zeros(len(self.constants["head"])).index_add(0, self.constants["batch"], by_atom)


class _ContributionForces(_ForcesOfEdges):
    """The older kind, which tells what each of its layers adds; the first of its contributions are the references."""

    def __init__(
        self, model: Any, constants: Mapping[str, Tensor], sizes: Sequence[int], **settings: Any
    ) -> None:
        super().__init__(model, constants, sizes, **settings)
        table = torch.atleast_2d(model.atomic_energies_fn.atomic_energies).double()
        heads = self.constants["head"].index_select(0, self.constants["batch"])
        by_atom = table[heads, self.constants["node_attrs"].argmax(dim=1)]
        self.references_eV = by_atom.new_zeros(len(sizes)).index_add(0, self.constants["batch"], by_atom)

    def summed(self, out: Mapping[str, Tensor]) -> Tensor:
        """Return the sums of the layers' contributions and the references."""
        return out["contributions"][:, 1:].sum(dim=1).double() + self.references_eV


class _ForcesOfPositions(ForceField):
    """Any other MACE, whose energy may hang on more than vectors between neighbours: forces and stress are its own."""

    def __init__(
        self, model: Any, constants: Mapping[str, Tensor], sizes: Sequence[int], *, skin_A: float,
        dtype: torch.dtype, device: torch.device,
    ) -> None:  # fmt: skip
        self.model, self.constants, self.dtype, self.device = model, dict(constants), dtype, device
        self.neighbours = NeighbourList(sizes, cutoff_A=float(model.r_max), skin_A=skin_A, device=device)

    def compute(self, positions_A: Tensor, cells_A: Tensor, *, stress: bool) -> BatchForces:
        """Return what the model says; see `ForceField.compute`."""
        pairs, _, squares_A2 = self.neighbours.find(positions_A, cells_A)
        # atoms that have gone far are brought back before float32 takes their digits
        cells_of_atoms_A = cells_A.index_select(0, self.neighbours.owner)
        away = torch.linalg.solve(cells_of_atoms_A.transpose(1, 2), positions_A).floor()
        positions_A = positions_A - torch.bmm(away[:, None, :], cells_of_atoms_A)[:, 0]
        images = pairs.image.double() + away[pairs.neighbour] - away[pairs.centre]
        reals = {
            "positions": positions_A, "cell": cells_A.reshape(-1, 3), "unit_shifts": images,
            "shifts": torch.bmm(images[:, None, :], cells_A.index_select(0, pairs.system))[:, 0],
        }  # fmt: skip
        given = self.constants | {name: value.to(self.dtype, copy=True) for name, value in reals.items()}
        given["edge_index"] = torch.stack([pairs.centre, pairs.neighbour])
        out = self.model(given, training=False, compute_force=True, compute_stress=stress)
        return BatchForces(
            energies_eV=out["energy"].detach().double(),
            forces_eV_per_A=out["forces"].detach().double(),
            stresses_eV_per_A3=out["stress"].detach().double() if stress else None,
            shortest_A=shortest_of(squares_A2, pairs.system, len(cells_A)),
        )


FIELDS: dict[type, Any] = {ScaleShiftMACE: _ScaleShiftForces, MACE: _ContributionForces}
"""Models whose energy hangs on edge vectors alone; a class derived from one of them may add what does not."""


def _kind(model: Any) -> type:
    """Return the class of a model, be it compiled."""
    return type(getattr(model, "_orig_mod", model))


def accelerated(model: Any, how: str) -> Any:
    """Return a model on a GPU in the form that is to be faster there: its layers by cuEquivariance, or compiled."""
    if how == NOT_ACCELERATED:
        return model
    if how not in ACCELERATIONS:
        raise InputError(f"there is no acceleration {how!r}; there are {', '.join(ACCELERATIONS)}")
    if next(model.parameters()).device.type != "cuda":
        raise InputError(f"accelerate: {how} is for NVIDIA GPUs, and torch sees none: leave it out here")
    if how == "compile":
        # MACE rebuilds the model without e3nn's own compiled code, which torch's compiler cannot read
        with _default_dtype(dtype_of(model)):
            rebuilt = prepare(extract_model)(model=model, map_location="cuda")
        return torch.compile(rebuilt.to("cuda").eval(), dynamic=True)
    from mace.cli.convert_e3nn_cueq import CUEQQ_AVAILABLE, run

    if not CUEQQ_AVAILABLE:
        raise InputError(
            "accelerate: cuequivariance needs the packages cuequivariance, cuequivariance-torch and the "
            "cuequivariance-ops-torch of your CUDA version: install them, or leave it out"
        )
    with _default_dtype(dtype_of(model)):
        return run(model, device="cuda").to("cuda").eval()


def load_calculator(
    model_file: str | os.PathLike[str], *, dtype: str, head: str | None, accelerate: str = NOT_ACCELERATED
) -> MaceCalculator:
    """Return the calculator (energy, forces, stress) of a MACE model file with one head."""
    return MaceCalculator(read_model(model_file), dtype=dtype, head=head, accelerate=accelerate)


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
