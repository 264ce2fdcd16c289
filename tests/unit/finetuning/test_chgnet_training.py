"""CHGNet in every strategy, trained on its own labels, shifted by a known amount an element or made harder."""

import math
import multiprocessing
import os
import random
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from small import LIF_A, label, write_potential
from trainings import make_recipe, make_task

from hopline import frames
from hopline.console import InputError, Stopped
from hopline.finetuning import chgnet as training
from hopline.finetuning import loop, task
from hopline.finetuning.chgnet_learner import ChgnetLearner, examples, graphs_of
from hopline.potentials import chgnet
from hopline.potentials.calculator import load_calculator
from hopline.potentials.evaluation import evaluate
from hopline.stopping import stoppable
from hopline.units import GPA_PER_EV_PER_A3

SHIFTS_EV = {"Li": 1.25, "F": -3.5}
HARDER = 1.3
"""Forces that many times larger leave something to learn."""


pytestmark = pytest.mark.slow


def labelled_by(calculator, n_frames, *, compound, lattice_A, shifts_eV, first_seed=0, harder=1.0):
    """Return frames of 4 or 3 atoms (one away), labelled by a calculator with shifted zeros of energy."""
    made = []
    for seed in range(first_seed, first_seed + n_frames):
        atoms = bulk(compound, "rocksalt", a=lattice_A).repeat((1, 1, 2))
        atoms.rattle(0.08, seed=seed)
        if seed % 3:
            del atoms[seed % 2]
        atoms.calc = calculator
        energy_eV = atoms.get_potential_energy() + sum(shifts_eV.get(symbol, 0) for symbol in atoms.symbols)
        made.append(
            label(
                atoms.copy(), energy_eV=energy_eV, forces=harder * atoms.get_forces(),
                stress=atoms.get_stress(voigt=False), composition=str(atoms.symbols), source=str(seed),
            )
        )  # fmt: skip
    return made


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    path = tmp_path_factory.mktemp("parent") / "model.pt"
    chgnet.export_weights("0.3.0", path, source=None, head=None)
    calculator = chgnet.load_calculator(path, dtype=chgnet.DTYPE, head=None)
    return task.Parent(path, chgnet.DTYPE, calculator)


@pytest.fixture(scope="module")
def easy(parent):
    """Twelve frames that the parent knows but for the zeros of energy."""
    return labelled_by(parent.calculator, 12, compound="LiF", lattice_A=LIF_A, shifts_eV=SHIFTS_EV)


@pytest.fixture(scope="module")
def hard(parent):
    return labelled_by(
        parent.calculator, 12, compound="LiF", lattice_A=LIF_A, shifts_eV=SHIFTS_EV, harder=HARDER
    )


@pytest.fixture(scope="module")
def salt(parent):
    """Six replay frames of another compound, in the parent's own zero of energy."""
    return labelled_by(parent.calculator, 6, compound="NaCl", lattice_A=5.6, shifts_eV={}, first_seed=40)


def made_of(folder, parent, labelled, strategy="naive", replay=(), **settings):
    """Return a task: nine frames to train on, three to validate."""
    recipe = make_recipe("chgnet", strategy, **{"epochs": 2, "learning_rate": 1e-3} | settings)
    return make_task(
        folder, strategy, recipe, parent=parent, train=labelled[:9], valid=labelled[9:], replay=replay,
        epochs=recipe.epochs,
    )  # fmt: skip


def saved(folder, outcome):
    """Write an outcome and return the calculator of its card."""
    outcome.save(folder / "model.pt")
    return load_calculator(write_potential(folder, folder / "model.pt", dtype=outcome.dtype))


def test_labels_are_in_the_parents_zero_and_in_its_units():
    stress = np.array([[0.01, 0.002, 0.003], [0.002, -0.02, 0.004], [0.003, 0.004, 0.03]])
    atoms = label(
        bulk("LiF", "rocksalt", a=LIF_A), energy_eV=-9.0, forces=[[1, 2, 3], [-1, -2, -3]], stress=stress
    )
    made = examples(graphs_of(chgnet.load_shipped("0.3.0"), [atoms]), [atoms], np.array([-1.0]))[0].labels
    assert float(made.energies[0]) == pytest.approx(-4.0)
    np.testing.assert_allclose(made.forces, [[1, 2, 3], [-1, -2, -3]])
    # CHGNet predicts stress in GPa, positive under tension
    np.testing.assert_allclose(made.stresses[0], stress * GPA_PER_EV_PER_A3, rtol=1e-6)


