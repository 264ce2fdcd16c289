"""No frame is tested on its neighbour: splits by trajectory and by blocks, and leaks that are put there on purpose."""

import time
from itertools import combinations

import ase.io
import numpy as np
import pytest
from ase import Atoms
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small import labelled_set, rocksalt_lif, shaken

from hopline import splits
from hopline.console import InputError


def trajectory(n_frames, *, source="bulk/300K", composition="bulk", start=0, stride=1):
    """Return frames of one atom each, all different, that know their place."""
    made = []
    for number in range(n_frames):
        atoms = Atoms("H", positions=[[0.01 * len(made), 0, 0]], cell=np.eye(3) * 9, pbc=True)
        place = start + stride * number
        atoms.info |= {"composition": composition, "source": source, "source_frame": place}
        made.append(atoms)
    return made


def places(frames, rows):
    return sorted(frames[row].info["source_frame"] for row in rows)


def hold_out(frames, *, fraction=0.2, seed=0, gap_frames=0):
    return splits.hold_out_trajectories(frames, fraction=fraction, seed=seed, gap_frames=gap_frames)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sizes=st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=6), min_size=1, max_size=3),
    fraction=st.floats(0.05, 0.6),
    seed=st.integers(0, 99),
    shuffle=st.integers(0, 99),
)
def test_frames_that_do_not_know_their_place_are_held_out_by_whole_trajectories(
    sizes, fraction, seed, shuffle
):
    made = []
    for composition, trajectories in enumerate(sizes):
        for number, n_frames in enumerate(trajectories):
            info = {"composition": f"H{composition}", "source": f"H{composition}/{number}"}
            for _ in range(n_frames):
                made.append(Atoms("H", positions=[[0.01 * len(made), 0, 0]], cell=np.eye(3) * 9, pbc=True))
                made[-1].info |= info
    split = hold_out(made, fraction=fraction, seed=seed, gap_frames=3)
    assert sorted(split.kept + split.held_out) == list(range(len(made)))
    assert split.dropped == []
    sources = [{made[row].info["source"] for row in rows} for rows in (split.kept, split.held_out)]
    assert not sources[0] & sources[1]
    for composition, trajectories in enumerate(sizes):
        mine = [row for row in split.held_out if made[row].info["composition"] == f"H{composition}"]
        assert 0 < len(mine) < sum(trajectories)
        # whole trajectories cannot meet a share exactly: at worst by half the longest one, or by the one taken
        assert len(mine) - fraction * sum(trajectories) <= max(trajectories)
    order = np.random.default_rng(shuffle).permutation(len(made))
    again = hold_out([made[row] for row in order], fraction=fraction, seed=seed, gap_frames=3).held_out
    assert sorted(order[again]) == split.held_out


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    n_frames=st.integers(40, 300),
    stride=st.integers(1, 20),
    gap_frames=st.integers(0, 5),
    fraction=st.floats(0.1, 0.4),
    seed=st.integers(0, 99),
)
def test_one_trajectory_is_cut_into_blocks_with_a_gap_at_each_cut(
    n_frames, stride, gap_frames, fraction, seed
):
    made = trajectory(n_frames, stride=stride)
    split = hold_out(made, fraction=fraction, seed=seed, gap_frames=gap_frames)
    assert sorted(split.kept + split.held_out + split.dropped) == list(range(n_frames))
    held, kept = places(made, split.held_out), places(made, split.kept)
    assert np.abs(np.subtract.outer(held, kept)).min() > gap_frames
    assert n_frames * fraction / 2 - 1 <= len(held) <= 2 * n_frames * fraction + 1
    # blocks of neighbours: at most four runs for the two or so blocks, and no more dropped than a gap on each side
    runs = 1 + np.count_nonzero(np.diff(held) > stride)
    assert runs <= 4
    assert len(split.dropped) <= 2 * gap_frames * runs
    order = np.random.default_rng(seed).permutation(n_frames)
    again = hold_out([made[row] for row in order], fraction=fraction, seed=seed, gap_frames=gap_frames)
    assert sorted(order[again.held_out]) == split.held_out
    assert sorted(order[again.dropped]) == split.dropped
    sets = {"train": [made[row] for row in split.kept], "test": [made[row] for row in split.held_out]}
    splits.refuse_leakage(sets, gap_frames=gap_frames)


