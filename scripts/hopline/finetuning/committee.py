"""What a committee of potentials disagrees about: the spread of its forces, and whether it tells their error."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from hopline.console import InputError, progress
from hopline.frames import FORCES, labels_of
from hopline.potentials.card import Card
from hopline.units import MEV_PER_EV

COLUMNS = (
    "frame_id", "composition", "temperature_K", "mean_deviation_meV_per_A", "max_deviation_meV_per_A",
    "mean_error_meV_per_A", "max_error_meV_per_A",
)  # fmt: skip
OF_ONE_TRAINING = ("seed", "best_epoch")
"""What trainings may differ in that were asked for the same."""
MIN_FRAMES = 3
"""Fewer frames have no rank correlation worth a number."""


@dataclass(frozen=True)
class Judgement:
    """Figures of a committee on a set, and one row for each frame behind them (columns ``COLUMNS``).

    An error is the distance of the committee's mean force from the labelled one; NaN where a frame has no label.
    """

    figures: dict[str, Any]
    deviations: pd.DataFrame


def differences(cards: Sequence[Card]) -> dict[str, list[Any]]:
    """Return what the members of a committee differ in besides their seed, with the value of each member (or a hash).

    Of settings and numbers of frames only those are compared that all members have: the others come with another
    strategy, which is named then.

    Raises
    ------
    InputError
        If two members are the same model, which agrees with itself.
    """
    for one, other in combinations(cards, 2):
        if one.model_sha256 == other.model_sha256:
            raise InputError(f"{one.name} and {other.name} are the same model: they cannot disagree")
    described = [
        {name: value for name, value in card.recipe.items() if name not in OF_ONE_TRAINING}
        | {f"{role} frames": count for role, count in card.frames.items()}
        | {"strategy": card.recipe.get("strategy"), "weights": card.recipe.get("weights")}
        | {"family": card.family, "dtype": card.dtype, "head": card.head}
        | {"parent": card.parent_card_sha256, "dataset": card.dataset_sha256, "replay": card.replay_sha256}
        for card in cards
    ]
    by_name = {
        name: [one[name] for one in described]
        for name in described[0]
        if all(name in one for one in described)
    }
    return {name: values for name, values in by_name.items() if any(value != values[0] for value in values)}


def force_deviations(forces: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the deviation of a committee's forces on each atom, shape (n_atoms,), in the forces' unit.

    ``forces`` has shape (n_members, n_atoms, 3). sigma_i = sqrt(<|F_i - <F_i>|^2>) over the members, with 1/n: the
    spread of this committee, not an estimate for more members (Alghamdi et al. 2026, eq. 4).

    Raises
    ------
    InputError
        If there are fewer than two members, or the shape is another.
    """
    forces = np.asarray(forces, dtype=float)
    if forces.ndim != 3 or forces.shape[0] < 2 or forces.shape[2] != 3:  # noqa: PLR2004
        raise InputError(f"forces of two or more members are (members, atoms, 3), these are {forces.shape}")
    from_mean = forces - forces.mean(axis=0)
    return np.asarray(np.sqrt((from_mean**2).sum(axis=2).mean(axis=0)))


def judge(
    calculators: Sequence[Calculator], frames: Sequence[Atoms], *, names: Sequence[str] | None = None
) -> Judgement:
    """Ask all members for the forces of frames; frames may be labelled or not. ``names`` are the members' own.

    Spearman's rank correlation says whether frames with a large deviation (mean or maximum over the atoms) are those
    with a large error (likewise); it is None for fewer than three labelled frames, or where all are alike.

    Raises
    ------
    InputError
        If there are fewer than two members, or one of them refuses a frame or gives a force there that is no finite
        number: it has no deviation then, and would fall out of the figures of the others.
    """
    names = names or [f"member {number}" for number in range(1, len(calculators) + 1)]
    rows = []
    for row, atoms in enumerate(progress(frames, total=len(frames), label="committee", unit="frames")):
        frame_id = str(atoms.info.get("frame_id", row))
        members = []
        for name, calculator in zip(names, calculators, strict=True):
            calculator.calculate(atoms, ["energy", "forces"])
            members.append(np.array(calculator.results["forces"], dtype=float))
            if not np.isfinite(members[-1]).all():
                raise InputError(f"{name} gives a force on frame {frame_id} that is not a finite number")
        forces = np.array(members)
        deviations = force_deviations(forces) * MEV_PER_EV
        errors = np.array([np.nan])
        if FORCES in atoms.arrays:
            off = forces.mean(axis=0) - labels_of(atoms).forces_eV_per_A
            errors = np.linalg.norm(off, axis=1) * MEV_PER_EV
        rows.append(
            (
                frame_id,
                str(atoms.info.get("composition", atoms.get_chemical_formula())),
                float(atoms.info.get("temperature_K", np.nan)),
                deviations.mean(), deviations.max(), errors.mean(), errors.max(),
            )
        )  # fmt: skip
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    labelled = table.dropna(subset=["mean_error_meV_per_A"])
    worst = table.iloc[int(table["max_deviation_meV_per_A"].to_numpy().argmax())]
    figures = {
        "n_members": len(calculators),
        "n_frames": len(table),
        "n_frames_labelled": len(labelled),
        "mean_deviation_meV_per_A": float(table["mean_deviation_meV_per_A"].mean()),
        "max_deviation_meV_per_A": float(worst["max_deviation_meV_per_A"]),
        "max_deviation_frame": str(worst["frame_id"]),
        "mean_error_meV_per_A": float(labelled["mean_error_meV_per_A"].mean()) if len(labelled) else None,
        "spearman_mean_deviation_and_error": _spearman(labelled, "mean"),
        "spearman_max_deviation_and_error": _spearman(labelled, "max"),
    }
    return Judgement(figures, table)


def _spearman(labelled: pd.DataFrame, which: str) -> float | None:
    """Return the rank correlation of deviations and errors, their mean or max over the atoms of each frame."""
    ranks = labelled[[f"{which}_deviation_meV_per_A", f"{which}_error_meV_per_A"]].rank()
    if len(ranks) < MIN_FRAMES or ranks.eq(ranks.iloc[0]).all().any():
        return None
    return float(np.corrcoef(ranks.to_numpy().T)[0, 1])
