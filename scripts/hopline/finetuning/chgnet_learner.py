"""Epochs of CHGNet: labelled graphs, their loss, and a learner for `loop.run_epochs`.

Upstream's loss (Deng et al., Nat. Mach. Intell. 5, 1031, 2023; energies in eV/atom, forces in eV/A, stresses in GPa),
taken from `potentials.chgnet_batch`. Upstream's trainer keeps the learning rate in tenths of an epoch, which small sets
do not have, and loses its place when it is killed.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms
from chgnet.graph.crystalgraph import CrystalGraph
from chgnet.model.model import CHGNet
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import huber_loss, mse_loss

from hopline.console import InputError, progress
from hopline.finetuning.loop import until_stopped
from hopline.finetuning.recipe import Recipe
from hopline.frames import labels_of
from hopline.potentials.calculator import Prediction
from hopline.potentials.chgnet import graph_of
from hopline.potentials.chgnet_batch import Properties, predict
from hopline.potentials.chgnet_graphs import collate
from hopline.units import GPA_PER_EV_PER_A3, MEV_PER_EV

HUBER_DELTA = 0.1
LABELS, REPLAY = "labels", "replay"

Criterion = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Example:
    """A frame as CHGNet learns it: its graph and its labels, the energy in the parent's zero, a missing stress NaN."""

    graph: CrystalGraph
    labels: Properties


def graphs_of(model: CHGNet, frames: Sequence[Atoms]) -> list[CrystalGraph]:
    """Convert frames to graphs, once for all epochs; a frame with an isolated atom is refused."""
    return [
        graph_of(model, atoms) for atoms in progress(frames, total=len(frames), label="graphs", unit="frames")
    ]


def examples(
    graphs: Sequence[CrystalGraph], frames: Sequence[Atoms], references_eV: NDArray[np.float64]
) -> list[Example]:
    """Join graphs with labels whose energies have ``references_eV`` (n_frames) more than in the parent's zero."""
    made = []
    for graph, atoms, reference_eV in zip(graphs, frames, references_eV, strict=True):
        labels = labels_of(atoms)
        stress = np.full((3, 3), np.nan) if labels.stress_eV_per_A3 is None else labels.stress_eV_per_A3
        numbers = (
            [(labels.energy_eV - reference_eV) / len(atoms)],
            labels.forces_eV_per_A,
            stress[None] * GPA_PER_EV_PER_A3,
        )
        made.append(
            Example(graph, Properties(*(torch.tensor(part, dtype=torch.float32) for part in numbers)))
        )
    return made


def joined(parts: Sequence[Properties]) -> Properties:
    """Join the properties of several batches."""
    return Properties(*(torch.cat(list(column)) for column in zip(*parts, strict=True)))


def loss_of(predicted: Properties, labels: Properties, recipe: Recipe) -> Tensor:
    """Return the weighted loss: means over frames, force components and stress components that have a label."""
    criterion = _criterion(recipe.loss)
    loss = recipe.energy_weight * criterion(predicted.energies, labels.energies)
    loss = loss + recipe.force_weight * criterion(predicted.forces, labels.forces)
    known = ~torch.isnan(labels.stresses)
    if known.any():
        loss = loss + recipe.stress_weight * criterion(predicted.stresses[known], labels.stresses[known])
    return loss


def energies_of(model: CHGNet, graphs: Sequence[CrystalGraph], batch_size: int) -> NDArray[np.float64]:
    """Return the total energy of each graph (n_graphs) in eV."""
    energies = torch.cat([one.energies for one in _predicted(model, graphs, batch_size)])
    return energies.cpu().double().numpy() * np.array([len(graph.atomic_number) for graph in graphs])


