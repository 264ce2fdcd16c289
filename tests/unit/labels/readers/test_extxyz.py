"""Extended XYZ as people write it: names, shapes, units, and where it ends."""

import ase.io
import numpy as np
import pytest
from ase.calculators.lj import LennardJones
from label_files import labelled_frames

from hopline.frames import stress_matrix
from hopline.labels.candidates import FREE, Broken
from hopline.labels.readers import extxyz
from hopline.units import BOHR_A, GPA_PER_EV_PER_A3, RYDBERG_EV

STRESS = np.array([[0.01, 0.04, 0.05], [0.04, 0.02, 0.06], [0.05, 0.06, 0.03]])


def frame(**info):
    """Return a frame whose labels are only what is given; arrays are told by their length."""
    (atoms,) = labelled_frames(1)
    atoms.calc = None
    for key, value in info.items():
        (atoms.arrays if np.ndim(value) == 2 and len(value) == len(atoms) else atoms.info)[key] = value
    return atoms


def written(tmp_path, *frames):
    ase.io.write(tmp_path / "a.xyz", frames, format="extxyz")
    return tmp_path / "a.xyz"


@pytest.mark.parametrize("energy", ["energy", "REF_energy", "dft_energy", "DFT_energy"])
@pytest.mark.parametrize("forces", ["forces", "force", "REF_forces", "REF_force", "dft_forces"])
@pytest.mark.parametrize("stress", ["stress", "REF_stress", "dft_stress"])
def test_the_usual_names(tmp_path, energy, forces, stress):
    atoms = frame(**{energy: -3.5, forces: np.full((8, 3), 0.25), stress: STRESS.ravel()})
    (found,) = extxyz.read(written(tmp_path, atoms))
    assert found.reason == ""
    assert found.energy_eV == -3.5
    np.testing.assert_array_equal(found.forces_eV_per_A, 0.25)
    np.testing.assert_allclose(np.reshape(found.stress, (3, 3)), STRESS)


@pytest.mark.parametrize("name", ["virial", "virials", "REF_virial", "dft_virial"])
def test_a_virial_is_minus_stress_times_volume(tmp_path, name):
    atoms = frame(energy=-1.0, forces=np.zeros((8, 3)))
    atoms.info[name] = (-STRESS * atoms.get_volume()).ravel()
    (found,) = extxyz.read(written(tmp_path, atoms))
    np.testing.assert_allclose(np.reshape(found.stress, (3, 3)), STRESS, atol=1e-9)


def test_the_sign_of_stress_and_virial_by_finite_differences(tmp_path):
    (atoms,) = labelled_frames(1)
    atoms.calc = LennardJones(sigma=1.9, epsilon=0.3, rc=6.0, smooth=True)
    atoms.get_stress()  # ASE writes what has been computed
    (found,) = extxyz.read(written(tmp_path, atoms))
    step = 1e-4
    energies = []
    for sign in (1, -1):
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array * (1 + sign * step), scale_atoms=True)
        strained.calc = atoms.calc
        energies.append(strained.get_potential_energy())
    # stress is the energy's derivative by strain over the volume: positive where the crystal wants to shrink
    trace = (energies[0] - energies[1]) / (2 * step) / atoms.get_volume()
    assert np.trace(stress_matrix(found.stress)) == pytest.approx(trace, rel=1e-4)


def test_units_that_are_stated_are_converted(tmp_path):
    forces = np.full((8, 3), 0.1)
    stated = {"energy_unit": "Ry", "forces_unit": "Ry/bohr", "stress_unit": "GPa"}
    atoms = frame(REF_energy=-2.0, REF_forces=forces, REF_stress=STRESS.ravel(), **stated)
    (found,) = extxyz.read(written(tmp_path, atoms))
    assert found.energy_eV == pytest.approx(-2.0 * RYDBERG_EV)
    np.testing.assert_allclose(found.forces_eV_per_A, forces * RYDBERG_EV / BOHR_A)
    np.testing.assert_allclose(np.reshape(found.stress, (3, 3)), STRESS / GPA_PER_EV_PER_A3)


def test_a_unit_that_nobody_knows_is_a_reason(tmp_path):
    atoms = frame(REF_energy=-2.0, REF_forces=np.zeros((8, 3)), energy_unit="furlong")
    (found,) = extxyz.read(written(tmp_path, atoms))
    assert found.reason.startswith("the unit furlong of its energy is not understood: one of ev, mev, ry")


def test_the_free_energy_wins_over_the_extrapolated_one(tmp_path):
    atoms = frame(energy=-2.0, free_energy=-2.1, forces=np.zeros((8, 3)))
    (found,) = extxyz.read(written(tmp_path, atoms))
    assert (found.energy_eV, found.energy_kind) == (-2.1, FREE)


@pytest.mark.parametrize("name", ["corrected_energy", "corrected_total_REF_energy"])
def test_an_energy_with_corrections_is_read_beside_the_other(tmp_path, name):
    atoms = frame(REF_energy=-2.0, REF_forces=np.zeros((8, 3)), **{name: -3.0})
    (found,) = extxyz.read(written(tmp_path, atoms))
    assert (found.energy_eV, found.corrected_energy_eV) == (-2.0, -3.0)


def test_the_trajectory_that_a_set_names(tmp_path):
    atoms = frame(energy=-2.0, forces=np.zeros((8, 3)), source="MPtrj", mptrj_traj_id="mp-1")
    (found,) = extxyz.read(written(tmp_path, atoms))
    assert found.trajectory == "mp-1"


def test_a_broken_frame_does_not_take_the_others_with_it(tmp_path):
    path = written(tmp_path, *labelled_frames(3))
    lines = path.read_text().splitlines(keepends=True)
    lines[13] = "Li 0.0 here 0.0 0.0 0.0 0.0\n"
    path.write_text("".join(lines))
    assert [bool(found.reason) for found in extxyz.read(path)] == [False, True, False]


def test_a_last_line_without_its_end_may_be_a_number_cut_short(tmp_path):
    path = written(tmp_path, *labelled_frames(2))
    path.write_text(path.read_text()[:-3])
    found = extxyz.read(path)
    assert next(found).reason == ""
    with pytest.raises(Broken, match="the last line has no end"):
        next(found)


@pytest.mark.parametrize("heading", ["999999999999", "12345678901234567890123", "8"])
def test_more_atoms_announced_than_there_are(tmp_path, heading):
    path = written(tmp_path, *labelled_frames(1))
    path.write_text(heading + path.read_text()[1:].replace("F ", "", 1)[:-40])
    with pytest.raises(Broken):
        list(extxyz.read(path))


def test_windows_line_ends_and_blank_lines_between_frames(tmp_path):
    path = written(tmp_path, *labelled_frames(2))
    text = path.read_text()
    cut = text.rindex("\n8\n")
    path.write_bytes((text[:cut] + "\n\n" + text[cut:]).replace("\n", "\r\n").encode())
    assert [found.reason for found in extxyz.read(path)] == ["", ""]
