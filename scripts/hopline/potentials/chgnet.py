"""CHGNet: loading, safe model files, a calculator, and crystal features.

The one place for inference that imports the chgnet package (Deng et al., Nat. Mach. Intell. 5, 1031, 2023).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from chgnet.graph.crystalgraph import CrystalGraph
from chgnet.model.model import CHGNet
from numpy.typing import NDArray
from pymatgen.io.ase import AseAtomsAdaptor

from hopline.console import InputError, progress
from hopline.files import read_torch, write_tensors
from hopline.potentials.calculator import BatchedCalculator, Prediction
from hopline.potentials.chgnet_batch import collate, denormals_flushed, predict, refuse_other_layers
from hopline.units import GPA_PER_EV_PER_A3

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


def graph_of(model: CHGNet, atoms: Atoms) -> CrystalGraph:
    """Convert a frame to CHGNet's crystal graph; one with an isolated atom or an element it has not is refused."""
    strangers = sorted(
        {atom.symbol for atom in atoms if atom.number > len(model.atom_embedding.embedding.weight)}
    )
    if strangers:
        raise InputError(f"CHGNet was not trained on {', '.join(strangers)}")
    model.graph_converter.set_isolated_atom_response("error")
    # far from the cell float32 loses digits, and the search for neighbours takes time without end
    inside = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    inside.wrap()
    try:
        return model.graph_converter(AseAtomsAdaptor.get_structure(inside))
    except ValueError as error:
        raise InputError(f"frame {atoms.info.get('frame_id', '?')}: {error}") from error


class ChgnetCalculator(BatchedCalculator):
    """CHGNet as a calculator: the numbers of its own one, in less than half the time (see `chgnet_batch`)."""

    def __init__(self, model: CHGNet) -> None:
        super().__init__()
        refuse_other_layers(model)
        self.model = model.to(best_device()).eval()
        for parameter in self.model.parameters():
            parameter.requires_grad_(requires_grad=False)

    def predict(self, frames: Sequence[Atoms], *, stress: bool) -> list[Prediction]:
        """Return energies, forces and, if wanted, stresses of frames; one differentiation gives all of them."""
        with denormals_flushed():
            graphs = [graph_of(self.model, atoms) for atoms in frames]
            found = predict(
                self.model, collate(graphs, next(self.model.parameters()).device), to_be_trained=False
            )
        sizes = [len(atoms) for atoms in frames]
        forces = np.split(found.forces.double().cpu().numpy(), np.cumsum(sizes)[:-1])
        stresses = found.stresses.double().cpu().numpy() / GPA_PER_EV_PER_A3
        return [
            Prediction(energy_eV_per_atom * size, of_frame, stresses[row] if stress else None)
            for row, (energy_eV_per_atom, size, of_frame) in enumerate(
                zip(found.energies.tolist(), sizes, forces, strict=True)
            )
        ]


def load_calculator(model_file: str | os.PathLike[str], *, dtype: str, head: str | None) -> ChgnetCalculator:
    """Return the calculator of a CHGNet model file."""
    if dtype != DTYPE or head is not None:
        raise InputError(
            f"CHGNet runs in {DTYPE} with one head; the card of {model_file} says {dtype}, head {head}"
        )
    return ChgnetCalculator(load_model(model_file))


def encode(model: CHGNet, frames: Sequence[Atoms], *, batch_size: int = 16) -> NDArray[np.float64]:
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
