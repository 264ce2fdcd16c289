"""The model file is read again before there is a card: it must hold what was trained, to the last digit that counts."""

import copy
from dataclasses import replace

import pandas as pd
import pytest
import torch
from foundations import two_heads
from trainings import sprung

from hopline.console import InputError
from hopline.files import write_tensors
from hopline.finetuning import guards, task
from hopline.potentials import chgnet, mace

SHOWN = sprung(3)


def as_saved(model):
    return model


def as_rounded(model):
    """Return a copy whose weights have gone through half precision, in the same type as before."""
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.copy_(parameter.half())
    return rounded


def outcome_of(family, saved):
    """Return the outcome of a training whose model goes through ``saved`` on its way to the file."""
    if family == "mace":
        model = mace.single_head(two_heads(), "pbe")
        calculator = mace.MaceCalculator(copy.deepcopy(model), dtype="float64", head=None)
        dtype, save = "float64", write_tensors
    else:
        model = chgnet.load_shipped("0.3.0")
        calculator = chgnet.ChgnetCalculator(copy.deepcopy(model))
        dtype, save = chgnet.DTYPE, lambda path, content: chgnet.save_model(content, path)
    trained = guards.predict(calculator, SHOWN)
    return task.Outcome(
        lambda path: save(path, saved(model)), dtype, 0, pd.DataFrame(), {}, {}, SHOWN, trained
    )


@pytest.mark.parametrize("family", ["chgnet", "mace"])
def test_a_file_that_holds_the_trained_model_is_proven(tmp_path, family):
    proofs = task.write_model(outcome_of(family, as_saved), tmp_path / "model.pt", family)
    assert proofs["written_vs_trained"] == {"eV_per_A": 0.0, "eV_per_atom": 0.0}
    assert max(proofs["batch_vs_alone"].values()) < 1e-5


def test_a_batch_that_says_something_else_than_its_frames_is_refused(tmp_path, monkeypatch):
    """The dynamics computes frames in batches; here each of a batch gets the forces of the one before."""
    right = chgnet.ChgnetCalculator.predict

    def shifted(self, frames, *, stress):
        found = right(self, frames, stress=stress)
        return [replace(one, forces_eV_per_A=found[row - 1].forces_eV_per_A) for row, one in enumerate(found)]

    monkeypatch.setattr(chgnet.ChgnetCalculator, "predict", shifted)
    with pytest.raises(InputError, match="on a batch and on its frames alone differ by"):
        task.write_model(outcome_of("chgnet", as_saved), tmp_path / "model.pt", "chgnet")


@pytest.mark.parametrize("family", ["chgnet", "mace"])
def test_a_file_whose_weights_were_rounded_is_refused_and_stays(tmp_path, family):
    with pytest.raises(InputError, match=r"the model read from .*model\.pt and the trained one differ by"):
        task.write_model(outcome_of(family, as_rounded), tmp_path / "model.pt", family)
    assert (tmp_path / "model.pt").is_file()
