"""MACE in every strategy on a few tiny frames: what was trained, what stayed, and what comes out of it."""

import numpy as np
import pytest
import torch
from small import write_potential
from trainings import REPLAY, make_task, sprung, tiny_mace

from hopline import frames
from hopline.console import InputError
from hopline.finetuning import guards, loop, mace, task
from hopline.potentials.calculator import load_calculator

FLOAT64_ENERGY_EV = 1e-8
FINETUNES = ("naive", "freeze", "lora", "replay", "pseudolabel-replay")

pytestmark = pytest.mark.slow


def load(folder, outcome):
    """Write an outcome's model and return its calculator."""
    folder.mkdir(exist_ok=True)
    outcome.save(folder / "model.pt")
    return load_calculator(write_potential(folder, folder / "model.pt", family="mace", dtype=outcome.dtype))


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """A model of Li, F, Na and Cl on softer springs."""
    folder = tmp_path_factory.mktemp("parent")
    train = [
        *sprung(6, stiffness=1.0, first_seed=20),
        *sprung(6, stiffness=1.0, species=("Na", "Cl"), first_seed=30),
    ]
    one = make_task(folder / "work", "scratch", tiny_mace("scratch", epochs=6), train=train)
    calculator = load(folder, mace.run(one))
    return task.Parent(folder / "model.pt", "float64", calculator)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, parent):
    """A fine-tuning by each strategy."""
    made = {}
    for strategy in FINETUNES:
        folder = tmp_path_factory.mktemp(strategy)
        replay = REPLAY if "replay" in strategy else ()
        one = make_task(folder / "work", strategy, tiny_mace(strategy), parent=parent, replay=replay)
        task.check(one)
        outcome = mace.run(one)
        made[strategy] = (outcome, load(folder, outcome))
    return made


def test_the_exported_model_is_the_best_epoch_and_its_references_fit(tmp_path):
    one = make_task(tmp_path / "work", "scratch", tiny_mace("scratch"))
    outcome = mace.run(one)
    assert tuple(outcome.history.columns) == loop.HISTORY
    assert outcome.history["epoch"].tolist() == [0, 1, 2, 3]
    assert outcome.best_epoch == outcome.history["valid_loss"].idxmin()
    calculator = load(tmp_path, outcome)
    best = outcome.history.iloc[outcome.best_epoch]
    assert guards.refuse_other_epoch(
        calculator,
        one.sets.valid,
        best["valid_force_rmse_meV_per_A"],
        epoch=outcome.best_epoch,
        dtype="float64",
    ) == pytest.approx(best["valid_force_rmse_meV_per_A"], rel=1e-9)
    # the references were moved: on the training frames nothing is left on average, whatever the loss left behind
    assert np.mean(guards.energy_residuals(calculator, one.sets.train)) == pytest.approx(
        0, abs=FLOAT64_ENERGY_EV
    )
    assert outcome.proofs["frames_per_epoch"] == {"Default": 12}


def test_isolated_atoms_stay_what_they_are(tmp_path):
    isolated = {"isolated_atom_energies_eV": {"Li": -1.7, "F": -2.9}}
    recipe = tiny_mace("scratch", atom_energies="isolated")
    outcome = mace.run(make_task(tmp_path / "work", "scratch", recipe, dataset=isolated))
    assert outcome.atom_energies_eV == pytest.approx(isolated["isolated_atom_energies_eV"])
    with pytest.raises(InputError, match="no isolated atoms"):
        mace.run(make_task(tmp_path / "other", "scratch", recipe))


@pytest.mark.parametrize("strategy", FINETUNES)
def test_a_finetuning_starts_at_its_parent_and_leaves_one_head(outcomes, strategy):
    outcome, calculator = outcomes[strategy]
    assert outcome.proofs["before_training_vs_parent"]["eV_per_A"] < 1e-9
    assert outcome.proofs["exported_vs_trained"]["eV_per_A"] < 1e-6
    assert outcome.history["valid_loss"].iloc[-1] < outcome.history["valid_loss"].iloc[0]
    assert len(calculator.model.heads) == 1
    assert not [name for name, _ in calculator.model.named_parameters() if "lora" in name]
    # elements that the labels lack are still there
    assert calculator.model.atomic_numbers.tolist() == [3, 9, 11, 17]


def changed(parent, calculator):
    """Return the parts of the model whose numbers differ from the parent's, but for the atomic energies."""
    before, after = parent.calculator.model.state_dict(), calculator.model.state_dict()
    assert before.keys() == after.keys()
    different = {
        name.split(".")[0] for name in before if not torch.equal(before[name].cpu(), after[name].cpu())
    }
    return different - {"atomic_energies_fn"}


def test_each_strategy_trains_what_it_says(outcomes, parent):
    everything = {"node_embedding", "interactions", "products", "readouts"}
    assert changed(parent, outcomes["naive"][1]) == everything
    assert changed(parent, outcomes["freeze"][1]) == {"products", "readouts"}
    assert changed(parent, outcomes["lora"][1]) >= {"interactions", "readouts"}


def test_replay_frames_are_trained_on(outcomes):
    for strategy in ("replay", "pseudolabel-replay"):
        assert outcomes[strategy][0].proofs["frames_per_epoch"] == {"Default": 12, "pt_head": 8}
        assert outcomes[strategy][0].history["replay_force_rmse_meV_per_A"].notna().all()
    # labelled by the parent itself, replay frames show no error before the training
    pseudo = outcomes["pseudolabel-replay"][0].history["replay_force_rmse_meV_per_A"]
    assert pseudo.iloc[0] < 1e-3
    assert outcomes["naive"][0].history["replay_force_rmse_meV_per_A"].isna().all()


