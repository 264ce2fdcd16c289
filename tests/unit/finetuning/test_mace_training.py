"""MACE trained from scratch on a few tiny frames: the exported file is the epoch that the history calls best."""

import numpy as np
import pytest
from small import Springs, label, rocksalt_lif, write_potential

from hopline import frames
from hopline.console import InputError
from hopline.finetuning import mace as training
from hopline.finetuning.recipe import HISTORY, make_recipe
from hopline.potentials.calculator import load_calculator
from hopline.potentials.evaluation import evaluate

ATOM_ENERGIES_EV = {"Li": -2.0, "F": -3.0}
FLOAT32_ENERGY_EV = 1e-4
"""Energies of some 20 eV in float32."""
TINY = {"epochs": 3, "channels": 4, "batch_size": 4, "cutoff_A": 3.5}


@pytest.fixture
def sets(tmp_path):
    """Atoms on springs, twelve frames to train and four to validate."""
    made = []
    for seed in range(16):
        atoms = rocksalt_lif(rattle_A=0.1, seed=seed)
        atoms.calc = Springs(rocksalt_lif(rattle_A=0).positions)
        energy_eV = atoms.get_potential_energy() + 4 * sum(ATOM_ENERGIES_EV.values())
        made.append(
            label(atoms.copy(), energy_eV=energy_eV, forces=atoms.get_forces(), stress=atoms.get_stress())
        )
    frames.write_frames(tmp_path / "train.extxyz", made[:12])
    frames.write_frames(tmp_path / "valid.extxyz", made[12:])
    return tmp_path / "train.extxyz", tmp_path / "valid.extxyz", made[12:]


@pytest.mark.slow
def test_the_exported_model_is_the_best_epoch(tmp_path, sets):
    train_file, valid_file, valid = sets
    recipe = make_recipe("mace", "scratch", TINY)
    (tmp_path / "work").mkdir()
    trained = training.train(
        train_file, valid_file, ATOM_ENERGIES_EV, recipe, seed=1, work_folder=tmp_path / "work"
    )
    assert tuple(trained.history.columns) == HISTORY
    assert trained.history["epoch"].tolist() == [1, 2, 3]
    assert (trained.history["train_loss"] > 0).all()
    training.export(trained, tmp_path / "model.pt")
    calculator = load_calculator(write_potential(tmp_path, tmp_path / "model.pt", family="mace"))
    figures = evaluate(calculator, valid, mobile="Li").figures
    best = trained.history.set_index("epoch").loc[trained.best_epoch]
    assert figures["force_rmse_meV_per_A"] == pytest.approx(best["valid_force_rmse_meV_per_A"], rel=1e-3)
    # the references were moved: on the training frames nothing is left on average, whatever the loss left behind
    residual_eV = [
        frames.labels_of(atoms).energy_eV - calculator.get_potential_energy(atoms)
        for atoms in frames.read_labelled(train_file)
    ]
    assert np.mean(residual_eV) == pytest.approx(0, abs=FLOAT32_ENERGY_EV)
    shift_eV = sum(trained.atom_energies_eV.values()) - sum(ATOM_ENERGIES_EV.values())
    assert abs(shift_eV) > FLOAT32_ENERGY_EV


@pytest.mark.slow
def test_a_training_that_fails_says_why(tmp_path, sets):
    recipe = make_recipe("mace", "scratch", TINY)
    with pytest.raises(InputError, match="mace_run_train gave no model") as error:
        training.train(sets[0], sets[1], {"Li": -2.0}, recipe, seed=1, work_folder=tmp_path)
    assert "9" in str(error.value)


def test_the_history_is_read_from_maces_log_however_it_breaks_off(tmp_path):
    (tmp_path / "results").mkdir()
    evaluated = '{{"mode": "eval", "epoch": {}, "loss": {}, "rmse_e_per_atom": 0.002, "rmse_f": 0.05}}\n'
    (tmp_path / "results" / "model_run-1_train.txt").write_text(
        evaluated.format("null", 9.0)
        + '{"mode": "opt", "epoch": 0, "loss": 4.0}\n{"mode": "opt", "epoch": 0, "loss": 2.0}\n'
        + evaluated.format(0, 1.5)
        + '{"mode": "opt", "epoch": 1, "lo'
    )
    history = training.read_history(tmp_path)
    assert history[["epoch", "train_loss", "valid_loss"]].to_numpy().tolist() == [[1, 3.0, 1.5]]
    assert history["valid_energy_rmse_meV_per_atom"].tolist() == [2.0]
    assert history["valid_force_rmse_meV_per_A"].tolist() == [50.0]
    assert training.read_history(tmp_path / "nowhere").empty


def test_files_that_are_no_mace_model_are_refused_by_name(tmp_path):
    for name, content in (("text.pt", b"hello"), ("empty.pt", b""), ("cut.pt", b"PK\x03\x04 broken")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            load_calculator(write_potential(tmp_path, tmp_path / name, family="mace"))
