"""CHGNet trained on its own energies, shifted by a known amount an element: little is left to learn."""

import numpy as np
import pytest
from ase.build import bulk
from small import LIF_A, label

from hopline.console import InputError
from hopline.finetuning import chgnet as training
from hopline.finetuning.recipe import HISTORY, make_recipe
from hopline.potentials import chgnet
from hopline.potentials.evaluation import evaluate
from hopline.units import GPA_PER_EV_PER_A3

SHIFTS_EV = {"Li": 1.25, "F": -3.5}


@pytest.fixture(scope="module")
def labelled():
    """Twelve frames of 4 or 3 atoms (one Li or F away), labelled by CHGNet with shifted zeros of energy."""
    calculator = chgnet.ChgnetCalculator(chgnet.load_shipped("0.3.0"))
    made = []
    for seed in range(12):
        atoms = bulk("LiF", "rocksalt", a=LIF_A).repeat((1, 1, 2))
        atoms.rattle(0.08, seed=seed)
        if seed % 3:
            del atoms[seed % 2]
        atoms.calc = calculator
        shift_eV = sum(SHIFTS_EV[symbol] for symbol in atoms.symbols)
        made.append(
            label(
                atoms.copy(), energy_eV=atoms.get_potential_energy() + shift_eV, forces=atoms.get_forces(),
                stress=atoms.get_stress(voigt=False), composition=str(atoms.symbols), source=str(seed),
            )
        )  # fmt: skip
    return made


def test_moving_the_references_recovers_the_shift(labelled):
    model = chgnet.load_shipped("0.3.0")
    assert training.move_references(model, labelled) == pytest.approx(SHIFTS_EV, abs=1e-3)
    figures = evaluate(chgnet.ChgnetCalculator(model), labelled, mobile="Li").figures
    assert figures["energy_rmse_meV_per_atom"] < 0.1
    assert training.move_references(model, labelled) == pytest.approx({"Li": 0, "F": 0}, abs=1e-3)


def test_the_trainer_is_given_stress_in_gigapascal_positive_under_tension():
    """CHGNet predicts stress in GPa, positive under tension; its dataset turns VASP's kbar into that."""
    stress = np.array([[0.01, 0.002, 0.003], [0.002, -0.02, 0.004], [0.003, 0.004, 0.03]])
    atoms = label(
        bulk("LiF", "rocksalt", a=LIF_A), energy_eV=-9.0, forces=[[1, 2, 3], [-1, -2, -3]], stress=stress
    )
    loader = training._loader(chgnet.load_shipped("0.3.0"), [atoms], 1, shuffle=False, seed=0)
    _, targets = next(iter(loader))
    assert float(targets["e"][0]) == pytest.approx(-4.5)
    np.testing.assert_allclose(targets["f"][0], [[1, 2, 3], [-1, -2, -3]])
    np.testing.assert_allclose(targets["s"][0], stress * GPA_PER_EV_PER_A3, rtol=1e-6)


@pytest.mark.slow
def test_labels_reach_chgnets_trainer_with_their_units_and_signs(labelled):
    """At a learning rate of nothing the loss of the labels' own model is nothing: energy, forces and stress agree."""
    recipe = make_recipe("chgnet", "naive", {"epochs": 1, "batch_size": 1, "learning_rate": 1e-12})
    trained = training.train(chgnet.load_shipped("0.3.0"), labelled[:10], labelled[10:], recipe, seed=0)
    last = trained.history.iloc[-1]
    assert last["train_loss"] < 1e-3
    assert last["valid_energy_rmse_meV_per_atom"] < 0.1
    assert last["valid_force_rmse_meV_per_A"] < 0.1


@pytest.mark.slow
def test_the_exported_model_is_the_best_epoch(tmp_path, labelled):
    harder = [atoms.copy() for atoms in labelled]
    for atoms in harder:
        atoms.arrays["REF_forces"] *= 1.1
    recipe = make_recipe("chgnet", "naive", {"epochs": 2, "batch_size": 1, "learning_rate": 1e-3})
    trained = training.train(chgnet.load_shipped("0.3.0"), harder[:10], harder[10:], recipe, seed=0)
    history = trained.history
    assert tuple(history.columns) == HISTORY
    assert history["epoch"].tolist() == [0, 1, 2]
    forces = history.set_index("epoch")["valid_force_rmse_meV_per_A"]
    assert trained.best_epoch == forces.idxmin()
    training.export(trained, tmp_path / "model.pt")
    calculator = chgnet.load_calculator(tmp_path / "model.pt", dtype="float32", head=None)
    figures = evaluate(calculator, harder[10:], mobile="Li").figures
    best = history.set_index("epoch").loc[trained.best_epoch]
    assert figures["force_rmse_meV_per_A"] == pytest.approx(best["valid_force_rmse_meV_per_A"], rel=1e-4)
    assert figures["energy_rmse_meV_per_atom"] == pytest.approx(
        best["valid_energy_rmse_meV_per_atom"], rel=1e-3
    )


def test_frames_that_cannot_train_are_refused(labelled):
    recipe = make_recipe("chgnet", "naive", {"epochs": 1, "batch_size": 8})
    with pytest.raises(InputError, match=r"10 training frames in batches of 8 are fewer than ten batches"):
        training.train(chgnet.load_shipped("0.3.0"), labelled[:10], labelled[10:], recipe, seed=0)
    unstressed = [atoms.copy() for atoms in labelled]
    del unstressed[3].info["REF_stress"]
    recipe = make_recipe("chgnet", "naive", {"epochs": 1, "batch_size": 1})
    with pytest.raises(InputError, match="some frames carry none"):
        training.train(chgnet.load_shipped("0.3.0"), unstressed[:10], labelled[10:], recipe, seed=0)