def test_the_next_attempt_takes_the_pseudolabels_that_are_there(tmp_path, parent, capsys):
    recipe = tiny_mace("pseudolabel-replay", epochs=1)
    histories = []
    for _ in range(2):
        one = make_task(tmp_path / "work", "pseudolabel-replay", recipe, parent=parent, replay=REPLAY)
        histories.append(mace.run(one).history["replay_force_rmse_meV_per_A"].tolist())
        (tmp_path / "work" / loop.STATE).unlink()  # killed before its first epoch was done
    said = capsys.readouterr().err
    for n_frames in (8, 3):
        assert said.count(f"{n_frames} of {n_frames} frames have theirs from an earlier attempt") == 1
    assert histories[0] == histories[1]


def test_labels_are_repeated_where_replay_outnumbers_them(tmp_path, parent):
    recipe = tiny_mace("replay", epochs=1, min_finetune_ratio=2.9)
    one = make_task(tmp_path / "work", "replay", recipe, parent=parent, replay=REPLAY)
    # 12 labels to 8 replay frames make a ratio of 1.5: once more, as 2.9 / 1.5 is rounded down
    assert mace.run(one).proofs["frames_per_epoch"] == {"Default": 24, "pt_head": 8}


def test_labels_counted_from_other_atoms_are_refused(tmp_path, parent):
    dataset = {"isolated_atom_energies_eV": {"Li": 5.0, "F": -2.9}}
    recipe = tiny_mace("naive", atom_energies="isolated")
    with pytest.raises(InputError, match=r"wrong by \d\.\d+ eV/atom \(isolated atomic references\)"):
        mace.run(make_task(tmp_path / "work", "naive", recipe, parent=parent, dataset=dataset))


@pytest.mark.parametrize("strategy", ["naive", "lora", "replay"])
def test_labels_of_a_code_that_counts_otherwise_start_where_the_parent_is(tmp_path, parent, strategy):
    """Upstream silently takes over the parent's references where all its elements are kept: 300 eV/atom off at once."""
    train, valid = sprung(12), sprung(4, first_seed=50)
    for atoms in (*train, *valid):
        atoms.info[frames.ENERGY] += 4 * -190.0 + 4 * -675.0
    replay = REPLAY if strategy == "replay" else ()
    recipe = tiny_mace(strategy, epochs=1)
    one = make_task(
        tmp_path / "work", strategy, recipe, parent=parent, train=train, valid=valid, replay=replay
    )
    outcome = mace.run(one)
    assert outcome.history["valid_energy_rmse_meV_per_atom"].max() < 500
    assert outcome.proofs["before_training_vs_parent"]["eV_per_atom"] < 1e-6
    calculator = load(tmp_path / "out", outcome)
    assert np.mean(guards.energy_residuals(calculator, train)) == pytest.approx(0, abs=1e-6)


def test_a_loss_that_is_no_number_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"loss is no longer a finite number in epoch \d"):
        mace.run(make_task(tmp_path / "work", "scratch", tiny_mace("scratch", learning_rate=1e200)))
    train = sprung(12)
    train[3].arrays[frames.FORCES][0, 0] = 1e200
    with pytest.raises(InputError, match=r"loss is no.* finite number"):
        mace.run(make_task(tmp_path / "work", "scratch", tiny_mace("scratch"), train=train))


def test_what_cannot_train_is_refused_before_anything_runs(tmp_path):
    cases = (
        (tiny_mace("scratch", batch_size=13), {}, "12 training frames do not fill one batch of 13"),
        (
            tiny_mace("scratch"),
            {"train": sprung(12, species=("Li", "Cl"))},
            "validation frames hold F, which no training frame has",
        ),
    )
    for recipe, changes, message in cases:
        with pytest.raises(InputError, match=message):
            mace.run(make_task(tmp_path / "work", "scratch", recipe, **changes))


def test_multi_head_training_has_upstreams_loss_or_none(tmp_path, parent):
    one = make_task(tmp_path / "w", "replay", tiny_mace("replay", loss="mse"), parent=parent, replay=REPLAY)
    with pytest.raises(InputError, match="say loss universal"):
        mace.run(one)


def test_weights_hidden_in_a_frame_do_not_reach_the_training(tmp_path):
    """Upstream takes config_weight, head and the like from ``info``: somebody's file must not weigh what it likes."""
    plain = mace.run(make_task(tmp_path / "a", "scratch", tiny_mace("scratch", epochs=1)))
    train = sprung(12)
    for atoms in train:
        atoms.info |= {
            "config_weight": 5.0,
            "config_energy_weight": 0.0,
            "head": "pt_head",
            "config_type": "hot",
        }
    weighted = mace.run(make_task(tmp_path / "b", "scratch", tiny_mace("scratch", epochs=1), train=train))
    assert weighted.history["valid_loss"].tolist() == plain.history["valid_loss"].tolist()


def test_nothing_of_upstreams_settings_stays_in_the_process(tmp_path):
    import logging

    handlers = list(logging.getLogger().handlers)
    mace.run(make_task(tmp_path / "work", "scratch", tiny_mace("scratch", epochs=1)))
    assert torch.get_default_dtype() == torch.float32
    assert logging.getLogger().handlers == handlers
    assert "Learning rate: 0.01" in (tmp_path / "work" / "mace.log").read_text()
