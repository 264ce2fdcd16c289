"""CHGNet: loading, safe model files, a calculator with one backward pass, and crystal features.

The one place for inference that imports the chgnet package (Deng et al., Nat. Mach. Intell. 5, 1031, 2023).
"""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar

import ase.stress
import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from chgnet.graph.crystalgraph import CrystalGraph
from chgnet.model.model import CHGNet
from numpy.typing import NDArray
from pymatgen.io.ase import AseAtomsAdaptor

from hopline.console import InputError, progress

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
    torch.save({"model": model.as_dict()}, path)


def load_model(path: str | os.PathLike[str]) -> CHGNet:
    """Load a model saved by ``save_model``; nothing in the file can run code."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return CHGNet.from_dict(content["model"])
    except UnpicklingError as error:
        raise InputError(f"{path} holds more than plain tensors and values; it was not opened") from error
    except (LookupError, RuntimeError, EOFError, ValueError, TypeError, OSError) as error:
        raise InputError(f"{path} is not a whole CHGNet model file: {error}") from error


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


class ChgnetCalculator(Calculator):
    """CHGNet as an ASE calculator that differentiates once for forces and stress together.

    CHGNet's own calculator runs two backward passes that keep their graphs for training; one plain pass with
    respect to fractional coordinates and lattice gives the same numbers in about half the time. With row-vector
    lattice L, fractional coordinates s and r = s L: dE/dr = dE/ds L^-T, and the strain derivative is
    L^T dE/dL at fixed s. Energy in eV, forces in eV/A, stress in eV/A^3 (ASE sign, Voigt).
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, model: CHGNet) -> None:
        super().__init__()
        self.model = model.to(best_device()).eval()
        for parameter in self.model.parameters():
            parameter.requires_grad_(requires_grad=False)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute all implemented properties of ``atoms``."""
        super().calculate(atoms, properties, system_changes)
        graph = graph_of(self.model, self.atoms).to(next(self.model.parameters()).device)
        graph.atom_frac_coord.requires_grad_()
        graph.lattice.requires_grad_()
        with warnings.catch_warnings():
            # chgnet turns the volume into a number nobody differentiates; torch warns that the lattice could be
            warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad=True")
            energy_eV = self.model([graph], task="e")["e"].sum() * len(self.atoms)
        by_fraction, by_lattice = torch.autograd.grad(energy_eV, [graph.atom_frac_coord, graph.lattice])
        lattice = graph.lattice.detach().double()
        forces = -by_fraction.double() @ torch.linalg.inv(lattice).T
        stress = lattice.T @ by_lattice.double() / self.atoms.get_volume()
        self.results = {
            "energy": float(energy_eV),
            "free_energy": float(energy_eV),
            "forces": forces.cpu().numpy(),
            "stress": ase.stress.full_3x3_to_voigt_6_stress(stress.cpu().numpy()),
        }


def load_calculator(model_file: str | os.PathLike[str], *, dtype: str, head: str | None) -> Calculator:
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


def export_shipped(version: str, path: str | os.PathLike[str]) -> Path:
    """Write the shipped weights of a release as a model file of ours and return its path."""
    save_model(load_shipped(version), path)
    return Path(path)
