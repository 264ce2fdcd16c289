"""One head of a foundation model is a parent like any other: what upstream builds begins at its forces."""

import pytest
from foundations import head_as_parent
from trainings import REPLAY, make_task, tiny_mace

from hopline.console import InputError
from hopline.finetuning import mace, task
from hopline.finetuning.pseudolabels import pseudolabelled
from hopline.potentials import mace as shipped

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """The second head of a two-head model, exported."""
    return head_as_parent(tmp_path_factory.mktemp("parent"))


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