def test_a_hundred_frames_are_cut_as_documented():
    made = trajectory(100)
    split = hold_out(made, gap_frames=3)
    held = places(made, split.held_out)
    # a fifth: two blocks of ten
    assert len(held) == 20
    assert {place // 10 for place in held} == {held[0] // 10, held[-1] // 10}
    expected = {place for edge in held for place in range(edge - 3, edge + 4)} & set(range(100)) - set(held)
    assert set(places(made, split.dropped)) == expected
    # half of the share is shorter than two gaps of six: one block of twenty
    held = places(made, hold_out(made, gap_frames=6).held_out)
    assert held == list(range(held[0], held[0] + 20))


def test_trajectories_that_come_near_the_share_stay_whole_and_others_are_cut():
    near = [frame for number in range(5) for frame in trajectory(10, source=f"{number}")]
    assert {frame.info["source"] for frame in near} == set("01234")
    far = [frame for number in range(2) for frame in trajectory(50, source=f"{number}")]
    for number, frame in enumerate(near + far):
        frame.positions[0, 1] = 0.01 * number
    split = hold_out(near, gap_frames=2)
    assert len({near[row].info["source"] for row in split.held_out}) == 1
    assert len(split.held_out) == 10
    assert not split.dropped
    split = hold_out(far, gap_frames=2)
    assert len(split.held_out) == 20
    assert split.dropped
    known = far[0].info.pop("source_frame")
    assert known == 0
    # one trajectory does not say where its frames lie: the other alone is cut
    assert len(hold_out(far, gap_frames=2).held_out) in {20, 10}


def test_frames_near_a_cut_are_dropped_by_place_and_not_by_count():
    sparse = trajectory(50, stride=100)
    assert hold_out(sparse, gap_frames=10).dropped == []
    dense = trajectory(50)
    assert hold_out(dense, gap_frames=2).dropped != []


def test_a_frame_that_repeats_one_held_out_is_dropped():
    made = labelled_set(trajectories=6, frames_each=2, compositions=("bulk",))
    split = hold_out(made)
    twin = made[split.held_out[0]].copy()
    twin.info["source"] = made[split.kept[0]].info["source"]
    twin = twin[::-1]
    twin.positions[0] += twin.cell.array[1]
    assert hold_out([*made, twin]).dropped == [len(made)]


def test_trajectories_of_many_small_compositions_are_drawn_together():
    made = [
        frame
        for number in range(40)
        for frame in trajectory(3, source=f"mp-{number}", composition=f"C{number}")
    ]
    for number, frame in enumerate(made):
        del frame.info["source_frame"]
        frame.positions[0, 1] = 0.01 * number
    split = hold_out(made, fraction=0.2, seed=3)
    assert len(split.held_out) == 24
    assert not {made[row].info["source"] for row in split.held_out} & {
        made[row].info["source"] for row in split.kept
    }
    pairs = [frame.copy() for frame in made]
    for frame in pairs:
        frame.info["composition"] = str(int(frame.info["composition"][1:]) // 2)
    # two trajectories each: alone each composition would lose half
    assert len(hold_out(pairs, fraction=0.2, seed=3).held_out) == 24
    assert len(hold_out(pairs[:60], fraction=0.2, seed=3).held_out) == 30
    few = made[: 3 * (splits.MANY_COMPOSITIONS - 1)]
    with pytest.raises(InputError, match=r"composition C0 has frames of one trajectory only \(mp-0\)"):
        hold_out(few)


def test_what_is_held_out_of_one_composition_does_not_depend_on_the_others():
    both = labelled_set(trajectories=6, frames_each=2)
    alone = [atoms for atoms in both if atoms.info["composition"] == "bulk"]
    for seed in range(5):
        sources = []
        for pool in (both, alone):
            rows = hold_out(pool, fraction=0.3, seed=seed).held_out
            sources.append(
                {pool[row].info["source"] for row in rows if pool[row].info["composition"] == "bulk"}
            )
        assert sources[0] == sources[1]


def test_the_seed_decides_what_is_held_out():
    pool = labelled_set(trajectories=6, frames_each=1)
    draws = [hold_out(pool, seed=seed).held_out for seed in (0, 0, *range(1, 9))]
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) > 2


def test_a_composition_of_one_trajectory_that_cannot_be_cut_is_refused():
    with pytest.raises(InputError, match=r"composition bulk has frames of one trajectory only \(bulk/300K\)"):
        hold_out(labelled_set(trajectories=1, compositions=("bulk",)))
    with pytest.raises(InputError, match="one trajectory only"):
        hold_out(trajectory(1))


def test_a_gap_that_leaves_nothing_is_refused():
    with pytest.raises(InputError, match=r"composition bulk: nothing is left .* within 50 frames"):
        hold_out(trajectory(40), gap_frames=50)
    with pytest.raises(InputError, match="gap at a cut"):
        hold_out(trajectory(40), gap_frames=-1)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(fraction):
    with pytest.raises(InputError, match="between 0 and 1"):
        hold_out(labelled_set(), fraction=fraction)


def test_many_frames_are_split_within_seconds():
    rng = np.random.default_rng(0)
    made = []
    for number in range(20_000):
        atoms = Atoms("LiF", positions=rng.uniform(0, 4, (2, 3)), cell=np.eye(3) * 4, pbc=True)
        atoms.info |= {
            "composition": f"C{number % 7}", "source": f"{number % 140}", "source_frame": number // 140,
        }  # fmt: skip
        made.append(atoms)
    started = time.process_time()
    split = hold_out(made, gap_frames=5)
    # a fifth of 100,000 frames, which take 6 s on a slow core
    assert time.process_time() - started < 5
    assert len(split.held_out) == pytest.approx(4_000, rel=0.1)


def test_a_frame_in_two_sets_is_refused():
    a, b, c = labelled_set(trajectories=3, frames_each=1, compositions=("bulk",))
    splits.refuse_leakage({"train": [a], "valid": [b], "test": [c]}, gap_frames=5)
    name = b.info["frame_id"]
    with pytest.raises(
        InputError, match=f"a frame is in both train and valid: the test would be a lie: {name}"
    ):
        splits.refuse_leakage({"train": [a, b], "valid": [b], "test": [c]}, gap_frames=5)
    with pytest.raises(InputError, match="2 frames are in both train and test"):
        splits.refuse_leakage({"train": [a, b], "valid": [c], "test": [b, a]}, gap_frames=5)


@pytest.mark.parametrize("disguise", ["order", "wrapped", "digits", "rotated", "all"])
def test_the_same_frame_in_disguise_is_refused(disguise):
    first, second = rocksalt_lif(seed=1), rocksalt_lif(seed=2)
    for number, frame in enumerate((first, second)):
        frame.info |= {"composition": "bulk", "source": f"{number}"}
    hidden = first.copy()
    hidden.info["source"] = "elsewhere"
    rng = np.random.default_rng(0)
    if disguise in {"order", "all"}:
        hidden = hidden[rng.permutation(len(hidden))]
    if disguise in {"wrapped", "all"}:
        hidden.positions += rng.integers(-2, 3, (len(hidden), 3)) @ hidden.cell.array
    if disguise in {"digits", "all"}:
        hidden.positions = hidden.positions.round(3)
    if disguise in {"rotated", "all"}:
        hidden.rotate(40, (1, 2, 3), rotate_cell=True)
    with pytest.raises(InputError, match="a frame is in both train and test"):
        splits.refuse_leakage({"train": [second, hidden], "test": [first]}, gap_frames=0)
    # an atom or the cell moved by ten times the tolerance is another frame
    hidden.positions[3] += 0.01
    splits.refuse_leakage({"train": [second, hidden], "test": [first]}, gap_frames=0)
    stretched = first.copy()
    stretched.info["source"] = "elsewhere"
    stretched.set_cell(first.cell * 1.003, scale_atoms=True)
    splits.refuse_leakage({"train": [stretched], "test": [first]}, gap_frames=0)


def test_a_trajectory_of_the_test_in_another_set_is_refused_unless_the_gap_is_kept():
    first, second = labelled_set(trajectories=1, frames_each=2, compositions=("bulk",))
    with pytest.raises(InputError, match="shares trajectories with the test set: bulk/300K"):
        splits.refuse_leakage({"train": [first], "test": [second]}, gap_frames=5)
    splits.refuse_leakage({"train": [first], "valid": [second], "test": []}, gap_frames=5)
    first.info["source_frame"] = 10
    with pytest.raises(InputError, match="shares trajectories"):
        splits.refuse_leakage({"train": [first], "test": [second]}, gap_frames=5)
    second.info["source_frame"] = 15
    with pytest.raises(
        InputError,
        match=r"1 of the 1 frames of train lie within 5 frames of one of test .*frame 10 beside .*frame 15",
    ):
        splits.refuse_leakage({"train": [first], "test": [second]}, gap_frames=5)
    with pytest.raises(InputError, match="of train lie within 5 frames of one of valid"):
        splits.refuse_leakage({"train": [first], "valid": [second]}, gap_frames=5)
    splits.refuse_leakage({"train": [first], "test": [second]}, gap_frames=4)
    # a frame of another composition in the same file is no neighbour in time
    second.info |= {"source_frame": 11, "composition": "Li1"}
    splits.refuse_leakage({"train": [first], "test": [second]}, gap_frames=4)


def test_a_published_split_is_told_what_it_leaks():
    run = shaken(40, memory=0.8, seed=0)
    others = shaken(10, memory=0.0, seed=1)
    shuffle = np.random.default_rng(2).permutation(len(run[0]))
    disguised = [others[0][shuffle], others[1].copy()]
    disguised[1].wrap()
    sets = {
        "train": [*run[::2], *others],
        "valid": run[1::2],
        "test": [*shaken(8, memory=0.0, seed=3), *disguised],
    }
    told = [
        sentence.replace(" that can be compared move like a frame of it", "")
        for sentence in splits.published_leakage(sets)
    ]
    assert told == [
        "of the 20 frames of valid 0 are in train too, and 20 of the 20, as neighbours in time do",
        "of the 10 frames of test 2 are in train too, and 2 of the 10, as neighbours in time do",
        "of the 10 frames of test 0 are in valid too, and 0 of the 10, as neighbours in time do",
    ]


def test_the_lif_sets_share_no_frame(shared_data):
    sets = {
        name: ase.io.read(shared_data / "lif" / f"{name}_train.xyz", ":") for name in ("10-REF", "step_0")
    }
    (sentence,) = splits.published_leakage(sets)
    assert sentence.startswith(
        "of the 76 frames of step_0 0 are in 10-REF too, and 0 of the 76 that can be compared"
    )


def test_our_own_trajectories_hold_neighbours_and_share_none(repository):
    from hopline.likeness import moving_alike

    frames = ase.io.read(repository / "resources" / "lif" / "labels.extxyz", ":")
    names = sorted({frame.info["source"] for frame in frames})
    runs = [[frame for frame in frames if frame.info["source"] == name] for name in names]
    alike, _ = moving_alike(runs)
    run_of = np.repeat(np.arange(len(runs)), [len(run) for run in runs])
    inside = alike[np.arange(len(frames)), run_of]
    assert inside.sum() == 4
    assert alike.sum() == inside.sum()


def test_ten_thousand_frames_of_two_hundred_atoms_are_compared_within_seconds():
    rng = np.random.default_rng(0)
    perfect = rocksalt_lif((5, 5, 1), rattle_A=0)
    frames = []
    for _ in range(2_000):
        frames.append(perfect.copy())
        frames[-1].positions += 0.1 * rng.normal(size=perfect.positions.shape)
    frames.append(frames[7][rng.permutation(len(perfect))])
    sets = {"train": frames[:1500], "valid": frames[1500:1800], "test": frames[1800:]}
    started = time.process_time()
    with pytest.raises(InputError, match="a frame is in both train and test"):
        splits.refuse_leakage(sets, gap_frames=0)
    # a fifth of 10,000 frames, which take 5 s
    assert time.process_time() - started < 4


def test_every_pair_of_sets_is_looked_at():
    a, b, c = labelled_set(trajectories=3, frames_each=1, compositions=("bulk",))
    sets = {"train": [a], "valid": [b], "test": [c]}
    for one, two in combinations(sets, 2):
        with pytest.raises(InputError, match=f"both {one} and {two}"):
            splits.refuse_leakage(sets | {two: [*sets[two], *sets[one]]}, gap_frames=0)
