"""MACE's epochs in our hands: restarts, the validation loss, precisions, and elements that nothing fits."""

import numpy as np
import pytest
import torch
from foundations import head_as_parent
from trainings import REPLAY, make_task, sprung, tiny_mace

from hopline import frames
from hopline.console import InputError
from hopline.files import write_tensors
from hopline.finetuning import guards, mace
from hopline.finetuning.mace_upstream import Data, Learner, built, upstream
from hopline.finetuning.pseudolabels import pseudolabelled

SHORT_GRADIENT = 1e-3
"""Cut to this length at each step, gradients count by their norm alone."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """A model of Li, F, Na and Cl with random weights."""
    return head_as_parent(tmp_path_factory.mktemp("parent"))


def make_learner(folder, parent, recipe, *, valid=None, replay=None):
    """Return what upstream builds, with the parent's references."""
    with upstream(recipe.dtype, folder):
        objects = built(
            Data(sprung(12), valid or sprung(4, first_seed=50), replay), recipe, parent_file=parent.model_file,
            atom_energies_eV=mace.references_of(parent.calculator.model), seed=1, folder=folder,
        )  # fmt: skip
    return Learner(objects)


@pytest.mark.parametrize("strategy", ["naive", "freeze", "lora", "replay"])
def test_after_a_restart_the_epochs_are_those_of_an_unbroken_run(tmp_path, parent, strategy):
    """Upstream has a parameter whose gradient nothing clears: it counted in the norm, and a restart forgot it."""
    recipe = tiny_mace(strategy, epochs=4, max_gradient_norm=SHORT_GRADIENT)
    replay = None
    if strategy == "replay":
        replay = tuple(pseudolabelled(part, parent, tmp_path / "labels") for part in REPLAY)
    unbroken, stopped, resumed = (
        make_learner(tmp_path / name, parent, recipe, replay=replay)
        for name in ("unbroken", "stopped", "resumed")
    )
    with upstream(recipe.dtype, tmp_path):
        losses = [unbroken.train_epoch() for _ in range(4)]
        found = [stopped.train_epoch() for _ in range(2)]
        write_tensors(tmp_path / "state.pt", stopped.state())
        resumed.restore(torch.load(tmp_path / "state.pt", weights_only=True))
        found += [resumed.train_epoch() for _ in range(2)]
        assert found == losses
        assert resumed.validate() == unbroken.validate()
    ended, expected = resumed.weights(), unbroken.weights()
    assert all(torch.equal(ended[name], expected[name]) for name in expected)


@pytest.mark.parametrize("batch_size", [1, 4, 5, 12])
def test_the_validation_loss_is_a_mean_over_frames(tmp_path, parent, batch_size):
    """It is that of the formula, whatever the size of a batch and of the last one, which is not full."""
    weights = {"energy_weight": 3.0, "force_weight": 20.0, "stress_weight": 50.0}
    recipe = tiny_mace("naive", loss="mse", batch_size=batch_size, **weights)
    shown = sprung(12)
    squares = {name: [] for name in weights}
    for atoms in shown:
        parent.calculator.calculate(atoms)
        answer, labels = parent.calculator.results, frames.labels_of(atoms)
        stress = frames.stress_matrix(answer["stress"])
        squares["energy_weight"].append(((answer["energy"] - labels.energy_eV) / len(atoms)) ** 2)
        squares["force_weight"].append(np.mean((answer["forces"] - labels.forces_eV_per_A) ** 2))
        squares["stress_weight"].append(np.mean((stress - labels.stress_eV_per_A3) ** 2))
    expected = sum(weight * np.mean(squares[name]) for name, weight in weights.items())
    learner = make_learner(tmp_path, parent, recipe, valid=shown)
    with upstream(recipe.dtype, tmp_path):
        assert learner.validate()["valid_loss"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("parents", "trained"), [("float64", "float32"), ("float32", "float64")])
def test_a_parent_of_another_precision_is_trained_on_whatever_its_cutoff(tmp_path, parents, trained):
    """3.3 A is another number in float32. The file is the CPU's even where a GPU trained (to be seen where one is)."""
    parent = head_as_parent(tmp_path, parents, cutoff_A=3.3)
    one = make_task(tmp_path / "work", "naive", tiny_mace("naive", epochs=1, dtype=trained), parent=parent)
    outcome = mace.run(one)
    assert outcome.dtype == trained
    assert (
        outcome.proofs["before_training_vs_parent"]["eV_per_A"] < guards.MAX_DIFFERENCE["float32"]["eV_per_A"]
    )
    outcome.save(tmp_path / "model.pt")
    model = torch.load(tmp_path / "model.pt", weights_only=False)
    assert float(model.r_max) == pytest.approx(3.3)
    tensors = [*model.parameters(), *model.buffers()]
    assert {str(tensor.dtype) for tensor in tensors if tensor.is_floating_point()} == {f"torch.{trained}"}
    assert {tensor.device.type for tensor in tensors} == {"cpu"}


def test_elements_that_nothing_fits_are_refused(tmp_path, parent):
    """Their reference would stay the parent's, hundreds of eV from the labels' where another code made these."""
    salt = sprung(1, species=("Na", "Cl"), first_seed=60)
    recipe = tiny_mace("naive")
    one = make_task(tmp_path, "naive", recipe, parent=parent, valid=[*sprung(3, first_seed=50), *salt])
    with pytest.raises(InputError, match="validation frames hold Cl, Na, which no training frame has"):
        mace.run(one)
    one = make_task(tmp_path, "naive", recipe, parent=parent, test=salt)
    with pytest.raises(InputError, match="test frames hold Cl, Na, which no training frame has"):
        mace.run(one)


def test_an_element_that_the_parent_lacks_is_refused(tmp_path, parent):
    dataset = {"isolated_atom_energies_eV": {"Li": -12.0, "F": -13.0, "K": -2.5, "Br": -2.5}}
    valid = [*sprung(3, first_seed=50), *sprung(1, species=("K", "Br"), first_seed=60)]
    recipe = tiny_mace("naive", atom_energies="isolated")
    one = make_task(tmp_path, "naive", recipe, parent=parent, valid=valid, dataset=dataset)
    with pytest.raises(InputError, match="the parent does not know Br, K"):
        mace.run(one)
