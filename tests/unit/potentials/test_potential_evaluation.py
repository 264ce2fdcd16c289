"""Errors of a potential that is wrong by a known amount."""

import numpy as np
import pytest
from ase.calculators.calculator import Calculator
from small import label, rocksalt_lif

from hopline.console import InputError
from hopline.potentials.evaluation import evaluate
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
        shift = SHIFTS_EV_PER_ATOM[atoms.info["composition"]] + self.noise * atoms.info["sign"]
        self.results = {
            "energy": atoms.info["REF_energy"] + len(atoms) * shift,
            "forces": SLOPE * atoms.arrays["REF_forces"],
            "stress": np.zeros(6) + STRESS_ERROR,
        }


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
    assert list(evaluation.pairs.columns) == ["kind", "element", "composition", "reference", "predicted"]
    without = evaluate(Wrong(), make(stress=False), mobile="F")
    assert without.figures["stress_rmse_GPa"] is None
    assert set(without.pairs["kind"]) == {"energy", "force"}
    assert without.figures["test_sources"] == sorted(atoms.info["source"] for atoms in make())


def test_unlabelled_frames_are_refused():
    with pytest.raises(InputError, match="ingest it first"):
        evaluate(Wrong(), [rocksalt_lif()], mobile="Li")
