"""Errors of a potential that is wrong by a known amount."""

import numpy as np
import pytest
from ase.calculators.calculator import Calculator
from small import label, rocksalt_lif

from hopline.console import InputError
from hopline.potentials.evaluation import PAIRS, evaluate, told_reasons
from hopline.units import GPA_PER_EV_PER_A3

SHIFTS_EV_PER_ATOM = {"bulk": 0.5, "Li1": -2.0}
SLOPE = 0.9
STRESS_ERROR = 0.01


class Wrong(Calculator):
    """Gives a frame's own labels with stated errors."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, energy_noise_eV_per_atom=0.0):
        super().__init__()
        self.noise = energy_noise_eV_per_atom

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        """Shift energies by composition, soften forces, shift stresses."""
        super().calculate(atoms, properties, system_changes)
        if atoms.info.get("strange"):
            raise InputError(f"frame {atoms.info['frame_id']}: the model was not trained on Xe")
        shift = SHIFTS_EV_PER_ATOM[atoms.info["composition"]] + self.noise * atoms.info["sign"]
        self.results = {
            "energy": atoms.info["REF_energy"] + len(atoms) * shift,
            "forces": SLOPE * atoms.arrays["REF_forces"],
            "stress": np.zeros(6) + STRESS_ERROR,
        }


class Spoilt(Wrong):
    """As wrong, and one number of what a frame's ``spoilt`` names is what is said there."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        """Put the number in the last place of the property."""
        super().calculate(atoms, properties, system_changes)
        for name, number in atoms.info.get("spoilt", {}).items():
            found = np.array(self.results[name])
            found.flat[-1] = number
            self.results[name] = found


def make(stress=True):
    rng = np.random.default_rng(0)
    made = []
    for number in range(8):
        composition = "bulk" if number < 4 else "Li1"
        atoms = label(
            rocksalt_lif(seed=number), energy_eV=rng.normal(), forces=rng.normal(size=(8, 3)),
            stress=np.zeros((3, 3)) if stress else None, composition=composition, source=f"{composition}/{number}",
        )  # fmt: skip
        atoms.info["sign"] = (-1) ** number
        atoms.info["temperature_K"] = 300 if number % 4 < 2 else 900
        made.append(atoms)
    return made


def test_a_slope_is_found_exactly():
    made = make()
    figures = evaluate(Wrong(), made, mobile="Li").figures
    forces = np.concatenate([atoms.arrays["REF_forces"] for atoms in made])
    lithium = np.concatenate([atoms.symbols == "Li" for atoms in made])
    assert figures["force_slope"] == pytest.approx(SLOPE, abs=1e-12)
    assert figures["force_rmse_meV_per_A"] == pytest.approx(100 * np.sqrt((forces**2).mean()))
    assert figures["force_mae_meV_per_A"] == pytest.approx(100 * np.abs(forces).mean())
    mobile = 100 * np.sqrt((forces[lithium] ** 2).mean())
    assert figures["force_rmse_mobile_meV_per_A"] == pytest.approx(mobile)
    assert figures["force_rmse_by_element_meV_per_A"]["Li"] == pytest.approx(mobile)
    assert set(figures["force_rmse_by_composition_meV_per_A"]) == {"bulk", "Li1"}
    assert figures["force_r2"] == pytest.approx(
        1 - 0.01 * (forces**2).sum() / ((forces - forces.mean()) ** 2).sum()
    )


def test_the_shift_of_each_composition_is_removed_exactly():
    figures = evaluate(Wrong(), make(), mobile="Li").figures
    assert figures["energy_rmse_shift_removed_meV_per_atom"] == pytest.approx(0, abs=1e-9)
    assert figures["energy_rmse_meV_per_atom"] == pytest.approx(1000 * np.sqrt((0.25 + 4) / 2))
    assert figures["energy_mae_meV_per_atom"] == pytest.approx(1250)


def test_what_is_left_is_the_scatter_within_compositions():
    evaluation = evaluate(Wrong(energy_noise_eV_per_atom=0.003), make(), mobile="Li")
    assert evaluation.figures["energy_rmse_shift_removed_meV_per_atom"] == pytest.approx(3.0)
    energy = evaluation.pairs[evaluation.pairs["kind"] == "energy"]
    assert np.abs(energy["predicted"] - energy["reference"]).to_numpy() == pytest.approx(0.003)


