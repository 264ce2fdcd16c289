"""Training CHGNet with its own trainer, epoch by epoch, on labelled frames.

CHGNet's ``best_model`` is an alias of the model being trained and its scheduler counts tenths of an epoch, so the
loop here keeps a copy of the best epoch itself and refuses batches that would leave the schedule unfinished.
"""

import contextlib
import copy
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from ase import Atoms
from ase.data import atomic_numbers
from chgnet.data.dataset import StructureData, collate_graphs
from chgnet.model.model import CHGNet
from chgnet.trainer import Trainer
from pymatgen.io.ase import AseAtomsAdaptor
from torch.utils.data import DataLoader

from hopline.console import InputError, progress, say
from hopline.finetuning.recipe import HISTORY, Recipe
from hopline.finetuning.references import fit_atom_energies
from hopline.frames import labels_of
from hopline.potentials.chgnet import ChgnetCalculator, best_device, graph_of, save_model
from hopline.units import GPA_PER_EV_PER_A3, MEV_PER_EV

SCHEDULER_STEPS_PER_EPOCH = 10
VASP_KBAR_PER_GPA = -10.0
"""CHGNet's dataset takes stresses as VASP writes them, kbar and positive under pressure, and multiplies by -0.1."""


@dataclass(frozen=True)
class Trained:
    """The best epoch of a training: its model, its number, and the history of all epochs (columns HISTORY)."""

    model: CHGNet
    best_epoch: int
    history: pd.DataFrame
    atom_energies_eV: Mapping[str, float]


def train(
    model: CHGNet, train_frames: Sequence[Atoms], valid_frames: Sequence[Atoms], recipe: Recipe, seed: int
) -> Trained:
    """Train all weights of a CHGNet on labelled frames and return the epoch of lowest validation force error.

    The model's atomic references are first moved by the residual of the labels, since another DFT code counts its
    energies from another zero; they stay fixed during the training, as CHGNet intends.

    Raises
    ------
    InputError
        If the training set is too small for the learning-rate schedule, or the loss is no longer finite.
    """
    if len(train_frames) < SCHEDULER_STEPS_PER_EPOCH * recipe.batch_size:
        raise InputError(
            f"{len(train_frames)} training frames in batches of {recipe.batch_size} are fewer than ten batches "
            "an epoch, which CHGNet's learning-rate schedule needs: lower training.batch_size"
        )
    torch.manual_seed(seed)
    shifts_eV = move_references(model, train_frames)
    loaders = [_loader(model, frames, recipe.batch_size, shuffle=shuffle, seed=seed)
               for frames, shuffle in ((train_frames, True), (valid_frames, False))]  # fmt: skip
    with _prints_to_stderr():
        trainer = Trainer(
            model=model, targets="efs", optimizer="Adam", scheduler="CosLR", criterion="MSE", epochs=recipe.epochs,
            learning_rate=recipe.learning_rate, energy_loss_ratio=recipe.energy_weight,
            force_loss_ratio=recipe.force_weight, stress_loss_ratio=recipe.stress_weight,
            torch_seed=seed, use_device=best_device(), print_freq=10**9,
        )  # fmt: skip
    best_state, best_epoch, rows = (
        copy.deepcopy(model.state_dict()),
        0,
        [_row(model, valid_frames, 0, 0.0, np.nan)],
    )
    started = time.monotonic()
    for epoch in progress(range(1, recipe.epochs + 1), total=recipe.epochs, label="train", unit="epochs"):
        loss = _one_epoch(trainer, loaders, epoch, recipe)
        rows.append(_row(model, valid_frames, epoch, time.monotonic() - started, loss))
        say(
            f"epoch {epoch}: validation force RMSE {rows[-1][-1]:.1f} meV/A, energy RMSE {rows[-1][-2]:.2f} meV/atom"
        )
        if rows[-1][-1] <= min(row[-1] for row in rows):
            best_state, best_epoch = copy.deepcopy(model.state_dict()), epoch
    model.load_state_dict(best_state)
    return Trained(model.eval(), best_epoch, pd.DataFrame(rows, columns=list(HISTORY)), shifts_eV)