def test_what_the_parent_knows_costs_nothing_and_the_exported_model_has_the_labels_zero(
    tmp_path, parent, easy
):
    """Energy, forces and stress arrive with their units and signs; patience ends what only makes it worse."""
    one = made_of(tmp_path / "work", parent, easy, epochs=9, patience_epochs=2)
    outcome = training.run(one)
    first = outcome.history.iloc[0]
    assert first["valid_loss"] < 1e-6
    assert first["valid_energy_rmse_meV_per_atom"] < 0.05
    assert first["valid_force_rmse_meV_per_A"] < 0.05
    assert first["valid_stress_rmse_GPa"] < 1e-3
    assert outcome.history["epoch"].tolist() == [0, 1, 2]
    assert outcome.best_epoch == 0
    assert outcome.proofs["reference_shifts_eV"] == pytest.approx(SHIFTS_EV, abs=1e-3)
    known = training.references_of(parent.calculator.model, SHIFTS_EV)
    assert outcome.atom_energies_eV == pytest.approx(
        {name: known[name] + SHIFTS_EV[name] for name in known}, abs=1e-3
    )
    written = task.write_model(outcome, tmp_path / "model.pt", "chgnet")["written_vs_trained"]
    assert max(written.values()) < 1e-4
    figures = evaluate(saved(tmp_path, outcome), easy, mobile="Li").figures
    assert figures["energy_rmse_meV_per_atom"] < 0.1
    assert figures["force_rmse_meV_per_A"] < 0.05


def test_the_exported_model_is_the_best_epoch(tmp_path, parent, hard):
    one = made_of(tmp_path / "work", parent, hard, epochs=3)
    outcome = training.run(one)
    history = outcome.history
    assert tuple(history.columns) == loop.HISTORY
    assert history["epoch"].tolist() == [0, 1, 2, 3]
    assert outcome.best_epoch == history["valid_loss"].idxmin() > 0
    figures = evaluate(saved(tmp_path, outcome), one.sets.valid, mobile="Li").figures
    best = history.iloc[outcome.best_epoch]
    assert figures["force_rmse_meV_per_A"] == pytest.approx(best["valid_force_rmse_meV_per_A"], rel=1e-4)
    assert figures["energy_rmse_meV_per_atom"] == pytest.approx(
        best["valid_energy_rmse_meV_per_atom"], rel=1e-3
    )
    assert figures["stress_rmse_GPa"] == pytest.approx(best["valid_stress_rmse_GPa"], rel=1e-3)
    assert outcome.proofs["frames_per_epoch"] == {"labels": 9}
    assert outcome.proofs["before_training_vs_parent"]["eV_per_A"] < 1e-4
    # the parent's own model is as it was
    assert (
        chgnet.load_shipped("0.3.0")
        .state_dict()["mlp.layers.0.weight"]
        .equal(parent.calculator.model.state_dict()["mlp.layers.0.weight"])
    )


def test_the_learning_rate_follows_a_cosine(tmp_path, parent, hard):
    outcome = training.run(
        made_of(tmp_path, parent, hard, epochs=4, learning_rate=1e-3, final_learning_rate_ratio=0.1)
    )
    known = [1e-3 * (0.1 + 0.9 * (1 + math.cos(math.pi * epoch / 4)) / 2) for epoch in range(5)]
    np.testing.assert_allclose(outcome.history["learning_rate"], known, rtol=1e-12)


def test_gradients_are_clipped(tmp_path, parent, hard):
    """Adam divides by the gradient's size plus 1e-8: gradients clipped far below that move nothing."""
    outcome = training.run(made_of(tmp_path, parent, hard, max_gradient_norm=1e-14))
    losses = outcome.history["valid_loss"].to_numpy()
    np.testing.assert_allclose(losses, losses[0], rtol=1e-4)