def test_stress_is_compared_in_gigapascal_where_there_is_one():
    evaluation = evaluate(Wrong(), make(), mobile="F")
    assert evaluation.figures["stress_rmse_GPa"] == pytest.approx(STRESS_ERROR * GPA_PER_EV_PER_A3)
    assert evaluation.pairs["kind"].value_counts().to_dict() == {
        "force": 8 * 24,
        "stress": 8 * 9,
        "energy": 8,
    }
    assert evaluation.figures["stress_mae_GPa"] == pytest.approx(STRESS_ERROR * GPA_PER_EV_PER_A3)
    assert tuple(evaluation.pairs.columns) == PAIRS
    assert evaluation.pairs["temperature_K"].value_counts().to_dict() == {300.0: 4 * 34, 900.0: 4 * 34}
    ids = {atoms.info["frame_id"] for atoms in make()}
    assert set(evaluation.pairs.loc[evaluation.pairs["kind"] == "energy", "frame_id"]) == ids
    without = evaluate(Wrong(), make(stress=False), mobile="F")
    assert without.figures["stress_rmse_GPa"] is None
    assert set(without.pairs["kind"]) == {"energy", "force"}
    assert without.figures["test_sources"] == sorted(atoms.info["source"] for atoms in make())


def test_unlabelled_frames_are_refused():
    with pytest.raises(InputError, match="ingest it first"):
        evaluate(Wrong(), [rocksalt_lif()], mobile="Li")


def test_figures_of_each_element():
    made = make()
    figures = evaluate(Wrong(), made, mobile="Li").figures
    assert figures["force_slope_by_element"] == pytest.approx({"F": SLOPE, "Li": SLOPE})
    fluorine = np.concatenate([atoms.arrays["REF_forces"][atoms.symbols == "F"] for atoms in made])
    assert figures["force_mae_by_element_meV_per_A"]["F"] == pytest.approx(100 * np.abs(fluorine).mean())
    assert figures["force_mae_mobile_meV_per_A"] == figures["force_mae_by_element_meV_per_A"]["Li"]
    assert evaluate(Wrong(), made, mobile="H").figures["force_rmse_mobile_meV_per_A"] is None


def test_energy_r2_is_of_the_scatter_within_compositions():
    made = make()
    figures = evaluate(Wrong(energy_noise_eV_per_atom=0.003), made, mobile="Li").figures
    energies = np.array([atoms.info["REF_energy"] / len(atoms) for atoms in made]).reshape(2, 4)
    variance = ((energies - energies.mean(axis=1, keepdims=True)) ** 2).sum()
    assert figures["energy_r2"] == pytest.approx(1 - 8 * 0.003**2 / variance)
    assert figures["energy_mae_shift_removed_meV_per_atom"] == pytest.approx(3.0)


def test_a_composition_with_one_frame_has_no_shift_to_remove():
    made = make()[:5]  # four of bulk, one of Li1
    figures = evaluate(Wrong(energy_noise_eV_per_atom=0.003), made, mobile="Li").figures
    assert figures["n_frames_without_shift"] == 1
    assert figures["energy_rmse_shift_removed_meV_per_atom"] == pytest.approx(3.0)
    assert figures["by_composition"]["Li1"]["energy_rmse_meV_per_atom"] is None
    alone = evaluate(Wrong(), made[3:], mobile="Li").figures
    assert alone["n_frames_without_shift"] == 2
    assert alone["energy_rmse_shift_removed_meV_per_atom"] is None
    assert alone["energy_r2"] is None
    assert alone["energy_rmse_meV_per_atom"] == pytest.approx(1000 * np.sqrt((0.25 + 4) / 2))


def test_errors_by_temperature_and_composition():
    made = make()
    for atoms in made[:4]:
        atoms.arrays["REF_forces"] *= 3
    figures = evaluate(Wrong(), made, mobile="Li").figures
    hot = np.concatenate([atoms.arrays["REF_forces"] for atoms in made if atoms.info["temperature_K"] == 900])
    assert set(figures["by_temperature_K"]) == {"300", "900"}
    assert figures["by_temperature_K"]["900"]["n_frames"] == 4
    assert figures["by_temperature_K"]["900"]["force_rmse_meV_per_A"] == pytest.approx(
        100 * np.sqrt((hot**2).mean())
    )
    by_composition = figures["force_rmse_by_composition_meV_per_A"]
    for name, errors in figures["by_composition"].items():
        assert errors["n_frames"] == 4
        assert errors["energy_rmse_meV_per_atom"] == pytest.approx(0, abs=1e-9)
        assert errors["force_rmse_meV_per_A"] == by_composition[name]
    for atoms in made:
        del atoms.info["temperature_K"]
    assert evaluate(Wrong(), made, mobile="Li").figures["by_temperature_K"] == {}


