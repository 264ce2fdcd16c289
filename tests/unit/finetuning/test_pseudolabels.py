"""The parent's labels of replay frames: its own, kept over a kill, never another parent's or other frames'."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from small import Springs, rocksalt_lif

from hopline import stopping
from hopline.console import Stopped
from hopline.finetuning.pseudolabels import LOT_FRAMES, pseudolabelled
from hopline.finetuning.task import Parent
from hopline.frames import ENERGY, FORCES, STRESS

N_FRAMES = 2 * LOT_FRAMES + 7
SITES = rocksalt_lif(rattle_A=0).positions


class Counted(Springs):
    """Springs that count the frames they are asked for."""

    calls = 0

    def calculate(self, *arguments, **named):
        """Count and compute."""
        self.calls += 1
        super().calculate(*arguments, **named)


def parent_of(folder, stiffness=2.0, model=b"model"):
    folder.mkdir(exist_ok=True)
    (folder / "model.pt").write_bytes(model)
    return Parent(folder / "model.pt", "float64", Counted(SITES, stiffness=stiffness))


def replay(n_frames=N_FRAMES, first=0):
    return [rocksalt_lif(seed=seed) for seed in range(first, first + n_frames)]


def same(one, other):
    """Tell whether two sets have the same labels to the last bit."""
    return all(
        a.info[ENERGY] == b.info[ENERGY]
        and np.array_equal(a.info[STRESS], b.info[STRESS])
        and np.array_equal(a.arrays[FORCES], b.arrays[FORCES])
        for a, b in zip(one, other, strict=True)
    )


def test_labels_are_the_parents(tmp_path):
    made = pseudolabelled(replay(), parent_of(tmp_path), tmp_path / "work")
    for before, atoms in zip(replay(), made, strict=True):
        np.testing.assert_array_equal(atoms.positions, before.positions)
        moved = before.positions - SITES
        np.testing.assert_allclose(atoms.arrays[FORCES], -2.0 * moved, rtol=1e-12)
        assert atoms.info[ENERGY] == pytest.approx((moved**2).sum())
        assert atoms.info[STRESS].shape == (9,)
        assert atoms.info["level_of_theory"] == "pseudolabels of the parent"


def test_a_second_attempt_computes_nothing_and_has_the_same_bits(tmp_path, capsys):
    parent, again = parent_of(tmp_path), parent_of(tmp_path)
    first = pseudolabelled(replay(), parent, tmp_path / "work")
    assert parent.calculator.calls == N_FRAMES
    assert "earlier attempt" not in capsys.readouterr().err
    assert same(pseudolabelled(replay(), again, tmp_path / "work"), first)
    assert again.calculator.calls == 0
    assert f"{N_FRAMES} of {N_FRAMES} frames have theirs from an earlier attempt" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["removed", "cut off", "another file"])
def test_a_lot_that_is_gone_or_damaged_is_labelled_again(tmp_path, damage):
    first = pseudolabelled(replay(), parent_of(tmp_path), tmp_path / "work")
    path = min((tmp_path / "work").iterdir(), key=lambda one: one.stat().st_mtime_ns)
    if damage == "removed":
        path.unlink()
    elif damage == "cut off":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.write_text("something else")
    again = parent_of(tmp_path)
    assert same(pseudolabelled(replay(), again, tmp_path / "work"), first)
    assert again.calculator.calls == LOT_FRAMES


def test_labels_of_another_parent_or_of_other_frames_are_never_taken(tmp_path):
    pseudolabelled(replay(), parent_of(tmp_path / "one"), tmp_path / "work")
    other = parent_of(tmp_path / "other", stiffness=3.0, model=b"other")
    made = pseudolabelled(replay(), other, tmp_path / "work")
    assert other.calculator.calls == N_FRAMES
    np.testing.assert_allclose(made[0].arrays[FORCES], -3.0 * (replay()[0].positions - SITES), rtol=1e-12)
    shifted = parent_of(tmp_path / "one")
    made = pseudolabelled(replay(first=1), shifted, tmp_path / "work")
    assert shifted.calculator.calls == N_FRAMES
    last = replay(1, first=N_FRAMES)[0]
    np.testing.assert_allclose(made[-1].arrays[FORCES], -2.0 * (last.positions - SITES), rtol=1e-12)


def test_who_asks_to_stop_keeps_the_lots_that_are_done(tmp_path):
    class Stopping(Counted):
        def calculate(self, *arguments, **named):
            super().calculate(*arguments, **named)
            if self.calls == LOT_FRAMES + 3:
                os.kill(os.getpid(), signal.SIGTERM)

    parent = parent_of(tmp_path)
    with pytest.raises(Stopped), stopping.stoppable():
        pseudolabelled(replay(), Parent(parent.model_file, "float64", Stopping(SITES)), tmp_path / "work")
    pseudolabelled(replay(), parent, tmp_path / "work")
    assert parent.calculator.calls == N_FRAMES - LOT_FRAMES


KILLED = """
import sys, time
from pathlib import Path
from test_pseudolabels import Counted, parent_of, pseudolabelled, replay

class Slow(Counted):
    def calculate(self, *arguments, **named):
        time.sleep(0.01)
        super().calculate(*arguments, **named)

parent = parent_of(Path(sys.argv[1]))
parent.calculator.__class__ = Slow
pseudolabelled(replay(), parent, Path(sys.argv[1]) / "work")
"""


def test_a_killed_attempt_costs_the_lot_that_it_was_at(tmp_path, repository):
    places = ("scripts", "tests", "tests/unit/finetuning")
    environment = os.environ | {"PYTHONPATH": ":".join(str(repository / place) for place in places)}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], env=environment)
    work, deadline_s = tmp_path / "work", time.monotonic() + 60
    while not list(work.glob("pseudolabels-*.npz")):
        assert time.monotonic() < deadline_s
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    done = len(list(work.glob("pseudolabels-*.npz")))
    assert done in {1, 2}
    parent = parent_of(tmp_path)
    unbroken = pseudolabelled(replay(), parent_of(tmp_path), tmp_path / "fresh")
    assert same(pseudolabelled(replay(), parent, work), unbroken)
    assert parent.calculator.calls == N_FRAMES - done * LOT_FRAMES
