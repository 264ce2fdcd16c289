"""One head of a foundation model is a parent like any other: what upstream builds begins at its forces."""

import pytest
import torch
from foundations import two_heads
from small import write_potential
from trainings import REPLAY, make_task, tiny_mace

from hopline.console import InputError
from hopline.finetuning import mace, task
from hopline.finetuning.pseudolabels import pseudolabelled
from hopline.potentials import mace as shipped
from hopline.potentials.calculator import load_calculator

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """The second head of a two-head model, exported."""
    folder = tmp_path_factory.mktemp("parent")
    torch.save(two_heads(), folder / "two.model")
    made = shipped.export_weights("two", folder / "one.pt", source=folder / "two.model", head="r2scan")
    card = write_potential(folder, folder / "one.pt", family="mace", dtype=made[0], head=made[1])
    return task.Parent(folder / "one.pt", made[0], load_calculator(card))


@pytest.mark.parametrize("strategy", ["naive", "replay"])
def test_a_finetuning_starts_at_the_head_that_was_taken(tmp_path, parent, strategy):
    # the head has random weights: only its own labels are of its settings
    replay = (
        tuple(pseudolabelled(part, parent, tmp_path / "labels") for part in REPLAY)
        if strategy == "replay"
        else ()
    )
    one = make_task(tmp_path / "work", strategy, tiny_mace(strategy), parent=parent, replay=replay)
    task.check(one)
    outcome = mace.run(one)
    assert outcome.proofs["before_training_vs_parent"]["eV_per_A"] < 1e-9
    outcome.save(tmp_path / "model.pt")
    assert len(shipped.heads_of(shipped.read_model(tmp_path / "model.pt"))) == 1


def test_replay_frames_of_other_settings_than_the_parents_are_refused(tmp_path, parent):
    one = make_task(tmp_path / "work", "replay", tiny_mace("replay"), parent=parent, replay=REPLAY)
    with pytest.raises(InputError, match=r"the replay frames are wrong by 3\d\.\d\d eV/atom on average"):
        mace.run(one)
