"""Our CHGNet calculator against CHGNet's own, against finite differences, and against files of ill will."""

import os
import pickle

import numpy as np
import pytest
import torch
from ase import Atoms
from chgnet.model.dynamics import CHGNetCalculator
from small import rocksalt_lif

from hopline.console import InputError
from hopline.potentials import chgnet
from hopline.units import GPA_PER_EV_PER_A3

FLOAT32_ENERGY_EV_PER_ATOM = 1e-6
FLOAT32_FORCE_EV_PER_A = 2e-5
FLOAT32_STRESS_GPA = 2e-4


@pytest.fixture(scope="module")
def model():
    return chgnet.load_shipped("0.3.0")


@pytest.fixture(scope="module")
def calculator(model):
    return chgnet.ChgnetCalculator(model)


def skewed():
    """A triclinic cell under stress, no symmetry left, one atom outside the cell."""
    atoms = rocksalt_lif(rattle_A=0.1, seed=3)
    atoms.set_cell(
        atoms.cell.array @ np.array([[1.02, 0.03, -0.01], [0, 0.97, 0.04], [0, 0, 1.01]]), scale_atoms=True
    )
    atoms.positions[2] += 3 * atoms.cell[0]
    return atoms


@pytest.mark.parametrize("make", [rocksalt_lif, skewed], ids=["cubic", "skewed"])
def test_it_gives_the_numbers_of_chgnets_own_calculator(model, calculator, make):
    atoms, theirs = make(), make()
    atoms.calc = calculator
    theirs.calc = CHGNetCalculator(model=model, use_device="cpu")
    difference_eV = atoms.get_potential_energy() - theirs.get_potential_energy()
    assert abs(difference_eV) / len(atoms) < FLOAT32_ENERGY_EV_PER_ATOM
    np.testing.assert_allclose(atoms.get_forces(), theirs.get_forces(), atol=FLOAT32_FORCE_EV_PER_A)
    stress_GPa, known_GPa = (one.get_stress(voigt=False) * GPA_PER_EV_PER_A3 for one in (atoms, theirs))
    assert np.abs(known_GPa).max() > 0.5
    np.testing.assert_allclose(stress_GPa, known_GPa, atol=FLOAT32_STRESS_GPA)


def test_forces_are_the_slope_of_the_energy(calculator):
    atoms = skewed()
    atoms.calc = calculator
    forces = atoms.get_forces()
    step_A = 0.01
    for atom, axis in ((0, 0), (2, 1), (5, 2)):
        energies_eV = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step_A
            moved.calc = calculator
            energies_eV.append(moved.get_potential_energy())
        slope = (energies_eV[1] - energies_eV[0]) / (2 * step_A)
        # float32 energies of 40 eV are known to 4e-6 eV, the step's own error is of its square
        assert forces[atom, axis] == pytest.approx(slope, abs=3e-3)


def test_stress_is_the_slope_of_the_energy_under_strain(calculator):
    atoms = skewed()
    atoms.calc = calculator
    stress = atoms.get_stress(voigt=False)
    size = 0.002
    for i, j in ((0, 0), (1, 2), (0, 2)):
        energies_eV = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[i, j] += sign * size / 2
            strain[j, i] += sign * size / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
            strained.calc = calculator
            energies_eV.append(strained.get_potential_energy())
        slope = (energies_eV[0] - energies_eV[1]) / (2 * size) / atoms.get_volume()
        assert stress[i, j] == pytest.approx(slope, abs=2e-4)


def test_a_stretched_crystal_is_under_tension_and_a_squeezed_one_under_pressure(calculator):
    for scale, sign in ((1.03, 1), (0.97, -1)):
        atoms = rocksalt_lif(rattle_A=0)
        atoms.set_cell(atoms.cell * scale, scale_atoms=True)
        atoms.calc = calculator
        assert (np.sign(atoms.get_stress()[:3]) == sign).all()


def test_atoms_far_outside_the_cell_cost_neither_time_nor_digits(calculator):
    near, far = rocksalt_lif(), rocksalt_lif()
    far.positions[0] += 1e6 * far.cell[1]
    near.calc, far.calc = calculator, calculator
    assert far.get_potential_energy() == pytest.approx(near.get_potential_energy(), abs=1e-5)
    np.testing.assert_allclose(far.get_forces(), near.get_forces(), atol=1e-4)


def test_an_isolated_atom_is_refused(calculator):
    atoms = Atoms("Li", cell=np.eye(3) * 20, pbc=True, calculator=calculator)
    with pytest.raises(InputError, match="isolated"):
        atoms.get_potential_energy()


def test_a_saved_model_is_the_same_model(tmp_path, model, calculator):
    chgnet.save_model(model, tmp_path / "model.pt")
    atoms, again = rocksalt_lif(), rocksalt_lif()
    atoms.calc = calculator
    again.calc = chgnet.load_calculator(tmp_path / "model.pt", dtype="float32", head=None)
    np.testing.assert_array_equal(again.get_forces(), atoms.get_forces())


class Burglar:
    """Unpickled, it leaves a trace on the disk."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


def test_a_file_that_would_run_code_is_not_opened(tmp_path):
    trace = tmp_path / "was-here"
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Burglar(trace)))
    torch.save({"model": Burglar(trace)}, tmp_path / "zipped.pt")
    for name in ("plain.pt", "zipped.pt"):
        with pytest.raises(InputError, match=f"{name} .* holds more than plain tensors"):
            chgnet.load_model(tmp_path / name)
    assert not trace.exists()


def test_files_that_are_no_model_are_refused_by_name(tmp_path, model):
    chgnet.save_model(model, tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "empty.pt").write_text("")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    torch.save({"model": {"model_args": {}}}, tmp_path / "other.pt")
    torch.save({"model": "weights"}, tmp_path / "string.pt")
    for name, message in {
        "cut.pt": "its end is missing",
        "text.pt": "it is text, beginning with 'hello'",
        "empty.pt": "it is empty",
        "list.pt": "no model can be built of what it holds",
        "tensor.pt": "no model can be built of what it holds",
        "other.pt": "no model can be built of what it holds",
        "string.pt": "no model can be built of what it holds",
        "none.pt": "does not exist",
    }.items():
        with pytest.raises(InputError, match=f"{name} .*{message}"):
            chgnet.load_model(tmp_path / name)


def test_weights_that_do_not_ship_are_refused():
    with pytest.raises(InputError, match=r"there are 0\.3\.0, 0\.2\.0, r2scan"):
        chgnet.load_shipped("9.9")


def test_features_are_means_over_atoms(model):
    """The mean of a crystal and of its doubled cell are one; a sum would be twice."""
    atoms = rocksalt_lif()
    features = chgnet.encode(model, [atoms, atoms.repeat((1, 2, 1))])
    np.testing.assert_allclose(features[1], features[0], atol=2e-5)
