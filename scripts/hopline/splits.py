"""Sets for training, validation and test: split by trajectory or by blocks of one, and the proof that none leaks."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hopline.console import InputError
from hopline.frames import UNSTATED, frame_id
from hopline.likeness import first_of_kind, moving_alike

PLACE = "source_frame"
"""Of a frame's ``info``: its place among the frames of its trajectory (``source``), a whole number."""
MAX_MISS = 2.0
"""Whole trajectories are held out as long as they make between half and twice the share that was asked for."""
MANY_COMPOSITIONS = 20
"""No study of one material has so many that are too small to be split one by one."""
MOST_EXAMPLES, MOST_TRAJECTORIES = 3, 20


@dataclass(frozen=True)
class Split:
    """Row numbers: kept, held out, and dropped, in neither since they lie next to a cut or repeat a frame held out."""

    kept: list[int]
    held_out: list[int]
    dropped: list[int]


def hold_out_trajectories(frames: Sequence[Atoms], *, fraction: float, seed: int, gap_frames: int) -> Split:
    """Split rows by trajectory, each composition in its own proportion, so that no frame is tested on its neighbour.

    A trajectory is a frame's ``source``. Whole ones are drawn at random within each composition, those that bring it
    nearer to ``fraction`` of its frames; at least one (the shortest, if all are too long) is held out, one kept.
    Where that makes less than half or more than twice the share, trajectories whose frames all know their place
    (``source_frame``) are cut into blocks of neighbours, and blocks are drawn. A block holds half of the frames
    that are to be held out, so that two stretches of time are tested; or all of them, where half would be
    shorter than two gaps and the cuts would cost too much. Kept frames within ``gap_frames`` of one that is held
    out are dropped, and so are those that are the same structure. Where at least `MANY_COMPOSITIONS` compositions
    can be split neither way (a data set of many materials), trajectories are drawn from all of these together.

    What is drawn does not depend on the order of the frames, nor, of compositions that are split by themselves, on
    the others.

    Raises
    ------
    InputError
        If a composition cannot be split, ``fraction`` is no share between 0 and 1, or the gap is negative.
    """
    if not 0.0 < fraction < 1.0:
        raise InputError(f"the share to hold out must lie between 0 and 1, got {fraction}")
    if gap_frames < 0:
        raise InputError(f"the gap at a cut is a number of frames, got {gap_frames}")
    held_out: list[int] = []
    whole: dict[str, list[list[int]]] = {}
    for composition, by_source in sorted(_by_composition(frames).items()):
        units = [rows for _, rows in sorted(by_source.items())]
        n_wanted = fraction * sum(map(len, units))
        rng_key = [seed, *composition.encode()]
        taken = _draw(units, n_wanted, rng_key)
        if len(units) == 1 or not n_wanted / MAX_MISS <= len(taken) <= n_wanted * MAX_MISS:
            blocks = [block for rows in units for block in _cut(frames, rows, n_wanted, gap_frames)]
            if len(blocks) == len(units):
                whole[composition] = units
            taken = _draw(blocks, n_wanted, rng_key)
        held_out += taken
    if len(whole) >= MANY_COMPOSITIONS:
        together = [rows for units in whole.values() for rows in units]
        taken = _draw(together, fraction * sum(map(len, together)), [seed])
        held_out = [*set(held_out).difference(*together), *taken]
    else:
        _refuse_lone(frames, whole)
        whole = {}
    dropped = _beside(frames, held_out, gap_frames) | _repeated(frames, held_out)
    kept = sorted(set(range(len(frames))) - set(held_out) - dropped)
    emptied = (
        {_composition(frames[row]) for row in held_out}
        - {_composition(frames[row]) for row in kept}
        - set(whole)
    )
    if emptied:
        raise InputError(
            f"composition {min(emptied)}: nothing is left to train on, since all other frames repeat one that is held "
            f"out or lie within {gap_frames} frames of it: label frames of a second trajectory, or lower the gap"
        )
    return Split(kept, sorted(held_out), sorted(dropped))


def where_from(frames: Iterable[Atoms]) -> str:
    """Return the trajectories of frames with how many come from each, for a person to read."""
    counts = Counter(map(_source, frames))
    return _some([f"{source} ({count})" for source, count in sorted(counts.items())], most=MOST_TRAJECTORIES)


