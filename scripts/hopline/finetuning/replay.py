"""Replay sets: pre-training frames that are mixed into a fine-tuning, so that the potential forgets nothing.

MPtrj (Deng et al., Nat. Mach. Intell. 5, 1031, 2023) has two energies a frame: of the DFT as it is, and with the
Materials Project's corrections (Wang et al., Sci. Rep. 11, 15496, 2021). MACE-MP was trained on the former, CHGNet on
the latter, so a replay frame carries both: see `energies_for`.
"""

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hopline import frames
from hopline.console import InputError
from hopline.finetuning.replay_pool import CORRECTED_ENERGY, Pool
from hopline.labels import outliers
from hopline.sampling import direct
from hopline.sampling.direct import Points
from hopline.splits import PLACE, Split, hold_out_trajectories

RANDOM, FARTHEST_POINT, DIRECT = "random", "farthest-point", "direct"
SELECTIONS = (RANDOM, FARTHEST_POINT, DIRECT)
UNCORRECTED, CORRECTED = "uncorrected", "corrected"
ENERGIES = {"chgnet": CORRECTED, "mace": UNCORRECTED}
"""Which energies each family's shipped weights follow."""
MATERIAL = re.compile(r"(?:mp|mvc)-[^/]+")
"""The Materials Project's name of a material, of which MPtrj has several calculations."""
GAP_FRAMES = 10
"""Frames of one trajectory this close are neighbours, as in a dataset; asked only where all frames are of one run."""
BIRCH_THRESHOLD = 0.5
"""To begin with, as in a dataset; it is halved until there are enough clusters."""


@dataclass(frozen=True, eq=False)
class ReplaySet:
    """Frames for training, in an order whose beginnings are selections too; for validation; and to see forgetting.

    ``dropped`` frames of the pool are in none, since they are the same structure as one that is held out.
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


def assemble(
    pool: Pool,
    *,
    select: str,
    n_frames: int,
    valid_fraction: float,
    test_fraction: float,
    seed: int,
    encode: Callable[[Sequence[Atoms]], NDArray[np.float64]],
) -> ReplaySet:
    """Split a pool by material and select from it, so that the three sets share none.

    Test and validation frames are drawn at random whatever the selection is: they stand for the pre-training data at
    large. ``test_fraction`` is that of all frames, ``valid_fraction`` that of the rest.

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
        If the pool mixes levels of theory or kinds of energy, has stresses of the wrong sign, or too few materials.
    """
    if select not in SELECTIONS:
        raise InputError(f"selection {select} is not known: {', '.join(SELECTIONS)} are")
    _refuse_mixed(pool.frames)
    held_out, kept = _hold_out(pool.frames, test_fraction, seed)
    valid, rest = _hold_out([pool.frames[row] for row in kept], valid_fraction, seed)
    test_frames = [pool.frames[row] for row in held_out]
    valid_frames = [pool.frames[kept[row]] for row in valid]
    candidates = [pool.frames[kept[row]] for row in rest]
    dropped = len(pool.frames) - sum(map(len, (candidates, valid_frames, test_frames)))
    if select == RANDOM:
        return ReplaySet(candidates, valid_frames, test_frames, dropped)
    n_test = max(1, round(test_fraction * n_frames))
    n_valid = max(1, round(valid_fraction * (n_frames - n_test)))
    test_frames, valid_frames = test_frames[:n_test], valid_frames[:n_valid]
    n_train = n_frames - len(test_frames) - len(valid_frames)
    order = training_order(encode(candidates), select, n_train)
    return ReplaySet([candidates[row] for row in order], valid_frames, test_frames, dropped)


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
    rows = direct.select(features, clusters=n_frames, per_cluster=1, threshold=BIRCH_THRESHOLD).rows
    return rows[farthest_point_order(points[rows], len(rows))]


def farthest_point_order(points: Points, count: int) -> NDArray[np.int64]:
    """Return ``count`` rows of points (n, k): the one nearest to the mean, then each time the farthest from those."""
    first = int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmin())
    others = np.delete(np.arange(len(points)), first)
    picked = direct.farthest_first(points[others], points[[first]], count - 1)
    return np.concatenate([[first], others[picked]])


def material_of(frame: Atoms) -> str:
    """Return what a frame shares with those that resemble it: its material, else its trajectory."""
    source = str(frame.info.get("source", frames.UNSTATED))
    found = MATERIAL.match(source)
    return found[0] if found else source


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
        "frames_like_one_held_out": replay.dropped,
        "rejected": [asdict(kind) for kind in pool.rejected],
    }


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


def _hold_out(pool: Sequence[Atoms], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Return rows that are held out and rows that are kept, both in the pool's order, no material in both."""
    views = []
    for frame in pool:
        view = copy.copy(frame)
        # all compositions are drawn from together: a set of many materials has one frame of most
        view.info = {"composition": "all", "source": material_of(frame)}
        view.info |= {PLACE: frame.info[PLACE]} if PLACE in frame.info else {}
        views.append(view)
    materials = {view.info["source"] for view in views}
    if len(materials) == 1 and not all(PLACE in view.info for view in views):
        raise InputError(
            f"{len(pool)} frames of one material or trajectory ({min(materials)}) cannot be split for training, "
            "validation and test: take a larger source, more frames or fewer filters"
        )
    split: Split = hold_out_trajectories(views, fraction=fraction, seed=seed, gap_frames=GAP_FRAMES)
    return split.held_out, split.kept
