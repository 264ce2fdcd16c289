"""What a training is given and what it gives, whatever the family; and that no frame sits in two of its sets."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
from ase import Atoms
from ase.calculators.calculator import Calculator

from hopline.console import InputError
from hopline.finetuning import guards
from hopline.finetuning.recipe import Recipe
from hopline.finetuning.replay import energies_for
from hopline.frames import frame_id, read_labelled
from hopline.potentials.calculator import Prediction, family_module, load_calculator
from hopline.potentials.card import read_card
from hopline.splits import refuse_leakage

REPLAYING = {"replay", "pseudolabel-replay", "mixed-replay"}
FROM_NOTHING = {"scratch"}


@dataclass(frozen=True)
class Sets:
    """Frames of a training. ``test`` is only looked at for frames that must not be trained on.

    ``replay`` and ``replay_valid`` are pre-training frames, with the energies that the family follows.
    """

    train: Sequence[Atoms]
    valid: Sequence[Atoms]
    test: Sequence[Atoms] = ()
    replay: Sequence[Atoms] = ()
    replay_valid: Sequence[Atoms] = ()


@dataclass(frozen=True)
class Parent:
    """What a training starts from: a model file with one head, its data type and its calculator."""

    model_file: Path
    dtype: str
    calculator: Calculator


@dataclass(frozen=True)
class Task:
    """One training.

    ``dataset`` is the content of dataset.json, which holds the atomic references of the labels. ``folder`` keeps what
    the next attempt goes on from, if it has the same ``identity`` (see `loop.run_epochs`).
    """

    sets: Sets
    recipe: Recipe
    strategy: str
    parent: Parent | None
    dataset: Mapping[str, Any]
    seed: int
    folder: Path
    identity: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """A training that is done and proven.

    ``save`` writes the exported model, of one head and the best epoch, whole or not at all. ``proofs`` holds the
    figures of the proofs (`guards`) and the frames that an epoch trained on. ``trained`` is what the model in training
    said about the frames ``shown``, energies in the labels' zero.
    """

    save: Callable[[str | os.PathLike[str]], None]
    dtype: str
    best_epoch: int
    history: pd.DataFrame
    atom_energies_eV: Mapping[str, float]
    proofs: Mapping[str, Any]
    shown: Sequence[Atoms]
    trained: Sequence[Prediction]

    def best(self, column: str) -> float:
        """Return the value of a column of the learning curve (`loop.HISTORY`) at the best epoch."""
        return float(self.history.set_index("epoch")[column].loc[self.best_epoch])


def read_sets(
    paths: Mapping[str, Path], *, family: str, train_frames: int | None, replay_frames: int | None
) -> Sets:
    """Read the frames of a training by role (``train``, ``valid``, ``test``, ``replay``, ``replay_valid``).

    Of ``train_frames`` frames the first in the order of their ids are taken: an order at random, since an id is a
    hash, in which a smaller set lies within a larger one. Replay frames come in their own order, and with the energies
    that ``family`` follows.
    """
    found = {role: read_labelled(paths[role]) for role in ("train", "valid", "test") if role in paths}
    if train_frames is not None:
        found["train"] = _first(sorted(found["train"], key=frame_id), train_frames, "training")
    for role in ("replay", "replay_valid"):
        if role in paths:
            found[role] = energies_for(read_labelled(paths[role]), family)
    if replay_frames is not None:
        found["replay"] = _first(found.get("replay", []), replay_frames, "replay")
    return Sets(**found)


def read_parent(card_path: Path | None, family: str) -> Parent | None:
    """Read the card of a parent, which must be of the family, and load its calculator."""
    if card_path is None:
        return None
    card, model_file = read_card(card_path)
    if card.family != family:
        raise InputError(
            f"{card_path} is of the family {card.family}; a {family} needs a parent of its own family"
        )
    return Parent(model_file, card.dtype, load_calculator(card_path))


def counts(sets: Sets) -> dict[str, int]:
    """Return how many frames there are by role."""
    return {field.name: len(getattr(sets, field.name)) for field in fields(sets)}


def trainer(family: str) -> ModuleType:
    """Import the module that trains a family; its ``run`` takes a `Task` and returns an `Outcome`."""
    if family == "chgnet":
        from hopline.finetuning import chgnet

        return chgnet
    if family == "mace":
        from hopline.finetuning import mace

        return mace
    raise InputError(f"family {family!r} cannot be trained here")


def write_model(
    outcome: Outcome, path: str | os.PathLike[str], family: str
) -> dict[str, Mapping[str, float]]:
    """Write the model of an outcome, read the file as its users do, and return how far it is from the trained one.

    It is asked for one frame after the other, as ASE does, and for all in one batch.

    Raises
    ------
    InputError
        If the file's model is another, or says something else of frames in a batch; the file stays where it is.
    """
    outcome.save(path)
    calculator = family_module(family).load_calculator(path, dtype=outcome.dtype, head=None)
    alone = guards.predict(calculator, outcome.shown)
    written = f"the model read from {path}"
    return {
        "written_vs_trained": guards.refuse_difference(
            alone, outcome.trained, dtype=outcome.dtype, what=f"{written} and the trained one"
        ),
        "batch_vs_alone": guards.refuse_difference(
            calculator.predict(outcome.shown, stress=False), alone, dtype=outcome.dtype,
            what=f"{written} on a batch and on its frames alone",
        ),
    }  # fmt: skip


def check(task: Task) -> None:
    """Refuse a training without what its strategy needs, or with a frame in two of its sets.

    Raises
    ------
    InputError
        Naming what is missing, or the sets and the frames.
    """
    sets, strategy = task.sets, task.strategy
    if (task.parent is None) != (strategy in FROM_NOTHING):
        raise InputError(
            f"strategy {strategy} " + ("needs a parent" if task.parent is None else "has no parent")
        )
    if bool(sets.replay) != (strategy in REPLAYING):
        raise InputError(
            f"strategy {strategy} " + ("knows no replay" if sets.replay else "needs replay frames")
        )
    if sets.replay and not sets.replay_valid:
        raise InputError("replay needs validation frames of its own, to see what is forgotten")
    named = {"train": sets.train, "valid": sets.valid, "test": sets.test}
    named |= {"replay": sets.replay, "the replay's validation": sets.replay_valid}
    refuse_leakage({name: part for name, part in named.items() if part}, gap_frames=0)


def _first(frames: Sequence[Atoms], n_wanted: int, what: str) -> list[Atoms]:
    if not 0 < n_wanted <= len(frames):
        raise InputError(f"there are {len(frames)} {what} frames, {n_wanted} were asked for")
    return list(frames[:n_wanted])
