"""Epochs on a parabola, whose minimum is known, stopped and killed at every place."""

import math
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hopline.console import InputError, Stopped
from hopline.finetuning import loop
from hopline.stopping import stoppable

IDENTITY = {"learning_rate": 0.1, "train": "abc"}
MINIMUM = 3.0


class Parabola:
    """Descend f(x) = (x - 3)^2 with noisy slopes; without noise x_n = 3 - 3 (1 - 2 rate)^n.

    ``happens`` maps an epoch to what is called in its midst.
    """

    def __init__(self, rate=0.1, noise=0.0, happens=None):
        self.x, self.rate, self.noise, self.happens = torch.zeros(1), rate, noise, happens or {}
        self.random, self.epoch = torch.Generator().manual_seed(7), 0

    def learning_rate(self):
        """Return a numpy number, as learners may."""
        return np.float64(self.rate)

    def train_epoch(self):
        """Take one step, in the second of two batches."""
        self.epoch += 1
        for batch in loop.until_stopped(range(2)):
            if batch == 1:
                self.happens.get(self.epoch, lambda: None)()
                slope = 2 * (self.x - MINIMUM) + self.noise * torch.randn(1, generator=self.random)
                self.x = self.x - self.rate * slope
        return np.float64((self.x - MINIMUM) ** 2)

    def validate(self):
        """Return the height above the minimum for every error."""
        loss = float((self.x - MINIMUM) ** 2)
        return {
            "valid_loss": loss,
            "valid_energy_rmse_meV_per_atom": loss,
            "valid_force_rmse_meV_per_A": loss,
        }

    def weights(self):
        """Return the place."""
        return {"x": self.x.clone()}

    def state(self):
        """Return place, random state and epoch."""
        return {"x": self.x, "random": self.random.get_state(), "epoch": self.epoch}

    def restore(self, state):
        """Go back."""
        self.x, self.epoch = state["x"], state["epoch"]
        self.random.set_state(state["random"])


def train(folder, learner, *, epochs=8, patience_epochs=100, identity=IDENTITY):
    return loop.run_epochs(
        learner, Path(folder), epochs=epochs, patience_epochs=patience_epochs, identity=identity
    )


def numbers(history):
    """Return a history without the time it took."""
    return history.drop(columns="wall_time_s")


class CutOffError(Exception):
    """Stands for whatever ends a process."""


def cut_off():
    raise CutOffError


def test_the_history_is_the_closed_form(tmp_path):
    best = train(tmp_path, Parabola())
    known = [9 * 0.8 ** (2 * epoch) for epoch in range(9)]
    assert tuple(best.history.columns) == loop.HISTORY
    assert best.history["epoch"].tolist() == list(range(9))
    np.testing.assert_allclose(best.history["valid_loss"], known, rtol=1e-5)
    np.testing.assert_allclose(best.history["train_loss"], [np.nan, *known[1:]], rtol=1e-5)
    assert best.history["replay_force_rmse_meV_per_A"].isna().all()
    assert best.epoch == 8
    assert float(best.weights["x"]) == pytest.approx(3 - 3 * 0.8**8)
    written = pd.read_csv(tmp_path / loop.CURVE)
    pd.testing.assert_frame_equal(written, best.history.astype(written.dtypes), check_exact=False)


@pytest.mark.parametrize("cut_off_in", range(1, 9))
def test_cut_off_in_any_epoch_it_ends_as_if_unbroken(tmp_path, cut_off_in, capsys):
    unbroken = train(tmp_path / "unbroken", Parabola(noise=2.0))
    with pytest.raises(CutOffError):
        train(tmp_path / "broken", Parabola(noise=2.0, happens={cut_off_in: cut_off}))
    capsys.readouterr()
    resumed = train(tmp_path / "broken", Parabola(noise=2.0))
    assert f"going on after epoch {cut_off_in - 1} of 8" in capsys.readouterr().err
    pd.testing.assert_frame_equal(numbers(resumed.history), numbers(unbroken.history), check_exact=True)
    assert resumed.epoch == unbroken.epoch
    assert torch.equal(resumed.weights["x"], unbroken.weights["x"])
    assert resumed.history["wall_time_s"].is_monotonic_increasing


def test_a_training_that_is_done_is_not_trained_again(tmp_path):
    first = train(tmp_path, Parabola())
    again = train(tmp_path, Parabola(happens=dict.fromkeys(range(20), cut_off)))
    pd.testing.assert_frame_equal(again.history, first.history, check_exact=True)


def test_the_best_epoch_is_not_the_last_where_it_gets_worse(tmp_path):
    """With a rate above one each step goes over the minimum and farther: the first model is the best."""
    best = train(tmp_path, Parabola(rate=1.1), epochs=3)
    assert best.history["valid_loss"].is_monotonic_increasing
    assert best.epoch == 0
    assert float(best.weights["x"]) == 0.0


