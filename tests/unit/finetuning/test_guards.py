"""Each proof refuses what it is there for: another model, another epoch, a replay that did not happen."""

import numpy as np
import pandas as pd
import pytest
from small import Springs, rocksalt_lif
from trainings import ATOM_ENERGIES_EV, sprung

from hopline.console import InputError
from hopline.finetuning import guards
from hopline.finetuning.loop import Best

STIFFNESS = 2.0


def springs(stiffness=STIFFNESS):
    return Springs(rocksalt_lif(rattle_A=0).positions, stiffness=stiffness)


def prove(calculator, valid, trained, rmse_meV_per_A):
    history = pd.DataFrame({"valid_force_rmse_meV_per_A": [900.0, rmse_meV_per_A]})
    return guards.prove_export(calculator, valid, trained, Best(1, {}, history), dtype="float64")


def test_the_trained_model_is_proven_and_another_or_another_epoch_is_refused():
    valid = sprung(7)
    softer = springs(0.9 * STIFFNESS)
    trained = guards.predict(softer, guards.spread(valid))
    forces = np.concatenate([atoms.arrays["REF_forces"] for atoms in valid])
    rmse_meV_per_A = 0.1e3 * np.sqrt(np.mean(forces**2))
    proofs = prove(softer, valid, trained, rmse_meV_per_A)
    assert proofs["exported_vs_trained"] == {"eV_per_A": 0.0, "eV_per_atom": 0.0}
    assert proofs["exported_valid_force_rmse_meV_per_A"] == pytest.approx(rmse_meV_per_A)
    with pytest.raises(InputError, match=r"the exported model and the trained one differ by .* eV/A"):
        prove(springs(0.9001 * STIFFNESS), valid, trained, rmse_meV_per_A)
    with pytest.raises(InputError, match=r"that of its best epoch \(1\) was"):
        prove(softer, valid, trained, 1.001 * rmse_meV_per_A)


def test_energies_counted_from_other_atoms_are_another_model():
    valid = sprung(3)
    plain = guards.predict(springs(), valid)
    moved = guards.predict(springs(), valid, shifts_eV={"Li": 0.5})
    with pytest.raises(InputError, match=r"differ by 0\.25 eV/atom"):
        guards.refuse_difference(plain, moved, dtype="float64", what="one and the other")


@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_prediction_that_is_no_number_is_another_model_in_whichever_frame(row):
    plain = guards.predict(springs(), sprung(3))
    for broken in (
        guards.Prediction(np.nan, plain[row].forces_eV_per_A),
        guards.Prediction(plain[row].energy_eV, np.full((8, 3), np.nan)),
    ):
        found = [*plain[:row], broken, *plain[row + 1 :]]
        with pytest.raises(InputError, match="differ by nan"):
            guards.refuse_difference(plain, found, dtype="float64", what="one and the other")


def test_references_and_replay_energies_are_held_to_half_an_electronvolt():
    labelled = sprung(4)
    mean_eV = np.mean(list(ATOM_ENERGIES_EV.values()))
    np.testing.assert_allclose(guards.energy_residuals(springs(), labelled), 8 * mean_eV)
    with pytest.raises(InputError, match=r"wrong by -2\.50 eV/atom on average"):
        guards.refuse_other_replay(springs(), labelled)
    assert guards.refuse_reference_mismatch(np.array([0.3, -0.4]), "isolated") == pytest.approx(
        np.sqrt(0.125)
    )
    for errors, kind in (([0.6], "isolated"), ([np.nan], "estimated")):
        with pytest.raises(InputError, match=f"{kind} atomic references"):
            guards.refuse_reference_mismatch(np.array(errors), kind)


def test_a_replay_that_did_not_happen_is_refused():
    """Of ten replay frames in batches of three at most two are left out, in the last batch."""
    assert guards.prove_replay({"a": 5, "b": 8}, "b", 10, 3) == {"frames_per_epoch": {"a": 5, "b": 8}}
    assert guards.prove_replay({"a": 5}, "b", 0, 3) == {"frames_per_epoch": {"a": 5}}
    for trained in ({"a": 5}, {"a": 5, "b": 7}):
        with pytest.raises(InputError, match="the replay did not happen"):
            guards.prove_replay(trained, "b", 10, 3)
