"""Training CHGNet from a parent, in all strategies; what comes out is one proven model.

``naive`` trains all weights. ``frozen-embeddings`` trains what CHGNet's own fine-tuning example leaves free: the last
convolution of atoms, the weights of bonds by their lengths, and the readout; embeddings, their bases and the other
convolutions stay the parent's. ``mixed-replay`` trains all weights on labels and pre-training frames, shuffled
together.

Another DFT code counts its energies from another zero. Labels are trained on in the parent's zero, in which
replay frames are too: less one shift an element, fitted to E_label - E_parent. The model is exported with its atomic
references moved by the shifts, which are no part of the training, as CHGNet intends.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers
from chgnet.model.model import CHGNet

from hopline.console import InputError, say
from hopline.finetuning import guards
from hopline.finetuning.chgnet_learner import REPLAY, ChgnetLearner, Example, energies_of, examples, graphs_of
from hopline.finetuning.loop import run_epochs
from hopline.finetuning.references import ESTIMATED, fit_atom_energies, refuse_unfitted, sum_of_atoms
from hopline.finetuning.task import Outcome, Task
from hopline.frames import STRESS, labels_of
from hopline.potentials.chgnet import DTYPE, ChgnetCalculator, best_device, load_model, save_model
from hopline.potentials.chgnet_batch import denormals_flushed, refuse_other_layers

FROZEN_EMBEDDINGS = "frozen-embeddings"


def run(task: Task) -> Outcome:
    """Train a CHGNet and prove that the model to be written is the best epoch of the training that was asked for.

    Raises
    ------
    InputError
        If a proof fails, a loss is no longer finite, or validation or test frames hold an element that no training
        frame has.
    """
    sets, recipe = task.sets, task.recipe
    if task.parent is None:
        raise InputError("CHGNet is trained from a parent: give one")
    refuse_unfitted(sets.train, {"validation": sets.valid, "test": sets.test})
    proofs: dict[str, Any] = {}
    if sets.replay:
        proofs["replay_energy_error_eV_per_atom"] = guards.refuse_other_replay(
            task.parent.calculator, sets.replay
        )
    with denormals_flushed():
        model = load_model(task.parent.model_file).to(best_device())
        refuse_other_layers(model)
        freeze(model, task.strategy)
        proofs["trained_weights"] = _count(model, trained=True)
        proofs["frozen_weights"] = _count(model, trained=False)
        shifts_eV, train = _in_parents_zero(model, sets.train, recipe.batch_size, proofs)
        valid, *replay = (
            examples(graphs_of(model, frames), frames, _references(frames, shifts))
            for frames, shifts in ((sets.valid, shifts_eV), (sets.replay, None), (sets.replay_valid, None))
        )
        learner = ChgnetLearner(model, train, valid, recipe, seed=task.seed, replay=(replay[0], replay[1]))
        shown = guards.spread(sets.valid)
        proofs["before_training_vs_parent"] = guards.refuse_difference(
            learner.predict(shown), guards.predict(task.parent.calculator, shown),
            what="the parent and the model before training", dtype=DTYPE,
        )  # fmt: skip
        best = run_epochs(
            learner,
            task.folder,
            epochs=recipe.epochs,
            patience_epochs=recipe.patience_epochs,
            identity=task.identity,
        )
        model.load_state_dict(best.weights)
        trained = learner.predict(shown)
    move_references(model, shifts_eV)
    calculator = ChgnetCalculator(model)
    # it was trained in its parent's zero of energy
    back_eV = {symbol: -shift_eV for symbol, shift_eV in shifts_eV.items()}
    proofs |= guards.prove_export(calculator, sets.valid, trained, best, dtype=DTYPE, shifts_eV=back_eV)
    proofs |= guards.prove_replay(learner.frames_per_epoch, REPLAY, len(sets.replay), recipe.batch_size)
    references_eV = references_of(model, shifts_eV)
    return Outcome(
        lambda path: save_model(model, path), DTYPE, best.epoch, best.history, references_eV, proofs,
        shown, guards.shifted(trained, shown, shifts_eV),
    )  # fmt: skip


def freeze(model: CHGNet, strategy: str) -> None:
    """Fix the weights that a strategy does not train, always the atomic references."""
    fixed: list[Any] = [model.composition_model]
    if strategy == FROZEN_EMBEDDINGS:
        fixed += [
            model.atom_embedding, model.bond_embedding, model.angle_embedding, model.bond_basis_expansion,
            model.angle_basis_expansion, model.atom_conv_layers[:-1], model.bond_conv_layers, model.angle_layers,
        ]  # fmt: skip
    for layer in fixed:
        layer.requires_grad_(requires_grad=False)


def move_references(model: CHGNet, shifts_eV: Mapping[str, float]) -> None:
    """Add to the model's atomic reference energies, in place."""
    with torch.no_grad():
        for symbol, shift_eV in shifts_eV.items():
            model.composition_model.fc.weight[0, atomic_numbers[symbol] - 1] += shift_eV


def references_of(model: CHGNet, elements: Sequence[str] | Mapping[str, Any]) -> dict[str, float]:
    """Return the model's atomic reference energies (eV) of some elements."""
    energies_eV = model.composition_model.fc.weight[0].tolist()
    return {symbol: energies_eV[atomic_numbers[symbol] - 1] for symbol in elements}


def _in_parents_zero(
    model: CHGNet, frames: Sequence[Atoms], batch_size: int, proofs: dict[str, Any]
) -> tuple[dict[str, float], list[Example]]:
    """Fit the shift of each element to the training frames; with it the parent's energies must come near the labels."""
    graphs = graphs_of(model, frames)
    residual_eV = np.array([labels_of(atoms).energy_eV for atoms in frames]) - energies_of(
        model, graphs, batch_size
    )
    shifts_eV = fit_atom_energies(frames, residual_eV)
    references_eV = sum_of_atoms(frames, shifts_eV)
    left_eV = (residual_eV - references_eV) / np.array([len(atoms) for atoms in frames])
    proofs["initial_energy_rmse_eV_per_atom"] = guards.refuse_reference_mismatch(left_eV, ESTIMATED)
    proofs["reference_shifts_eV"] = shifts_eV
    unstressed = sum(STRESS not in atoms.info for atoms in frames)
    if unstressed:
        say(
            f"{unstressed} of {len(frames)} training frames carry no stress: their stress is left out of the loss"
        )
    return shifts_eV, examples(graphs, frames, references_eV)


def _references(frames: Sequence[Atoms], shifts_eV: Mapping[str, float] | None) -> Any:
    """Return what the frames' energies have more than in the parent's zero (n_frames), eV; nothing without shifts."""
    return np.zeros(len(frames)) if shifts_eV is None else sum_of_atoms(frames, shifts_eV)


def _count(model: CHGNet, *, trained: bool) -> int:
    return sum(weights.numel() for weights in model.parameters() if weights.requires_grad == trained)