def changed(parent, calculator):
    """Return the names of weights that differ from the parent's, but for the atomic references."""
    before, after = parent.calculator.model.state_dict(), calculator.model.state_dict()
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])} - {
        "composition_model.fc.weight"
    }


def test_each_strategy_trains_what_it_says(tmp_path, parent, hard):
    naive = changed(parent, saved(tmp_path, training.run(made_of(tmp_path / "a", parent, hard))))
    some = changed(
        parent, saved(tmp_path, training.run(made_of(tmp_path / "b", parent, hard, "frozen-embeddings")))
    )
    free = ("atom_conv_layers.3.", "bond_weights_ag.", "bond_weights_bg.", "readout_norm.", "mlp.")
    # magnetic moments have no labels, and nothing reads what the last angle update gives
    names = {
        name
        for name in dict(parent.calculator.model.named_parameters())
        if not name.startswith(("site_wise.", "angle_layers.2.", "composition_model."))
    }
    assert naive == names
    assert some == {name for name in names if name.startswith(free)}


def test_replay_frames_are_trained_on_in_the_parents_zero(tmp_path, parent, easy, salt):
    one = made_of(
        tmp_path / "a", parent, easy, "mixed-replay", replay=(salt[:4], salt[4:]), learning_rate=1e-12
    )
    task.check(one)
    outcome = training.run(one)
    assert outcome.proofs["frames_per_epoch"] == {"labels": 9, "replay": 4}
    # neither labels nor replay frames leave anything to learn: one zero of energy holds for both
    assert outcome.history["train_loss"].iloc[1] < 1e-6
    assert outcome.history["replay_force_rmse_meV_per_A"].iloc[0] < 0.05
    harder = [atoms.copy() for atoms in salt]
    for atoms in harder:
        atoms.arrays[frames.FORCES] *= HARDER
    known = np.sqrt(np.mean(np.concatenate([salt[row].arrays[frames.FORCES].ravel() for row in (4, 5)]) ** 2))
    one = made_of(tmp_path / "b", parent, easy, "mixed-replay", replay=(harder[:4], harder[4:]))
    outcome = training.run(one)
    # the replay's errors stand in their own column and choose no epoch
    assert outcome.history["replay_force_rmse_meV_per_A"].iloc[0] == pytest.approx(
        1e3 * (HARDER - 1) * known, rel=1e-3
    )
    assert outcome.history["valid_loss"].iloc[0] < 1e-6
    assert outcome.history["replay_force_rmse_meV_per_A"].iloc[-1] < 1e3 * (HARDER - 1) * known


def test_frames_without_stress_are_trained_on_without_it(tmp_path, parent, hard, capsys):
    unstressed = [atoms.copy() for atoms in hard]
    for atoms in unstressed[:3]:
        del atoms.info[frames.STRESS]
    outcome = training.run(made_of(tmp_path / "some", parent, unstressed, epochs=1))
    assert "3 of 9 training frames carry no stress" in capsys.readouterr().err
    assert np.isfinite(outcome.history["valid_stress_rmse_GPa"]).all()
    for atoms in unstressed[3:]:
        del atoms.info[frames.STRESS]
    outcome = training.run(made_of(tmp_path / "none", parent, unstressed, epochs=1))
    assert np.isfinite(outcome.history["valid_loss"]).all()
    assert outcome.history["valid_stress_rmse_GPa"].isna().all()


def test_each_epoch_trains_each_frame_once_in_a_new_order(parent, hard):
    model = chgnet.load_model(parent.model_file)
    made = examples(graphs_of(model, hard), hard, np.zeros(12))
    learner = ChgnetLearner(model, made, made, make_recipe("chgnet", "naive", batch_size=5), seed=3)
    epochs = [list(learner._batches()) for _ in range(2)]
    assert [len(batch) for batch in epochs[0]] == [5, 5, 2]
    assert [sorted(row for batch in batches for row in batch) for batches in epochs] == [list(range(12))] * 2
    assert epochs[0] != epochs[1]


