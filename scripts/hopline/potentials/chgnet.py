"""CHGNet: loading, safe model files, a calculator, and crystal features.

The one place for inference that imports the chgnet package (Deng et al., Nat. Mach. Intell. 5, 1031, 2023).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch
from chgnet.graph.crystalgraph import CrystalGraph
from chgnet.model.model import CHGNet
from numpy.typing import NDArray
from pymatgen.io.ase import AseAtomsAdaptor
from torch import Tensor

from hopline.console import InputError, progress
from hopline.files import read_torch, write_tensors
from hopline.potentials.calculator import BatchedCalculator
from hopline.potentials.card import NOT_ACCELERATED
from hopline.potentials.chgnet_batch import (
    denormals_flushed,
    references_of,
    refuse_other_layers,
    site_energies,
)
from hopline.potentials.chgnet_graphs import Atoms, Graphs, angles_of, bonds_of
from hopline.potentials.edge_forcefield import EdgeForceField
from hopline.potentials.forcefield import BatchForces, ForceField, SystemRefused
from hopline.potentials.neighbours import SKIN_A, Pairs

SHIPPED = ("0.3.0", "0.2.0", "r2scan")
DTYPE = "float32"


def load_shipped(version: str) -> CHGNet:
    """Load the CHGNet weights of a release; they are part of its wheel, so no network is needed."""
    if version not in SHIPPED:
        raise InputError(
            f"CHGNet weights {version!r} do not ship with chgnet; there are {', '.join(SHIPPED)}"
        )
    return CHGNet.load(model_name=version, use_device="cpu", verbose=False)


def save_model(model: CHGNet, path: str | os.PathLike[str]) -> None:
    """Save weights and architecture as plain tensors and values, loadable without unpickling code."""
    write_tensors(path, {"model": model.as_dict()})


def load_model(path: str | os.PathLike[str]) -> CHGNet:
    """Load a model saved by ``save_model``; nothing in the file can run code."""
    content = read_torch(path, kind="CHGNet model", only_tensors=True)
    try:
        return CHGNet.from_dict(content["model"])
    except Exception as error:  # values of any kind, handed to CHGNet as its arguments and weights
        raise InputError(
            f"{path} is not a whole CHGNet model file: no model can be built of what it holds"
        ) from error


def best_device() -> str:
    """Name the device to compute on: ``cuda`` where there is one, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def graph_of(model: CHGNet, atoms: ase.Atoms) -> CrystalGraph:
    """Convert a frame to CHGNet's crystal graph; one with an isolated atom or an element it has not is refused."""
    _refuse_strangers(model, atoms)
    model.graph_converter.set_isolated_atom_response("error")
    # far from the cell float32 loses digits, and the search for neighbours takes time without end
    inside = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    inside.wrap()
    try:
        return model.graph_converter(AseAtomsAdaptor.get_structure(inside))
    except ValueError as error:
        raise InputError(f"frame {atoms.info.get('frame_id', '?')}: {error}") from error


def _refuse_strangers(model: CHGNet, atoms: ase.Atoms) -> None:
    known = len(model.atom_embedding.embedding.weight)
    strangers = sorted({atom.symbol for atom in atoms if not 0 < atom.number <= known})
    if strangers:
        raise InputError(f"CHGNet was not trained on {', '.join(strangers)}")


class ChgnetCalculator(BatchedCalculator):
    """CHGNet as a calculator: the numbers of its own one, in less than half the time (see `chgnet_batch`)."""

    def __init__(self, model: CHGNet) -> None:
        super().__init__()
        refuse_other_layers(model)
        self.model = model.to(best_device()).eval()
        for parameter in self.model.parameters():
            parameter.requires_grad_(requires_grad=False)

    def join(self, frames: Sequence[ase.Atoms], *, skin_A: float = SKIN_A) -> ForceField:
        """Return the model on the atoms of periodic frames; elements it was not trained on are refused."""
        for atoms in frames:
            _refuse_strangers(self.model, atoms)
        return ChgnetForceField(self.model, [atoms.numbers for atoms in frames], skin_A=skin_A)