@pytest.mark.parametrize("patience_epochs", [1, 3])
def test_it_stops_early_and_stays_stopped(tmp_path, patience_epochs, capsys):
    best = train(tmp_path, Parabola(rate=1.1), patience_epochs=patience_epochs)
    assert best.history["epoch"].tolist() == list(range(patience_epochs + 1))
    assert f"no lower validation loss in the {patience_epochs} epochs since 0" in capsys.readouterr().err
    again = train(tmp_path, Parabola(rate=1.1, happens={9: cut_off}), patience_epochs=patience_epochs)
    pd.testing.assert_frame_equal(again.history, best.history, check_exact=True)


def test_a_state_of_another_training_is_not_used(tmp_path, capsys):
    train(tmp_path, Parabola())
    other = train(tmp_path, Parabola(rate=0.2), identity=IDENTITY | {"learning_rate": 0.2})
    assert "of a training with other settings or data: starting from the first" in capsys.readouterr().err
    assert other.history["learning_rate"].tolist() == [0.2] * 9
    assert other.history["valid_loss"].iloc[1] == pytest.approx(9 * 0.6**2)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_state_starts_anew_and_says_so(tmp_path, share, capsys):
    unbroken = train(tmp_path, Parabola())
    state = tmp_path / loop.STATE
    content = state.read_bytes()
    state.write_bytes(content[: int(share * len(content))])
    again = train(tmp_path, Parabola())
    assert "cannot be read" in capsys.readouterr().err
    pd.testing.assert_frame_equal(numbers(again.history), numbers(unbroken.history), check_exact=True)


def test_a_state_of_something_else_starts_anew(tmp_path, capsys):
    """Text, another torch file, and a pickle that would run code."""
    made = [b"weights", b"\x80\x02cos\nsystem\nX\x0c\x00\x00\x00touch hacked\x85R."]
    torch.save({"x": 1}, tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    made += [(tmp_path / name).read_bytes() for name in ("other.pt", "list.pt")]
    for content in made:
        (tmp_path / loop.STATE).write_bytes(content)
        assert train(tmp_path, Parabola()).epoch == 8
        assert "cannot be read" in capsys.readouterr().err
    assert not Path("hacked").exists()


@pytest.mark.parametrize("rate", [math.nan, 1e30])
def test_a_loss_that_is_no_number_is_refused(tmp_path, rate):
    with pytest.raises(
        InputError, match=r"loss is no longer a finite number in epoch \d: lower training.learning"
    ):
        train(tmp_path, Parabola(rate=rate))


def test_a_parent_whose_loss_is_no_number_is_refused(tmp_path):
    learner = Parabola()
    learner.x = torch.full((1,), torch.nan)
    with pytest.raises(InputError, match="before any training"):
        train(tmp_path, learner)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_within_an_epoch_it_goes_on_from_the_one_before(tmp_path, number):
    """The first batch of the epoch sends the signal, so the second is not begun."""

    def ask():
        os.kill(os.getpid(), number)

    class Asked(Parabola):
        def train_epoch(self):
            """Be asked before the fourth epoch."""
            if self.epoch == 3:
                ask()
            return super().train_epoch()

    unbroken = train(tmp_path / "unbroken", Parabola(noise=2.0))
    with stoppable(), pytest.raises(Stopped, match="asked to stop: the same command goes on"):
        train(tmp_path / "stopped", Asked(noise=2.0))
    assert len(pd.read_csv(tmp_path / "stopped" / loop.CURVE)) == 4
    resumed = train(tmp_path / "stopped", Parabola(noise=2.0))
    pd.testing.assert_frame_equal(numbers(resumed.history), numbers(unbroken.history), check_exact=True)


def test_asked_to_stop_in_the_last_batch_the_epoch_is_kept(tmp_path):
    def ask():
        os.kill(os.getpid(), signal.SIGTERM)

    with stoppable(), pytest.raises(Stopped, match="after epoch 3: the same command goes on from there"):
        train(tmp_path, Parabola(happens={3: ask}))
    assert len(pd.read_csv(tmp_path / loop.CURVE)) == 4
    with stoppable():
        # a stop in the last epoch of all is no stop: the work is done
        assert train(tmp_path, Parabola(happens={8: ask})).epoch == 8


def test_a_full_disk_leaves_the_earlier_state(tmp_path):
    """The process may write no file beyond 1 kB from epoch 3 on, as on a disk that is full."""
    unbroken = train(tmp_path / "unbroken", Parabola(noise=2.0))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))

    # Python ignores SIGXFSZ, so a write beyond the limit is an OSError
    try:
        with pytest.raises(OSError, match="File too large"):
            train(tmp_path / "full", Parabola(noise=2.0, happens={3: fill}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sorted(path.name for path in (tmp_path / "full").iterdir()) == [loop.STATE, loop.CURVE]
    resumed = train(tmp_path / "full", Parabola(noise=2.0))
    pd.testing.assert_frame_equal(numbers(resumed.history), numbers(unbroken.history), check_exact=True)
