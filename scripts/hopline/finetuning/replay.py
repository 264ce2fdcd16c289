"""Replay sets: pre-training frames that are mixed into a fine-tuning, so that the potential forgets nothing.

MPtrj (Deng et al., Nat. Mach. Intell. 5, 1031, 2023) has two energies a frame: of the DFT as it is, and with the
Materials Project's corrections (Wang et al., Sci. Rep. 11, 15496, 2021). MACE-MP was trained on the former, CHGNet on
the latter, so a replay frame carries both: see `energies_for`.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hopline import frames
from hopline.console import InputError
from hopline.finetuning.replay_pool import CORRECTED_ENERGY, Pool
from hopline.finetuning.replay_split import material_of, split
from hopline.labels import outliers
from hopline.sampling import direct
from hopline.sampling.direct import Points

RANDOM, FARTHEST_POINT, DIRECT = "random", "farthest-point", "direct"
SELECTIONS = (RANDOM, FARTHEST_POINT, DIRECT)
UNCORRECTED, CORRECTED = "uncorrected", "corrected"
ENERGIES = {"chgnet": CORRECTED, "mace": UNCORRECTED}
"""Which energies each family's shipped weights follow."""
MIN_FRAMES = 10
"""Fewer have no shares to hold out."""
BIRCH_THRESHOLD = 0.5
"""To begin with, as in a dataset; it is halved until there are enough clusters."""


@dataclass(frozen=True, eq=False)
class ReplaySet:
    """Frames for training, in an order whose beginnings are selections too; for validation; and to see forgetting.

    ``dropped`` frames of the pool are in none, since they are the same structure as one that is held out or lie beside
    one in its trajectory.
    """

    train: list[Atoms]
    valid: list[Atoms]
    test: list[Atoms]
    dropped: int


def energies_for(replayed: Sequence[Atoms], family: str) -> list[Atoms]:
    """Return copies of replay frames whose ``REF_energy`` is the one that a family's potentials follow.

    ``mace``: uncorrected, as a replay set has it; ``chgnet``: with the Materials Project's corrections. (Shipped
    CHGNet is off by 0.014 eV/atom from corrected energies, by 0.5 from the others.)

    Raises
    ------
    InputError
        If the family is not known, or a frame lacks the corrected energy.
    """
    if family not in ENERGIES:
        raise InputError(f"which energies {family} follows is not known; {', '.join(ENERGIES)} are")
    copies = [frame.copy() for frame in replayed]
    if ENERGIES[family] == CORRECTED:
        bare = [frame for frame in copies if CORRECTED_ENERGY not in frame.info]
        if bare:
            raise InputError(
                f"{len(bare)} of {len(copies)} replay frames have no {CORRECTED_ENERGY} (the first is "
                f"{frames.frame_id(bare[0])}): {family} follows energies with the Materials Project's corrections, "
                "take replay frames that have them (MPtrj)"
            )
        for frame in copies:
            frame.info[frames.ENERGY] = float(frame.info[CORRECTED_ENERGY])
    return copies


def refuse_unfit(select: str, *, n_frames: int, pool_frames: int | None, encoder: str | None) -> None:
    """Refuse settings of a selection that do not go together, before anything is read."""
    if n_frames < MIN_FRAMES:
        raise InputError(f"a replay set has {MIN_FRAMES} frames or more, {n_frames} were asked for")
    if select == RANDOM:
        return
    if not (encoder and pool_frames):
        raise InputError(f"the selection {select} needs an encoder and pool_frames")
    if pool_frames < n_frames:
        raise InputError(f"pool_frames must be frames ({n_frames}) or more: it is selected from")


def assemble(
    pool: Pool,
    *,
    select: str,
    n_frames: int,
    valid_fraction: float,
    test_fraction: float,
    encode: Callable[[Sequence[Atoms]], NDArray[np.float64]],
) -> ReplaySet:
    """Split a pool by material and select from it, so that the three sets share none.

    Test and validation frames are as at random whatever the selection is: they stand for the pre-training data at
    large. Who they are hangs on their materials' names alone, so that no other set of the same fractions trains on them
    (see `replay_split.split`).

    Parameters
    ----------
    pool
        Frames in random order: all of the set for ``random``, more to select from for the others.
    select
        ``random``, ``farthest-point`` or ``direct``: how training frames are chosen and ordered, see `training_order`.
    n_frames
        Frames of the three sets together; fewer where the pool has fewer.
    encode
        Gives the features of frames, (n_frames, n_features).

    Raises
    ------
    InputError
        If the pool mixes levels of theory or kinds of energy, has stresses of the wrong sign, or so few materials that
        one of the sets comes out empty.
    """
    if select not in SELECTIONS:
        raise InputError(f"selection {select} is not known: {', '.join(SELECTIONS)} are")
    _refuse_mixed(pool.frames)
    parts = split(pool.frames, valid_fraction=valid_fraction, test_fraction=test_fraction)
    candidates, valid_frames, test_frames = (
        [pool.frames[row] for row in rows] for rows in (parts.train, parts.valid, parts.test)
    )
    if select == RANDOM:
        return ReplaySet(candidates, valid_frames, test_frames, parts.dropped)
    test_frames = test_frames[: max(1, round(test_fraction * n_frames))]
    valid_frames = valid_frames[: max(1, round(valid_fraction * n_frames))]
    n_train = n_frames - len(test_frames) - len(valid_frames)
    order = training_order(encode(candidates), select, n_train)
    return ReplaySet([candidates[row] for row in order], valid_frames, test_frames, parts.dropped)