def test_what_cannot_be_trained_is_refused(tmp_path, parent, hard):
    def refused(message, labelled=hard, **settings):
        with pytest.raises(InputError, match=message):
            training.run(made_of(tmp_path / "work", parent, labelled, **settings))

    refused("CHGNet has no loss universal; there are mse, huber", loss="universal")
    other_zero = [atoms.copy() for atoms in hard]
    for row, atoms in enumerate(other_zero):
        # of one code every second frame: no shift of elements explains it
        atoms.info[frames.ENERGY] += 2.0 * len(atoms) * (row % 2)
    refused(r"before any training the energies are wrong by \d\.\d\d eV/atom", other_zero)
    stranger = [*hard[:11], label(bulk("NaF", "rocksalt", a=4.6), source="x")]
    refused("validation frames hold Na, which no training frame has", stranger)
    lonely = Atoms("LiF", positions=[[0, 0, 0], [2, 0, 0]], cell=[30, 30, 30], pbc=True)
    lonely += Atoms("Li", positions=[[15, 15, 15]])
    refused("isolated", [*hard[:11], label(lonely, source="y")])
    broken = [atoms.copy() for atoms in hard]
    broken[2].arrays[frames.FORCES][0, 0] = 1e30
    refused("training loss is no longer a finite number in epoch 1", broken)


def in_a_child(function):
    """Start a function in a forked process of its own; what it prints goes nowhere."""

    def quietly():
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        function()

    child = multiprocessing.get_context("fork").Process(target=quietly)
    child.start()
    return child


def epochs_in(folder):
    curve = folder / loop.CURVE
    return len(pd.read_csv(curve)) - 1 if curve.is_file() else -1


def test_killed_five_times_it_ends_as_if_unbroken(tmp_path, parent, hard, salt):
    """SIGKILL at random moments: same weights, bit for bit, and the same history as in one go (CPU, one thread)."""
    settings = {"epochs": 8, "batch_size": 2, "strategy": "mixed-replay", "replay": (salt[:4], salt[4:])}

    def train(name):
        outcome = training.run(made_of(tmp_path / name, parent, hard, **settings))
        outcome.save(tmp_path / f"{name}.pt")
        outcome.history.drop(columns="wall_time_s").to_csv(tmp_path / f"{name}.csv", index=False)

    started = time.monotonic()
    train("unbroken")
    epoch_s = (time.monotonic() - started) / 9
    rng = random.Random(0)
    for epoch in sorted(rng.choices(range(7), k=5)):
        child = in_a_child(lambda: train("killed"))
        while epochs_in(tmp_path / "killed") < epoch and child.is_alive():
            time.sleep(0.005)
        time.sleep(rng.uniform(0, epoch_s))
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
    last = in_a_child(lambda: train("killed"))
    last.join()
    assert last.exitcode == 0
    assert (tmp_path / "killed.csv").read_text() == (tmp_path / "unbroken.csv").read_text()
    killed, unbroken = (
        chgnet.load_model(tmp_path / f"{name}.pt").state_dict() for name in ("killed", "unbroken")
    )
    assert all(torch.equal(killed[name], unbroken[name]) for name in unbroken)


def test_asked_to_stop_it_goes_on_where_it_was(tmp_path, parent, hard):
    unbroken = training.run(made_of(tmp_path / "unbroken", parent, hard, epochs=4))

    def ask():
        while epochs_in(tmp_path / "stopped") < 1:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=ask)
    asking.start()
    with stoppable(), pytest.raises(Stopped, match="the same command goes on"):
        training.run(made_of(tmp_path / "stopped", parent, hard, epochs=4))
    asking.join()
    assert 1 <= epochs_in(tmp_path / "stopped") < 4
    resumed = training.run(made_of(tmp_path / "stopped", parent, hard, epochs=4))
    pd.testing.assert_frame_equal(
        resumed.history.drop(columns="wall_time_s"),
        unbroken.history.drop(columns="wall_time_s"),
        check_exact=True,
    )
