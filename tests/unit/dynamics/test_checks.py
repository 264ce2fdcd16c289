"""Each check names what is wrong."""

import numpy as np
import pytest
from small import Broken, Springs, rocksalt_lif

from hopline.dynamics import checks


def look(atoms, *, temperature_K=300.0, start_volume_A3=None, **limits):
    watch = checks.Watch(checks.Limits(**limits), 300.0, start_volume_A3 or atoms.get_volume())
    return watch.look(atoms, temperature_K=temperature_K), watch.figures


@pytest.fixture
def quiet():
    atoms = rocksalt_lif(rattle_A=0)
    atoms.calc = Springs(atoms.positions)
    return atoms


def test_a_quiet_frame_is_right_and_remembered(quiet):
    reason, figures = look(quiet, temperature_K=310.0)
    assert reason is None
    assert figures == {"max_temperature_K": 310.0, "max_force_eV_per_A": 0.0, "max_volume_ratio": 1.0}


def test_each_limit_has_its_sentence(quiet):
    assert "temperature 1201 K exceeds 4 times the target of 300 K" in look(quiet, temperature_K=1201)[0]
    assert look(quiet, temperature_K=1199)[0] is None
    volume_A3 = quiet.get_volume()
    assert "factor 1.81" in look(quiet, start_volume_A3=volume_A3 / 1.81)[0]
    assert "factor 0.552" in look(quiet, start_volume_A3=volume_A3 * 1.81)[0]
    quiet.positions[0] = quiet.positions[1] + [0.3, 0.4, 0.0]
    quiet.calc = Springs(quiet.positions)
    assert "0.500 A apart, closer than 0.6 A" in look(quiet)[0]
    quiet.positions[3, 2] += 31
    assert "a force of 62 eV/A exceeds 60 eV/A" in look(quiet)[0]
    quiet.calc = Broken(good=0)
    assert "no longer finite" in look(quiet)[0]


def test_atoms_near_through_the_cell_face_are_near(quiet):
    quiet.positions[0, 0] = -0.1
    quiet.positions[1] = quiet.positions[0] + [quiet.cell[0, 0] - 0.2, 0, 0]
    quiet.calc = Springs(quiet.positions)
    assert "0.200 A apart" in look(quiet)[0]


def test_drift_is_the_slope_an_atom():
    time_ps = np.linspace(0, 2, 21)
    assert checks.energy_drift(time_ps, 5 + 0.004 * time_ps, n_atoms=8) == pytest.approx(0.5)
    assert np.isnan(checks.energy_drift(time_ps[:1], time_ps[:1], n_atoms=8))


def test_throughput_is_nanoseconds_a_day():
    assert checks.throughput_ns_per_day(simulated_ps=2.0, wall_s=86.4) == pytest.approx(2.0)