class ChgnetLearner:
    """A CHGNet in training, as `loop.run_epochs` wants it.

    Labels and replay frames, where there are any, are shuffled together. The learning rate follows a cosine, a step a
    batch. ``frames_per_epoch`` counts the frames of each kind in the batches of the last epoch.
    """

    def __init__(
        self,
        model: CHGNet,
        train: Sequence[Example],
        valid: Sequence[Example],
        recipe: Recipe,
        *,
        seed: int,
        replay: tuple[Sequence[Example], Sequence[Example]] = ((), ()),
    ) -> None:
        self.model, self.recipe = model.eval(), recipe
        self.train, self.n_labels = [*train, *replay[0]], len(train)
        self.valid, self.replay_valid = valid, replay[1]
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(self.trained, lr=recipe.learning_rate)
        self.order = torch.Generator().manual_seed(seed)
        self.step, self.n_steps = 0, recipe.epochs * math.ceil(len(self.train) / recipe.batch_size)
        self.frames_per_epoch: dict[str, int] = {}

    def learning_rate(self) -> float:
        """Return the learning rate of the next step, on a cosine from the recipe's to a share of it."""
        share = self.recipe.final_learning_rate_ratio
        way = (1 + math.cos(math.pi * self.step / self.n_steps)) / 2
        return self.recipe.learning_rate * (share + (1 - share) * way)

    def train_epoch(self) -> float:
        """Train one epoch and return the mean loss over its frames; NaN as soon as a loss is no finite number."""
        total, seen = 0.0, Counter[str]()
        for rows in until_stopped(self._batches()):
            loss = self._train([self.train[row] for row in rows])
            if not math.isfinite(loss):
                return math.nan
            total += loss * len(rows)
            seen.update(LABELS if row < self.n_labels else REPLAY for row in rows)
        self.frames_per_epoch = dict(seen)
        return total / len(self.train)

    def validate(self) -> dict[str, float]:
        """Return loss and errors on the validation frames of the labels, and the force error on those of the replay."""
        labels, predicted = self._compared(self.valid)
        row = {
            "valid_loss": float(loss_of(predicted, labels, self.recipe)),
            "valid_energy_rmse_meV_per_atom": _rmse(predicted.energies - labels.energies) * MEV_PER_EV,
            "valid_force_rmse_meV_per_A": _rmse(predicted.forces - labels.forces) * MEV_PER_EV,
            "valid_stress_rmse_GPa": _rmse(predicted.stresses - labels.stresses),
        }
        if self.replay_valid:
            labels, predicted = self._compared(self.replay_valid)
            row["replay_force_rmse_meV_per_A"] = _rmse(predicted.forces - labels.forces) * MEV_PER_EV
        return row

    def weights(self) -> dict[str, Any]:
        """Return a copy of the weights."""
        return {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}

    def state(self) -> dict[str, Any]:
        """Return weights, optimizer, place in the schedule and the random state of the order of frames."""
        return {
            "model": self.weights(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "order": self.order.get_state(),
            "frames_per_epoch": self.frames_per_epoch,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a `state`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.order.set_state(state["order"])
        self.frames_per_epoch = state["frames_per_epoch"]

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        """Return energies and forces on frames as the training computes them, in the parent's zero of energy."""
        graphs = [graph_of(self.model, atoms) for atoms in frames]
        return [
            Prediction(float(one.energies[0]) * len(one.forces), one.forces.cpu().double().numpy())
            for one in _predicted(self.model, graphs, batch_size=1)
        ]

    def _batches(self) -> Iterator[list[int]]:
        """Yield rows of `train`, in a new order each epoch."""
        order = torch.randperm(len(self.train), generator=self.order).tolist()
        for start in range(0, len(order), self.recipe.batch_size):
            yield order[start : start + self.recipe.batch_size]

    def _train(self, batch: Sequence[Example]) -> float:
        """Take one step down the loss of a batch and return the loss."""
        device = self.trained[0].device
        predicted = predict(self.model, collate([one.graph for one in batch], device), to_be_trained=True)
        labels = joined([one.labels for one in batch])
        loss = loss_of(predicted, Properties(*(part.to(device) for part in labels)), self.recipe)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, self.recipe.max_gradient_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.step()
        self.step += 1
        return loss.item()

    def _compared(self, held_out: Sequence[Example]) -> tuple[Properties, Properties]:
        """Return labels and predictions of all frames together, in float64 on the CPU."""
        found = joined(_predicted(self.model, [one.graph for one in held_out], self.recipe.batch_size))
        labels = joined([one.labels for one in held_out])
        return (
            Properties(*(part.double() for part in labels)),
            Properties(*(part.cpu().double() for part in found)),
        )


def _criterion(name: str) -> Criterion:
    if name == "mse":
        return mse_loss
    if name == "huber":
        return lambda predicted, labels: huber_loss(predicted, labels, delta=HUBER_DELTA)
    raise InputError(f"CHGNet has no loss {name}; there are mse, huber")


def _predicted(model: CHGNet, graphs: Sequence[CrystalGraph], batch_size: int) -> list[Properties]:
    device = next(model.parameters()).device
    starts = range(0, len(graphs), batch_size)
    return [
        predict(model, collate(graphs[at : at + batch_size], device), to_be_trained=False) for at in starts
    ]


def _rmse(errors: Tensor) -> float:
    """Return the root of the mean square of the errors that are known; NaN where none is."""
    return float(errors[~torch.isnan(errors)].square().mean().sqrt())