def refuse_leakage(sets: Mapping[str, Sequence[Atoms]], *, gap_frames: int) -> None:
    """Refuse sets that share a frame, hold neighbours in time, or a test set that shares a trajectory.

    Parameters
    ----------
    sets
        Frames by the name of their set; ``"test"`` is the one that must come from trajectories of its own, or from
        blocks of them that lie more than ``gap_frames`` from all other sets.
    gap_frames
        Frames of one trajectory this close in ``source_frame`` are neighbours.

    Raises
    ------
    InputError
        Naming the sets, the number of frames and the first of them.
    """
    kinds = _kinds(sets)
    for (one, first), (two, second) in combinations(sets.items(), 2):
        shared = _shared(kinds[one], kinds[two])
        if shared:
            names = [_both_names(first[row], second[other]) for row, other in shared]
            count = f"{len(shared)} frames are" if len(shared) > 1 else "a frame is"
            raise InputError(f"{count} in both {one} and {two}: the test would be a lie: {_some(names)}")
        near = _neighbours(first, second, gap_frames)
        if near:
            names = [f"{_place(first[row])} beside {_place(second[other])}" for row, other in near]
            raise InputError(
                f"{len(near)} of the {len(first)} frames of {one} lie within {gap_frames} frames of one of {two} in "
                f"the same trajectory: {_some(names)}"
            )
        if "test" in {one, two}:
            unplaced = sorted(_unplaced(first, second))
            if unplaced:
                raise InputError(
                    f"{two if one == 'test' else one} shares trajectories with the test set: {_some(unplaced)} "
                    f"(nothing says how far apart their frames lie: {PLACE})"
                )


def published_leakage(sets: Mapping[str, Sequence[Atoms]]) -> list[str]:
    """Return sentences on what somebody's own split leaks: frames in two sets, and frames that move like another set's.

    Only structures are looked at, so that sets need no labels and no trajectories (see `likeness`).
    """
    alike, comparable = moving_alike(list(sets.values()))
    ends = np.cumsum([0, *(len(part) for part in sets.values())])
    kinds = _kinds(sets)
    sentences = []
    for (number, one), (other, two) in combinations(enumerate(sets), 2):
        mine = slice(ends[other], ends[other + 1])
        sentences.append(
            f"of the {len(sets[two])} frames of {two} {len(_shared(kinds[one], kinds[two]))} are in {one} too, and "
            f"{int(alike[mine, number].sum())} of the {int(comparable[mine].sum())} that can be compared move like a "
            "frame of it, as neighbours in time do"
        )
    return sentences


def _kinds(sets: Mapping[str, Sequence[Atoms]]) -> dict[str, list[int]]:
    """Return for each frame of each set a number that frames of one structure share."""
    kinds = iter(first_of_kind([frame for frames in sets.values() for frame in frames]).tolist())
    return {name: [next(kinds) for _ in frames] for name, frames in sets.items()}


def _shared(first: Sequence[int], second: Sequence[int]) -> list[tuple[int, int]]:
    """Return pairs (row of the first set, row of the second) of one kind, one for each such row of the second."""
    row_of = {kind: row for row, kind in reversed(list(enumerate(first)))}
    return [(row_of[kind], row) for row, kind in enumerate(second) if kind in row_of]


def _composition(frame: Atoms) -> str:
    known = frame.info.get("composition")
    return frame.get_chemical_formula() if known is None else str(known)


def _source(frame: Atoms) -> str:
    return str(frame.info.get("source", UNSTATED))


def _by_composition(frames: Sequence[Atoms]) -> dict[str, dict[str, list[int]]]:
    """Return row numbers by composition and trajectory."""
    trajectories: dict[str, dict[str, list[int]]] = {}
    for row, frame in enumerate(frames):
        trajectories.setdefault(_composition(frame), {}).setdefault(_source(frame), []).append(row)
    return trajectories


def _draw(units: Sequence[list[int]], n_wanted: float, rng_key: list[int]) -> list[int]:
    """Return the rows of units drawn at random that bring their number nearer to ``n_wanted``; one unit is left."""
    drawn = [units[at] for at in np.random.default_rng(rng_key).permutation(len(units))]
    taken: list[int] = []
    for unit in drawn[:-1]:
        if len(taken) + len(unit) / 2 <= n_wanted:
            taken += unit
    return taken or min(drawn, key=len)