def test_the_largest_force_error_is_found_in_its_frame():
    made = make()
    made[5].arrays["REF_forces"][3, 1] = -40.0
    figures = evaluate(Wrong(), made, mobile="Li").figures
    assert figures["max_force_error_meV_per_A"] == pytest.approx(4000)
    assert figures["max_force_error_frame"] == made[5].info["frame_id"]


def test_frames_that_the_potential_refuses_are_left_out_and_counted():
    made = make()
    for atoms in made[1:3]:
        atoms.info["strange"] = True
    found = evaluate(Wrong(), made, mobile="Li")
    assert found.figures["n_frames"] == 6
    assert found.figures["n_frames_left_out"] == 2
    assert found.figures["left_out_because"] == {"the model was not trained on Xe": 2}
    assert len(found.figures["test_sources"]) == 6
    assert found.pairs["frame_id"].nunique() == 6
    with pytest.raises(InputError, match=r"not trained on Xe \(2 frames\)"):
        evaluate(Wrong(), made[1:3], mobile="Li")


@pytest.mark.parametrize("name", ["energy", "forces", "stress"])
@pytest.mark.parametrize("number", [np.nan, -np.inf])
def test_a_frame_without_a_finite_number_is_left_out_and_counted(name, number):
    made = make()
    for row in (2, 6):
        made[row].info["spoilt"] = {name: number}
    found = evaluate(Spoilt(), made, mobile="Li")
    assert found.figures["left_out_because"] == {"no finite number": 2}
    assert (found.figures["n_frames"], found.figures["n_frames_left_out"]) == (6, 2)
    # all figures are those of the other frames, none has lost a part of a frame
    rest = evaluate(Wrong(), [made[row] for row in (0, 1, 3, 4, 5, 7)], mobile="Li")
    counted = {"n_frames_left_out", "left_out_because"}
    assert {k: v for k, v in found.figures.items() if k not in counted} == {
        k: v for k, v in rest.figures.items() if k not in counted
    }
    assert found.pairs.equals(rest.pairs)
    with pytest.raises(InputError, match=r"no frame left to evaluate on: no finite number \(1 frame\)"):
        evaluate(Spoilt(), [made[2]], mobile="Li")


def test_a_stress_that_nothing_is_compared_with_may_be_no_number():
    made = make(stress=False)
    made[0].info["spoilt"] = {"stress": np.nan}
    assert evaluate(Spoilt(), made, mobile="Li").figures["n_frames"] == 8


def test_frames_of_the_training_are_left_out_whatever_their_digits_or_order_of_atoms():
    made = make()
    seen, replayed = [made[0].copy(), made[3].copy()], made[6][[3, 1, 0, 2, 7, 6, 5, 4]]
    seen[0].positions += 1e-5
    trained_on = {"train.extxyz": [rocksalt_lif(seed=99), *seen], "replay.extxyz": [replayed]}
    found = evaluate(Wrong(), made, mobile="Li", trained_on=trained_on)
    assert found.figures["n_frames"] == 5
    assert found.figures["left_out_because"] == {
        "seen in its training or a parent's: train.extxyz": 2,
        "seen in its training or a parent's: replay.extxyz": 1,
    }
    rest = [made[row] for row in (1, 2, 4, 5, 7)]
    alone = evaluate(Wrong(), rest, mobile="Li").figures
    for name in ("force_rmse_meV_per_A", "energy_rmse_meV_per_atom", "test_sources"):
        assert found.figures[name] == alone[name]
    assert set(found.pairs["frame_id"]) == {atoms.info["frame_id"] for atoms in rest}


def test_a_test_set_of_which_all_was_trained_on_is_refused():
    made = make()
    with pytest.raises(
        InputError, match=r"no frame left to evaluate on: seen in .*: all.extxyz \(3 frames\)"
    ):
        evaluate(Wrong(), made[:3], mobile="Li", trained_on={"all.extxyz": made})


def test_many_reasons_are_told_in_few_words():
    assert told_reasons({}) == ""
    refused = {
        f"no {element}": count for element, count in (("H", 1), ("Xe", 9), ("K", 3), ("U", 2), ("C", 1))
    }
    told = "no Xe (9 frames); no K (3 frames); no U (2 frames); 2 other reasons"
    assert told_reasons(refused) == told


def test_labels_that_are_all_zero_have_no_slope():
    flat = [label(rocksalt_lif(seed=seed)) for seed in (1, 2)]
    for atoms in flat:
        atoms.info["sign"] = 0
    figures = evaluate(Wrong(), flat, mobile="Li").figures
    assert figures["force_slope"] is None
    assert figures["force_r2"] is None
