"""Training MACE, from scratch or from a parent, in all strategies; what comes out is one proven model with one head.

The strategies are MACE's own (fine-tuning guidance of its documentation; arXiv:2606.12704): all weights (``naive``),
some (``freeze``), low-rank corrections (``lora``), or two heads, the second of which replays pre-training frames.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import mace  # noqa: F401  # before e3nn: it lets torch load e3nn's constants
import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from mace.modules.lora import merge_lora_weights

from hopline.console import InputError
from hopline.files import write_tensors
from hopline.finetuning import guards
from hopline.finetuning.loop import run_epochs
from hopline.finetuning.mace_upstream import LABELS_HEAD, REPLAY_HEAD, Data, Learner, built, upstream
from hopline.finetuning.pseudolabels import pseudolabelled
from hopline.finetuning.references import (
    ESTIMATED,
    choose_references,
    fit_atom_energies,
    refuse_unfitted,
    sum_of_atoms,
)
from hopline.finetuning.task import Outcome, Task
from hopline.potentials.mace import MaceCalculator, single_head


def run(task: Task) -> Outcome:
    """Train a MACE and prove that the model to be written is the best epoch of the training that was asked for.

    Estimated references are moved once more after the training, by what is left of the energy errors: forces say
    nothing about the energy between two compositions, and a loss that lives on forces leaves it where it happened to be
    (LiF with an interstitial came out 0.2 eV/atom off against bulk LiF). No force changes. Isolated atoms stay.

    Raises
    ------
    InputError
        If a proof fails, or frames and recipe cannot make a training (see `mace_upstream.built`).
    """
    sets, recipe, parent = task.sets, task.recipe, task.parent
    dtype, kind = str(recipe.dtype), str(recipe.atom_energies)
    proofs: dict[str, Any] = {}
    energies_eV = _references(task, proofs)
    if parent is not None and task.strategy == "replay":
        proofs["replay_energy_error_eV_per_atom"] = guards.refuse_other_replay(parent.calculator, sets.replay)
    data = Data(sets.train, sets.valid, _replay(task))
    with upstream(dtype, task.folder):
        objects = built(
            data, recipe, parent_file=parent.model_file if parent else None, atom_energies_eV=energies_eV,
            seed=task.seed, folder=task.folder,
        )  # fmt: skip
        learner = Learner(objects)
        shown = guards.spread(sets.valid)
        if parent is not None:
            proofs["before_training_vs_parent"] = guards.refuse_difference(
                learner.predict(shown),
                guards.predict(parent.calculator, shown, shifts_eV=_shifts(parent.calculator, energies_eV)),
                what="the parent and the model before training", dtype=min(dtype, parent.dtype),
            )  # fmt: skip
        best = run_epochs(
            learner,
            task.folder,
            epochs=recipe.epochs,
            patience_epochs=recipe.patience_epochs,
            identity=task.identity,
        )
        learner.model.load_state_dict(best.weights)
        trained = learner.predict(shown)
        model = exported(learner.model)
    # a calculator takes its model to the device it computes on; the file's stays on the CPU
    calculator = MaceCalculator(copy.deepcopy(model), dtype=dtype, head=None)
    proofs |= guards.prove_export(calculator, sets.valid, trained, best, dtype=dtype)
    proofs |= guards.prove_replay(learner.frames_per_epoch, REPLAY_HEAD, len(sets.replay), recipe.batch_size)
    shifts_eV: Mapping[str, float] = {}
    if kind == ESTIMATED:
        shifts_eV = fit_atom_energies(sets.train, guards.energy_residuals(calculator, sets.train))
        move_references(model, shifts_eV)
    return Outcome(
        lambda path: write_tensors(path, model), dtype, best.epoch, best.history, references_of(model), proofs,
        shown, guards.shifted(trained, shown, shifts_eV),
    )  # fmt: skip


def exported(model: Any) -> Any:
    """Return a copy of a trained model with one head, the labels', and low-rank corrections merged into its weights."""
    single = copy.deepcopy(model).cpu()
    merge_lora_weights(single)
    return single_head(single, LABELS_HEAD)


def move_references(model: Any, shifts_eV: Mapping[str, float]) -> None:
    """Add to a one-head model's atomic reference energies, in place."""
    columns = model.atomic_numbers.tolist()
    with torch.no_grad():
        for symbol, shift_eV in shifts_eV.items():
            model.atomic_energies_fn.atomic_energies[..., columns.index(atomic_numbers[symbol])] += shift_eV


def references_of(model: Any) -> dict[str, float]:
    """Return the atomic reference energies (eV) of a one-head model by element."""
    energies_eV = model.atomic_energies_fn.atomic_energies.detach().cpu().double().reshape(-1).tolist()
    return {
        chemical_symbols[number]: energy
        for number, energy in zip(model.atomic_numbers.tolist(), energies_eV, strict=True)
    }


def _references(task: Task, proofs: dict[str, Any]) -> dict[str, float]:
    """Choose the reference energies of the labels' head; with them a parent's energies must come near the labels."""
    train, valid = task.sets.train, task.sets.valid
    parent, kind = task.parent, str(task.recipe.atom_energies)
    if kind == ESTIMATED:
        refuse_unfitted(train, {"validation": valid, "test": task.sets.test})
    if parent is None:
        return choose_references(kind, task.dataset, train, others=valid)
    before_eV = references_of(parent.calculator.model)
    strangers = {symbol for atoms in (*train, *valid) for symbol in atoms.symbols} - set(before_eV)
    if strangers:
        raise InputError(
            f"the parent does not know {', '.join(sorted(strangers))}: take another parent, or leave these frames out"
        )
    left_eV = guards.energy_residuals(parent.calculator, train)
    energies_eV = before_eV | choose_references(
        kind, task.dataset, train, others=valid, before_eV=before_eV, residual_eV=left_eV
    )
    left_eV = left_eV - sum_of_atoms(train, energies_eV) + sum_of_atoms(train, before_eV)
    sizes = np.array([len(atoms) for atoms in train])
    proofs["initial_energy_rmse_eV_per_atom"] = guards.refuse_reference_mismatch(left_eV / sizes, kind)
    return energies_eV


def _shifts(calculator: MaceCalculator, energies_eV: Mapping[str, float]) -> dict[str, float]:
    """Return what each element's reference energy (eV) is above that of a parent."""
    before_eV = references_of(calculator.model)
    return {symbol: energy_eV - before_eV[symbol] for symbol, energy_eV in energies_eV.items()}


def _replay(task: Task) -> tuple[Sequence[Atoms], Sequence[Atoms]] | None:
    sets = task.sets
    if not sets.replay:
        return None
    if task.strategy == "pseudolabel-replay" and task.parent is not None:
        replay, replay_valid = (
            pseudolabelled(part, task.parent, task.folder) for part in (sets.replay, sets.replay_valid)
        )
        return replay, replay_valid
    return sets.replay, sets.replay_valid