def move_references(model: CHGNet, frames: Sequence[Atoms]) -> dict[str, float]:
    """Move the model's atomic references by the residual E_label - E_model, in place; return the shifts in eV."""
    residual_eV = np.array([labels_of(atoms).energy_eV for atoms in frames]) - _energies(model, frames)
    shifts_eV = fit_atom_energies(frames, residual_eV)
    with torch.no_grad():
        for symbol, shift_eV in shifts_eV.items():
            model.composition_model.fc.weight[0, atomic_numbers[symbol] - 1] += shift_eV
    return shifts_eV


def export(trained: Trained, path: str | os.PathLike[str]) -> None:
    """Write the best epoch's weights as a model file of ours."""
    save_model(trained.model, path)


def _one_epoch(trainer: Trainer, loaders: Sequence[DataLoader[Any]], epoch: int, recipe: Recipe) -> float:
    """Run one epoch of CHGNet's trainer and return its training loss, composed of its mean absolute errors."""
    trainer.starting_epoch, trainer.epochs = epoch - 1, epoch
    with _prints_to_stderr(), tempfile.TemporaryDirectory() as folder:
        trainer.train(*loaders, save_dir=folder)
    last = {target: trainer.training_history[target]["train"] for target in "efs"}
    if any(len(values) < epoch or not np.isfinite(values[-1]) for values in last.values()):
        raise InputError(
            f"the training loss is no longer finite in epoch {epoch}: lower training.learning_rate"
        )
    weights = {"e": recipe.energy_weight, "f": recipe.force_weight, "s": recipe.stress_weight}
    return float(sum(weights[target] * values[-1] for target, values in last.items()))


def _row(model: CHGNet, frames: Sequence[Atoms], epoch: int, wall_s: float, loss: float) -> tuple[float, ...]:
    """Return one line of the history, measured on the validation frames by the calculator that MD will use."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    calculator = ChgnetCalculator(model)
    energy_errors, force_errors = [], []
    for atoms in frames:
        labels = labels_of(atoms)
        calculator.calculate(atoms)
        energy_errors.append((calculator.results["energy"] - labels.energy_eV) / len(atoms))
        force_errors.append((calculator.results["forces"] - labels.forces_eV_per_A).ravel())
    for parameter in trainable:
        parameter.requires_grad_(requires_grad=True)
    energy_rmse = np.sqrt(np.mean(np.square(energy_errors)))
    force_rmse = np.sqrt(np.mean(np.square(np.concatenate(force_errors))))
    return epoch, wall_s, loss, float(energy_rmse * MEV_PER_EV), float(force_rmse * MEV_PER_EV)


def _energies(model: CHGNet, frames: Sequence[Atoms]) -> Any:
    predictions = model.predict_graph([graph_of(model, atoms) for atoms in frames], task="e")
    predictions = [predictions] if len(frames) == 1 else predictions
    return np.array([float(one["e"]) * len(atoms) for one, atoms in zip(predictions, frames, strict=True)])


def _loader(
    model: CHGNet, frames: Sequence[Atoms], batch_size: int, *, shuffle: bool, seed: int
) -> DataLoader[Any]:
    labels = [labels_of(atoms) for atoms in frames]
    stresses = [one.stress_eV_per_A3 for one in labels if one.stress_eV_per_A3 is not None]
    if len(stresses) < len(labels):
        raise InputError(
            "CHGNet is trained on stresses too, and some frames carry none: label them with stress"
        )
    with _prints_to_stderr():
        data = StructureData(
            structures=[AseAtomsAdaptor.get_structure(_bare(atoms)) for atoms in frames],
            energies=[one.energy_eV / len(atoms) for one, atoms in zip(labels, frames, strict=True)],
            forces=[one.forces_eV_per_A for one in labels],
            stresses=[stress * GPA_PER_EV_PER_A3 * VASP_KBAR_PER_GPA for stress in stresses],
            graph_converter=model.graph_converter,
            shuffle=False,
        )
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(
        data, batch_size=batch_size, shuffle=shuffle, collate_fn=collate_graphs, generator=generator
    )


def _bare(atoms: Atoms) -> Atoms:
    """Return species, cell and positions only: what else a frame carries is no site property."""
    return Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)


@contextlib.contextmanager
def _prints_to_stderr() -> Iterator[None]:
    """Keep stdout for results: CHGNet prints its progress there."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
