"""The epochs of a training, whatever the family: killed at any instant, it goes on from the last epoch.

Upstream trainers keep a checkpoint only of epochs that improved, none of the averaged weights, and forget after a
restart which epoch was the best. Here everything that the next epoch depends on, and the best epoch's weights, lie in
one file that appears whole or not at all after each epoch.
"""

import io
import json
import math
import os
import pickle
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pandas as pd

from hopline.console import InputError, Stopped, progress, say
from hopline.files import write_table, write_tensors
from hopline.stopping import asked_to_stop

HISTORY = (
    "epoch",
    "wall_time_s",
    "learning_rate",
    "train_loss",
    "valid_loss",
    "valid_energy_rmse_meV_per_atom",
    "valid_force_rmse_meV_per_A",
    "valid_stress_rmse_GPa",
    "replay_force_rmse_meV_per_A",
)
"""Columns of training.csv; epoch 0 is the model before its training. Without replay the last column is empty."""
STATE, CURVE = "state.pt", "training.csv"
STATE_FORMAT = 2
"""Raised whenever a learner's state holds something else, or a loss means something else: older states start anew."""

T = TypeVar("T")


class Learner(Protocol):
    """A model in training; its weights, optimizer and data are its own business."""

    def learning_rate(self) -> float:
        """Return the learning rate that the next step takes."""

    def train_epoch(self) -> float:
        """Train one epoch and return its mean loss; iterate batches through `until_stopped`."""

    def validate(self) -> Mapping[str, float]:
        """Return the columns ``valid_*`` and ``replay_*`` of `HISTORY`, of the weights that would be exported."""

    def weights(self) -> dict[str, Any]:
        """Return a copy of the weights that `validate` judged, on the CPU."""

    def state(self) -> dict[str, Any]:
        """Return all that the next epoch depends on, weights and random states too: tensors and plain values."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a `state`."""


@dataclass(frozen=True)
class Best:
    """The epoch of lowest validation loss: its number and weights, and the history of all epochs (`HISTORY`)."""

    epoch: int
    weights: Mapping[str, Any]
    history: pd.DataFrame