class ChgnetForceField(EdgeForceField):
    """CHGNet on a batch of systems of these atomic numbers; bonds and angles are kept while they are the same."""

    def __init__(self, model: CHGNet, numbers: Sequence[NDArray[np.int64]], *, skin_A: float) -> None:
        weights = next(model.parameters())
        converter = model.graph_converter
        super().__init__(
            [len(one) for one in numbers], cutoff_A=float(converter.atom_graph_cutoff), skin_A=skin_A,
            dtype=weights.dtype, device=weights.device,
        )  # fmt: skip
        self.model, self.short_A = model, float(converter.bond_graph_cutoff)
        sizes = torch.tensor([len(one) for one in numbers])
        self.atoms = Atoms(
            torch.from_numpy(np.concatenate(numbers)).long().to(self.device),
            self.neighbours.owner,
            sizes.to(self.device),
        )
        self.references_eV = references_of(model).double().index_select(0, self.atoms.numbers)
        self._pairs: Pairs | None = None
        self._short: Tensor | None = None

    def compute(self, positions_A: Tensor, cells_A: Tensor, *, stress: bool) -> BatchForces:
        """Return energies, forces and, if wanted, stresses; an isolated atom is refused."""
        with denormals_flushed():
            return super().compute(positions_A, cells_A, stress=stress)

    def energies(self, pairs: Pairs, vectors_A: Tensor) -> Tensor:
        """Return the energies (n_systems,) in eV, summed in float64."""
        sites = site_energies(self.model, self._graphs(pairs, vectors_A.detach()), vectors_A)
        sites = sites.double() + self.references_eV
        return sites.new_zeros(len(self.atoms.sizes)).index_add(0, self.atoms.graph, sites)

    def _graphs(self, pairs: Pairs, vectors_A: Tensor) -> Graphs:
        """Return the graphs, whose parts are those of the last call where the same atoms are near each other."""
        if pairs is not self._pairs:
            self._refuse_isolated(pairs)
            self._pairs, self._short, self._bonds = pairs, None, bonds_of(pairs)
        lengths_A = torch.linalg.norm(vectors_A.index_select(0, self._bonds.edge_of_bond), dim=1)
        short = lengths_A < self.short_A
        if self._short is None or not torch.equal(short, self._short):
            self._short, self._angles = short, angles_of(self._bonds, short, len(self.atoms.numbers))
        return Graphs(self.atoms, self._bonds, self._angles)

    def _refuse_isolated(self, pairs: Pairs) -> None:
        alone = torch.bincount(pairs.centre, minlength=len(self.atoms.numbers)) == 0
        if alone.any():
            rows = self.atoms.graph[alone].tolist()
            raise SystemRefused(
                f"{rows.count(rows[0])} isolated atom(s), farther than {self.neighbours.cutoff_A:g} A from any other: "
                "CHGNet knows none such",
                rows[0],
            )


def load_calculator(
    model_file: str | os.PathLike[str], *, dtype: str, head: str | None, accelerate: str = NOT_ACCELERATED
) -> ChgnetCalculator:
    """Return the calculator of a CHGNet model file."""
    if dtype != DTYPE or head is not None:
        raise InputError(
            f"CHGNet runs in {DTYPE} with one head; the card of {model_file} says {dtype}, head {head}"
        )
    if accelerate != NOT_ACCELERATED:
        raise InputError(
            f"accelerate: {accelerate} is for MACE; CHGNet runs as it is, on a GPU too: leave it out"
        )
    return ChgnetCalculator(load_model(model_file))


def encode(model: CHGNet, frames: Sequence[ase.Atoms], *, batch_size: int = 16) -> NDArray[np.float64]:
    """Return CHGNet's crystal features of each frame, shape (n_frames, 64).

    The feature is the mean over atoms of the atom features after the last convolution (CHGNet's own crystal
    feature is their sum, which tells cells by their size): an encoding of the structure, as DIRECT asks for
    (Qi et al., npj Comput. Mater. 10, 43, 2024).
    """
    model = model.to(best_device())
    features: list[NDArray[np.float64]] = []
    starts = range(0, len(frames), batch_size)
    for start in progress(starts, total=len(starts), label="encode", unit="batches"):
        graphs = [graph_of(model, atoms) for atoms in frames[start : start + batch_size]]
        with torch.no_grad():
            out: Any = model.predict_graph(graphs, task="e", return_crystal_feas=True, batch_size=batch_size)
        sums = [out] if len(graphs) == 1 else out
        features += [
            one["crystal_fea"] / len(graph.atomic_number) for one, graph in zip(sums, graphs, strict=True)
        ]
    return np.asarray(features, dtype=np.float64)


def export_weights(
    weights: str, path: str | os.PathLike[str], *, source: Path | None, head: str | None
) -> tuple[str, str | None]:
    """Write the weights of a release as a model file of ours and return its data type and its head, which has no name.

    They come with the package: there is neither a source nor a head to give.
    """
    if source is not None or head is not None:
        raise InputError(
            "CHGNet's weights come with its package and have one head: give neither file nor head"
        )
    save_model(load_shipped(weights), path)
    return DTYPE, None