def training_order(features: Points, select: str, n_frames: int) -> NDArray[np.int64]:
    """Return the rows of features (n_candidates, n_features) to train on, those that matter most first.

    ``farthest-point`` takes the row nearest to the mean, then each time the one farthest from those before it.
    ``direct`` takes one row of each of ``n_frames`` clusters (see `sampling.direct`) and puts the picks into that same
    order. So the first rows of a longer selection spread over the whole space, as a shorter one would. Distances are
    those of weighted principal components.
    """
    points = direct.fit_reduction(features).apply(features)
    if select == FARTHEST_POINT or n_frames >= len(features):
        return farthest_point_order(points, min(n_frames, len(features)))
    remedy = "raise pool_frames, or lower frames"
    rows = direct.select(
        features, clusters=n_frames, per_cluster=1, threshold=BIRCH_THRESHOLD, remedy=remedy
    ).rows
    return rows[farthest_point_order(points[rows], len(rows))]


def farthest_point_order(points: Points, count: int) -> NDArray[np.int64]:
    """Return ``count`` rows of points (n, k): the one nearest to the mean, then each time the farthest from those."""
    first = int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmin())
    others = np.delete(np.arange(len(points)), first)
    picked = direct.farthest_first(points[others], points[[first]], count - 1)
    return np.concatenate([[first], others[picked]])


def describe(replay: ReplaySet, pool: Pool) -> dict[str, Any]:
    """Return what a set's JSON says about it: counts, energies, elements, theory, and what was left out and why."""
    sets = {"train": replay.train, "valid": replay.valid, "test": replay.test}
    every = [frame for part in sets.values() for frame in part]
    corrected = sum(CORRECTED_ENERGY in frame.info for frame in every)
    return {
        "frames": {name: len(part) for name, part in sets.items()},
        "materials": {name: len({material_of(frame) for frame in part}) for name, part in sets.items()},
        "frames_without_stress": sum(frames.STRESS not in frame.info for frame in every),
        "energies": {UNCORRECTED: len(every), CORRECTED: corrected},
        "fits_families": [
            name for name, kind in ENERGIES.items() if kind == UNCORRECTED or corrected == len(every)
        ],
        "elements": sorted({symbol for frame in every for symbol in frame.symbols}),
        "level_of_theory": frames.level_of_theory(every),
        "energy_kind": every[0].info["energy_kind"],
        "frames_found": pool.found,
        "frames_of_other_elements": pool.other_elements,
        "frames_fit": pool.fit,
        "frames_in_pool": len(pool.frames),
        "frames_in_no_set": replay.dropped,
        "rejected": [asdict(kind) for kind in pool.rejected],
    }


def told(description: Mapping[str, Any], *, asked_for: int) -> str:
    """Say in a line what `describe` says at length."""
    counts = ", ".join(f"{count} {name}" for name, count in description["frames"].items())
    total, dropped = sum(description["frames"].values()), description["frames_in_no_set"]
    fewer = f", {asked_for} were asked for" if total < asked_for else ""
    fewer += f", {dropped} are like one held out, or beside it, and in none" if dropped else ""
    energies = " and ".join(kind for kind, n_frames in description["energies"].items() if n_frames == total)
    return (
        f"{counts} of {description['frames_fit']} fit frames ({description['frames_found']} found){fewer}; "
        f"energies {energies}"
    )


def _refuse_mixed(pool: Sequence[Atoms]) -> None:
    frames.level_of_theory(pool)
    kinds = sorted({str(frame.info["energy_kind"]) for frame in pool})
    if len(kinds) > 1:
        raise InputError(
            f"a set may hold one kind of energy, this one mixes {' and '.join(kinds)}: take them apart"
        )
    complaints = _stress_complaints(pool)
    wrong = [complaint for complaint in complaints if complaint]
    # of many materials some have phases whose stresses look upside down together: the majority tells
    if len(wrong) > len(complaints) / 2:
        raise InputError(f"{wrong[0]}; so do {len(wrong)} of the {len(complaints)} formulas that tell")


def _stress_complaints(pool: Sequence[Atoms]) -> list[str]:
    """Return, for each formula whose stresses show a trend, what is wrong with it; empty where nothing is."""
    groups: dict[str, list[Atoms]] = {}
    for frame in pool:
        groups.setdefault(frame.get_chemical_formula(empirical=True), []).append(frame)
    complaints = []
    for group in groups.values():
        if len(group) >= outliers.MIN_STRESSES:
            as_it_is = outliers.stress_sign(group)
            # a trend that is right is wrong upside down; where neither is, there is none
            if as_it_is or outliers.stress_sign([_upside_down(frame) for frame in group]):
                complaints.append(as_it_is)
    return complaints


def _upside_down(frame: Atoms) -> Atoms:
    view = copy.copy(frame)
    view.info = (
        {frames.STRESS: -frames.stress_matrix(frame.info[frames.STRESS])}
        if frames.STRESS in frame.info
        else {}
    )
    return view
