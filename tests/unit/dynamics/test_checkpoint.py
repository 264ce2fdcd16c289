"""Checkpoints: bit for bit, whole or not at all, and the newest that a batch has in common."""

import math

import numpy as np
import pytest

from hopline.dynamics import checkpoint

VALUES = {"noise": {"state": 2**127 + 1}, "third": 1 / 3, "nothing": None, "never": math.inf}


def saved(step, *, identity="mine", moment=None, ended=False):
    moment = moment or checkpoint.Moment("of one start", step)
    arrays = {"positions_A": np.random.default_rng(step).normal(size=(5, 3)), "extra/x": np.array([np.nan])}
    return checkpoint.Checkpoint(step, identity, moment, ended, arrays, VALUES)


def fill(folder, *steps, ends=None):
    folder.mkdir()
    for step in steps:
        checkpoint.write(folder, saved(step, ended=step == ends))
    return folder


def common(*folders, identity="mine", n_steps=1000):
    n = len(folders)
    found = checkpoint.read_common(folders, [identity] * n, [n_steps] * n)
    return [one and one.step for one in found]


def test_what_is_written_comes_back_bit_for_bit(tmp_path):
    [back] = checkpoint.read_common([fill(tmp_path / "a", 7)], ["mine"], [1000])
    known = saved(7)
    assert (back.step, back.identity, back.ended) == (7, "mine", False)
    assert back.moment == known.moment
    assert back.values == known.values
    assert back.arrays.keys() == known.arrays.keys()
    for name, array in known.arrays.items():
        assert back.arrays[name].tobytes() == array.tobytes()
        assert back.arrays[name].dtype == array.dtype


def test_a_batch_goes_on_from_the_newest_moment_that_all_have(tmp_path):
    first, second = fill(tmp_path / "a", 10, 20), fill(tmp_path / "b", 10)
    assert common(first, second) == [10, 10]
    assert common(first) == [20]
    # put together anew: each from its own
    assert common(first, fill(tmp_path / "c", 15)) == [20, 15]
    assert common(first, fill(tmp_path / "d")) == [20, None]


@pytest.mark.parametrize(
    ("others", "expected"),
    [((10, 20), [20, 15]), ((10,), [10, 10]), ((10, 15), [15, 15]), ((12, 20), [20, 15])],
)
def test_one_that_exploded_has_all_later_steps_in_common(tmp_path, others, expected):
    """It was in the batch up to step 15: who goes on from before that goes on with it."""
    assert common(fill(tmp_path / "a", *others), fill(tmp_path / "b", 10, 15, ends=15)) == expected


def test_replicas_of_different_steps_go_on_from_one_moment(tmp_path):
    """The batch began at steps 30 and 0 and was killed when the first had its second checkpoint, or its last."""
    for name, steps in {"ahead": {30: 0, 70: 40, 90: 60}, "behind": {0: 0, 40: 40}}.items():
        (tmp_path / name).mkdir()
        for step, advanced in steps.items():
            checkpoint.write(tmp_path / name, saved(step, moment=checkpoint.Moment("grown", advanced)))
    folders = tmp_path / "ahead", tmp_path / "behind"
    assert common(*folders) == [70, 40]
    # at its end it has all later moments
    assert common(*folders, n_steps=90) == [70, 40]
    checkpoint.write(folders[1], saved(80, moment=checkpoint.Moment("grown", 80)))
    assert common(*folders, n_steps=90) == [90, 80]
    # another batch's, or of before it had grown: no moment is common
    checkpoint.write(folders[1], saved(120, moment=checkpoint.Moment("another", 60)))
    assert common(*folders, n_steps=200) == [70, 40]
    checkpoint.forget_others(folders[1], 120)
    assert common(*folders, n_steps=200) == [90, 120]


def test_one_that_was_over_before_stays_out_of_it(tmp_path):
    finished, exploded = fill(tmp_path / "a", 100), fill(tmp_path / "b", 90, ends=90)
    others = fill(tmp_path / "c", 40), fill(tmp_path / "d", 40, 60)
    assert common(finished, exploded, *others, n_steps=100) == [100, 90, 40, 40]
    # killed while all wrote their last
    assert common(fill(tmp_path / "e", 80, 100), fill(tmp_path / "f", 80), n_steps=100) == [80, 80]


def test_others_runs_and_damaged_files_do_not_count(tmp_path, capsys):
    folder = fill(tmp_path / "a", 10, 20)
    assert common(folder, identity="another") == [None]
    newest = max(folder.iterdir())
    whole = newest.read_bytes()
    for n_bytes in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        newest.write_bytes(whole[:n_bytes])
        assert common(folder) == [10]
        assert newest.name in capsys.readouterr().err
    np.savez(newest, head=np.array("{}"))
    assert common(folder) == [10]


def test_a_pickle_in_its_place_is_not_opened(tmp_path):
    folder = fill(tmp_path / "a", 10)
    [path] = folder.iterdir()
    np.savez(path, head=np.array([print], dtype=object), allow_pickle=True)
    assert common(folder) == [None]


def test_only_the_others_are_forgotten(tmp_path):
    folder = fill(tmp_path / "a", 10, 20, 30)
    checkpoint.forget_others(folder, 20)
    assert common(folder) == [20]