def _refuse_lone(frames: Sequence[Atoms], compositions: Mapping[str, Sequence[list[int]]]) -> None:
    """Refuse compositions that have one trajectory only, which cannot be cut."""
    for composition, units in compositions.items():
        if len(units) == 1:
            raise InputError(
                f"composition {composition} has frames of one trajectory only ({_source(frames[units[0][0]])}): label "
                "frames of a second one, so that the test shares none with the training, or say where in the "
                f"trajectory each frame lies ({PLACE})"
            )


def _cut(frames: Sequence[Atoms], rows: list[int], n_wanted: float, gap_frames: int) -> list[list[int]]:
    """Cut the rows of one trajectory into blocks of neighbours; leave it whole where places are unknown."""
    if any(frames[row].info.get(PLACE) is None for row in rows):
        return [rows]
    half = n_wanted / 2
    length = max(1, round(half if half >= 2 * gap_frames else n_wanted))
    places = np.array([int(frames[row].info[PLACE]) for row in rows])
    known = np.unique(places)
    ends = np.linspace(0, len(known), max(1, round(len(rows) / length)) + 1).round().astype(int)
    blocks = [set(known[start:end].tolist()) for start, end in pairwise(ends)]
    return [
        [row for row, place in zip(rows, places, strict=True) if place in block] for block in blocks if block
    ]


def _beside(frames: Sequence[Atoms], held_out: Sequence[int], gap_frames: int) -> set[int]:
    """Return the rows that are not held out but lie within the gap of one that is."""
    rest = sorted(set(range(len(frames))) - set(held_out))
    near = _neighbours([frames[row] for row in rest], [frames[row] for row in held_out], gap_frames)
    return {rest[row] for row, _ in near}


def _repeated(frames: Sequence[Atoms], held_out: Sequence[int]) -> set[int]:
    """Return the rows that are not held out but are the same structure as one that is."""
    kind = first_of_kind(frames)
    taken = set(kind[list(held_out)].tolist())
    return {row for row, one in enumerate(kind.tolist()) if one in taken} - set(held_out)


def _neighbours(first: Sequence[Atoms], second: Sequence[Atoms], gap_frames: int) -> list[tuple[int, int]]:
    """Return pairs (row of the first, nearest row of the second) no further apart than the gap in one trajectory."""
    pairs = []
    placed = _placed(second)
    for trajectory, (rows, places) in _placed(first).items():
        if trajectory in placed:
            others, at = placed[trajectory]
            right = np.searchsorted(at, places).clip(max=len(at) - 1)
            left = (right - 1).clip(min=0)
            nearest = np.where(np.abs(at[left] - places) <= np.abs(at[right] - places), left, right)
            close = np.abs(at[nearest] - places) <= gap_frames
            pairs += list(zip(rows[close].tolist(), others[nearest[close]].tolist(), strict=True))
    return sorted(pairs)


def _placed(
    frames: Sequence[Atoms],
) -> dict[tuple[str, str], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return by trajectory the rows that know their place, and these places, in their order."""
    found: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for row, frame in enumerate(frames):
        if "source" in frame.info and frame.info.get(PLACE) is not None:
            trajectory = (_composition(frame), str(frame.info["source"]))
            found.setdefault(trajectory, []).append((int(frame.info[PLACE]), row))
    ordered = {trajectory: np.array(sorted(entries)) for trajectory, entries in found.items()}
    return {trajectory: (entries[:, 1], entries[:, 0]) for trajectory, entries in ordered.items()}


def _unplaced(first: Sequence[Atoms], second: Sequence[Atoms]) -> set[str]:
    """Return the trajectories that two sets share without saying, of every frame, where in them it lies."""
    trajectories: list[dict[tuple[str, str], bool]] = []
    for frames in (first, second):
        known: dict[tuple[str, str], bool] = {}
        for frame in frames:
            if "source" in frame.info:
                trajectory = (_composition(frame), str(frame.info["source"]))
                known[trajectory] = known.get(trajectory, True) and frame.info.get(PLACE) is not None
        trajectories.append(known)
    one, two = trajectories
    return {source for (composition, source), known in one.items()
            if (composition, source) in two and not (known and two[composition, source])}  # fmt: skip


def _some(names: Sequence[str], most: int = MOST_EXAMPLES) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _both_names(one: Atoms, two: Atoms) -> str:
    first, second = frame_id(one), frame_id(two)
    return first if first == second else f"{first} (there {second})"


def _place(frame: Atoms) -> str:
    return f"{frame.info['source']} frame {frame.info[PLACE]}"