def run_epochs(
    learner: Learner, folder: Path, *, epochs: int, patience_epochs: int, identity: Mapping[str, Any]
) -> Best:
    """Train until ``epochs`` or until ``patience_epochs`` epochs in a row brought no lower validation loss.

    ``folder`` holds what the next attempt needs, and ``training.csv``, written after each epoch. ``identity`` says
    what the training is made of (settings, hashes of data and parent): a state of another training is not used.

    Raises
    ------
    InputError
        If a loss is no longer a finite number.
    Stopped
        If somebody asked to stop; the epochs so far are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = _read(folder / STATE, identity)
    if state is None:
        rows, best_epoch, weights = [_row(learner, 0, 0.0, math.nan)], 0, learner.weights()
        _refuse_bad_parent(rows[0])
        _write(folder, learner, rows, best_epoch, weights, identity)
    else:
        learner.restore(state["learner"])
        rows, best_epoch, weights = state["rows"], state["best_epoch"], state["weights"]
        say(f"going on after epoch {rows[-1]['epoch']} of {epochs}; the best so far is {best_epoch}")
    started = time.monotonic() - rows[-1]["wall_time_s"]
    first = len(rows)
    for epoch in progress(range(first, epochs + 1), total=epochs + 1 - first, label="train", unit="epochs"):
        if epoch - 1 - best_epoch >= patience_epochs:
            say(f"stopped early: no lower validation loss in the {patience_epochs} epochs since {best_epoch}")
            break
        train_loss = learner.train_epoch()
        rows.append(_row(learner, epoch, time.monotonic() - started, train_loss))
        _refuse_bad(rows[-1])
        if rows[-1]["valid_loss"] < rows[best_epoch]["valid_loss"]:
            best_epoch, weights = epoch, learner.weights()
        _write(folder, learner, rows, best_epoch, weights, identity)
        say(_line(rows, best_epoch, epochs))
        if asked_to_stop() and epoch < epochs:
            raise Stopped(f"asked to stop after epoch {epoch}: the same command goes on from there")
    if best_epoch == 0:
        say(
            "no epoch was better on the validation frames than the model before its training, which is what comes out"
        )
    return Best(best_epoch, weights, pd.DataFrame(rows, columns=list(HISTORY)))


def until_stopped(items: Iterable[T]) -> Iterator[T]:
    """Yield batches or frames until somebody asks to stop; what is cut off is done again by the next attempt."""
    for item in items:
        if asked_to_stop():
            raise Stopped(
                "asked to stop: the same command goes on, from the last whole epoch if there is one"
            )
        yield item


def _row(learner: Learner, epoch: int, wall_time_s: float, train_loss: float) -> dict[str, float]:
    # plain numbers: of numpy's, torch loads none again
    rate = float(learner.learning_rate())
    validated = learner.validate()
    return {
        "epoch": epoch,
        "wall_time_s": wall_time_s,
        "learning_rate": rate,
        "train_loss": float(train_loss),
        **{name: float(validated.get(name, math.nan)) for name in HISTORY[4:]},
    }


def _refuse_bad_parent(row: Mapping[str, float]) -> None:
    if not math.isfinite(row["valid_loss"]):
        raise InputError(
            "before any training the validation loss is no finite number: look for a validation label that is wrong by "
            "orders of magnitude, or for a broken parent"
        )


def _refuse_bad(row: Mapping[str, float]) -> None:
    for name in ("train_loss", "valid_loss"):
        if not math.isfinite(row[name]):
            words = name.replace("_", "ing ").replace("validing", "validation")
            raise InputError(
                f"the {words} is no longer a finite number in epoch {row['epoch']}: lower training.learning_rate, "
                "or look for a label that is wrong by orders of magnitude"
            )


def _line(rows: list[dict[str, float]], best_epoch: int, epochs: int) -> str:
    last, before = rows[-1], rows[-2]
    left_s = (last["wall_time_s"] - before["wall_time_s"]) * (epochs - last["epoch"])
    replay = last["replay_force_rmse_meV_per_A"]
    return (
        f"epoch {last['epoch']}/{epochs}: validation loss {last['valid_loss']:.5g}, "
        f"force RMSE {last['valid_force_rmse_meV_per_A']:.1f} meV/A, "
        f"energy RMSE {last['valid_energy_rmse_meV_per_atom']:.2f} meV/atom"
        + (f", on replay frames {replay:.1f} meV/A" if math.isfinite(replay) else "")
        + f" (best: epoch {best_epoch}); {left_s:.0f} s left"
    )


def _write(
    folder: Path,
    learner: Learner,
    rows: list[dict[str, float]],
    best_epoch: int,
    weights: Mapping[str, Any],
    identity: Mapping[str, Any],
) -> None:
    content = {
        "identity": _plain(identity),
        "learner": learner.state(),
        "rows": rows,
        "best_epoch": best_epoch,
        "weights": dict(weights),
    }
    write_tensors(folder / STATE, content)
    write_table(folder / CURVE, pd.DataFrame(rows, columns=list(HISTORY)))


def _read(path: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the state of an earlier attempt, if it is of this training."""
    import torch

    if not path.is_file():
        return None
    # a disk that fails here says nothing of the state, while torch calls a damaged file an OSError too
    content = io.BytesIO(path.read_bytes())
    try:
        state: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
        of_this_training = state["identity"] == _plain(identity)
    except (
        RuntimeError,
        EOFError,
        LookupError,
        TypeError,
        ValueError,
        OSError,
        pickle.UnpicklingError,
    ) as error:
        say(f"{path} cannot be read ({error}): starting from the first epoch")
        return None
    if not of_this_training:
        say(f"{path} is of a training with other settings or data: starting from the first epoch")
        return None
    return state


def _plain(identity: Mapping[str, Any]) -> str:
    return json.dumps({"state_format": STATE_FORMAT, **identity}, sort_keys=True, default=os.fspath)
