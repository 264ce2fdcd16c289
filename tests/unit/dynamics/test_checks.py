"""Each check names what is wrong."""

import math

import numpy as np
import pytest
from ase import Atoms
from small import rocksalt_lif

from hopline.console import InputError
from hopline.dynamics import checks
from hopline.dynamics.engine import Snapshot
from hopline.units import BOLTZMANN_EV_PER_K


def snapshot(atoms, **changes):
    """Return atoms at rest without forces, 2 A apart at least."""
    zeros = np.zeros((len(atoms), 3))
    made = {
        "positions_A": atoms.positions.copy(), "momenta": zeros, "cell_A": atoms.cell.array.copy(),
        "forces_eV_per_A": zeros, "potential_energy_eV": -1.0, "kinetic_energy_eV": 0.5, "pressure_GPa": None,
        "shortest_A": 2.0,
    }  # fmt: skip
    return Snapshot(**{**made, **changes})


class Eye:
    """A watch, and frames a picosecond apart."""

    def __init__(self, atoms, *, conserves_energy=False, mobile=None, **limits):
        self.watch = checks.Watch(
            checks.Limits(**limits), atoms, conserves_energy=conserves_energy, mobile=mobile
        )
        self.atoms, self.time_ps = atoms, -1.0

    def sees(self, *, temperature_K=300.0, target_temperature_K=300.0, swept=1.0, **changes):
        """Return what the watch says of the next frame."""
        self.time_ps += 1.0
        now = snapshot(self.atoms, **changes)
        return self.watch.look(
            now,
            time_ps=self.time_ps,
            temperature_K=temperature_K,
            target_temperature_K=target_temperature_K,
            swept=swept,
        )


@pytest.fixture
def quiet():
    return rocksalt_lif(rattle_A=0)


def test_a_quiet_frame_is_right_and_remembered(quiet):
    eye = Eye(quiet, mobile="Li")
    assert eye.sees(temperature_K=310.0) is None
    assert eye.sees(temperature_K=290.0, shortest_A=1.9) is None
    assert eye.watch.figures == {
        "max_temperature_K": 310.0, "max_temperature_ratio": pytest.approx(310 / 300), "max_force_eV_per_A": 0.0,
        "max_volume_ratio": pytest.approx(1.0), "max_host_displacement_ratio": 0.0, "max_energy_jump_eV_per_atom": 0.0,
        "min_distance_A": 1.9,
    }  # fmt: skip


def forces(quiet, value):
    found = np.zeros((len(quiet), 3))
    found[3] = [0.0, 0.6 * value, -0.8 * value]
    return found


def test_each_limit_has_its_sentence(quiet):
    eye = Eye(quiet)
    told = eye.sees(temperature_K=1201)
    assert told == "temperature 4.003 times the target (max_temperature_ratio 4)"
    assert eye.sees(temperature_K=1199) is None
    larger, smaller = (quiet.cell.array * factor ** (1 / 3) for factor in (1.81, 1 / 1.81))
    assert "factor 1.81" in eye.sees(cell_A=larger)
    assert "factor 1.81" in eye.sees(cell_A=smaller)
    assert "0.500 A apart, closer than min_distance_A 0.6" in eye.sees(shortest_A=0.5)
    assert "a force of 62 eV/A (max_force_eV_per_A 60)" in eye.sees(forces_eV_per_A=forces(quiet, 62))
    assert eye.sees(forces_eV_per_A=forces(quiet, 59)) is None
    for name in ("forces_eV_per_A", "positions_A", "momenta"):
        assert "no longer finite" in eye.sees(**{name: np.full((8, 3), np.nan)})
    assert "no longer finite" in eye.sees(potential_energy_eV=math.inf)


def test_a_ramp_and_a_sweep_are_judged_by_what_is_asked_for_at_that_time(quiet):
    eye = Eye(quiet)
    for target_K, length in ((50.0, 0.9), (300.0, 1.0), (1200.0, 1.1)):
        cell_A = quiet.cell.array * length
        found = eye.sees(
            temperature_K=1.2 * target_K, target_temperature_K=target_K, cell_A=cell_A, swept=length**3
        )
        assert found is None
    assert eye.watch.beyond() is None
    assert eye.watch.figures["max_volume_ratio"] == pytest.approx(1.0)
    assert "temperature 4.1 times" in eye.sees(temperature_K=205.0, target_temperature_K=50.0)
    assert "factor 1.9" in eye.sees(cell_A=quiet.cell.array * 1.9 ** (1 / 3))


def test_an_energy_that_jumps_between_two_frames_is_told_whichever_way(quiet):
    for jump_eV in (4.1, -4.1):
        eye = Eye(quiet)
        assert eye.sees(potential_energy_eV=-1.0) is None
        assert "jumped by 0.512 eV/atom" in eye.sees(potential_energy_eV=-1.0 + jump_eV)
    eye = Eye(quiet)
    # slow changes add up to more
    assert all(eye.sees(potential_energy_eV=-1.0 - 3.9 * frame) is None for frame in range(5))


def test_a_host_that_leaves_its_sites_has_melted_and_the_mobile_atoms_may(quiet):
    moved = quiet.positions.copy()
    moved[quiet.symbols == "Li"] += 10.0
    assert Eye(quiet, mobile="Li").sees(positions_A=moved) is None
    assert "the host has melted" in Eye(quiet, mobile="F").sees(
        positions_A=moved + np.arange(8)[:, None] * [0.9, 0, 0]
    )
    # four F in 4.08^3 A^3: one of them displaced by d gives an rms of d/2 sqrt(3)/2 after the drift is out
    moved = quiet.positions.copy()
    moved[np.flatnonzero(quiet.symbols == "F")[0]] += [2.0, 0.0, 0.0]
    eye = Eye(quiet, mobile="Li")
    eye.sees(positions_A=moved)
    spacing_A = 4.08 / 4 ** (1 / 3)
    expected = math.sqrt(3) / 4 * 2.0 / spacing_A
    assert eye.watch.figures["max_host_displacement_ratio"] == pytest.approx(expected)


def test_a_host_that_drifts_or_swells_as_a_whole_has_not_melted(quiet):
    eye = Eye(quiet, mobile="Li", max_host_displacement_ratio=1e-9)
    assert eye.sees(positions_A=quiet.positions + np.array([5.0, -3.0, 1.0])) is None
    assert eye.sees(positions_A=quiet.positions * 1.05, cell_A=quiet.cell.array * 1.05) is None
    atoms = Atoms("Li2", positions=[[0, 0, 0], [1.5, 1.5, 1.5]], cell=np.eye(3) * 3, pbc=True)
    # all atoms are mobile: there is no host
    assert (
        Eye(atoms, mobile="Li", max_host_displacement_ratio=1e-9).sees(positions_A=atoms.positions * 2)
        is None
    )


def test_a_drift_is_judged_once_there_are_frames_enough(quiet):
    """The energy rises by 0.008 eV a ps and frame of 8 atoms: 1 meV/atom/ps; the kinetic energy swings by 0.1 eV."""
    eye = Eye(quiet, conserves_energy=True, max_energy_drift_meV_per_atom_per_ps=0.9, max_heating_share=9)
    found = [
        eye.sees(
            potential_energy_eV=0.008 * frame - 0.1 * (-1) ** frame,
            kinetic_energy_eV=0.5 + 0.1 * (-1) ** frame,
        )
        for frame in range(checks.MIN_FRAMES_OF_SLOPE)
    ]
    assert found[:-1] == [None] * (checks.MIN_FRAMES_OF_SLOPE - 1)
    assert "drifts by 1 meV/atom/ps" in found[-1]
    assert eye.watch.figures["drift_over_fluctuation"] == pytest.approx(0.008 * 99 / 0.1)
    # 99 meV of 3 kT = 77.6 meV
    heating = 0.099 / (3 * BOLTZMANN_EV_PER_K * 300)
    assert eye.watch.figures["heating_share"] == pytest.approx(heating, rel=1e-3)
    assert eye.watch.beyond() == found[-1]
    # heating tells more the longer it is looked at too, but soon
    eye = Eye(quiet, conserves_energy=True)
    found = [
        eye.sees(potential_energy_eV=0.08 * frame, kinetic_energy_eV=0.5)
        for frame in range(checks.MIN_FRAMES_OF_DRIFT)
    ]
    assert found[:-1] == [None] * (checks.MIN_FRAMES_OF_DRIFT - 1)
    assert "drifted by 1.16 of 3 kT an atom" in found[-1]
    eye = Eye(quiet, conserves_energy=True, max_drift_over_fluctuation=7.9, max_heating_share=9)
    for frame in range(checks.MIN_FRAMES_OF_SLOPE):
        told = eye.sees(
            potential_energy_eV=0.008 * frame - 0.1 * (-1) ** frame,
            kinetic_energy_eV=0.5 + 0.1 * (-1) ** frame,
        )
    assert "drifted by 7.92 deviations of the kinetic energy" in told
    # a heat bath changes the energy: no drift is looked for
    assert "energy_drift_meV_per_atom_per_ps" not in Eye(quiet).watch.figures


def test_drift_is_the_least_squares_slope_an_atom():
    rng = np.random.default_rng(0)
    time_ps, energy_eV = np.linspace(0, 2, 21), -1e5 + rng.normal(size=21)
    kinetic_eV = rng.normal(50.0, 2.0, size=21)
    drift = checks.Drift(8)
    assert math.isnan(drift.meV_per_atom_per_ps)
    for values in zip(time_ps, energy_eV, kinetic_eV, strict=True):
        drift.add(*values)
    known = np.polyfit(time_ps, energy_eV, 1)[0] * 1000 / 8
    assert drift.meV_per_atom_per_ps == pytest.approx(known, rel=1e-9)
    over = abs(known) * 8 / 1000 * 2.0 / kinetic_eV.std()
    assert drift.over_fluctuation(2.0) == pytest.approx(over, rel=1e-9)


def test_a_watch_goes_on_from_its_state_as_if_unbroken(quiet):
    rng = np.random.default_rng(1)
    seen = [
        {
            "potential_energy_eV": rng.normal(),
            "kinetic_energy_eV": 1 + rng.random(),
            "shortest_A": 1 + rng.random(),
        }
        for _ in range(20)
    ]
    unbroken = Eye(quiet, conserves_energy=True, mobile="Li")
    for one in seen:
        unbroken.sees(**one)
    first, second = (Eye(quiet, conserves_energy=True, mobile="Li") for _ in range(2))
    for one in seen[:9]:
        first.sees(**one)
    second.watch.restore(first.watch.state())
    second.time_ps = first.time_ps
    for one in seen[9:]:
        second.sees(**one)
    assert second.watch.state() == unbroken.watch.state()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_force_eV_per_A", -1.0),
        ("max_temperature_ratio", math.nan),
        ("max_volume_ratio", 0.5),
        ("min_distance_A", math.inf),
    ],
)
def test_limits_that_every_run_is_beyond_are_refused(name, value):
    with pytest.raises(InputError, match=f"{name} must be"):
        checks.Limits(**{name: value})


def test_an_infinite_limit_is_none(quiet):
    names = [name for name in checks.Limits.__dataclass_fields__ if name != "min_distance_A"]
    eye = Eye(quiet, conserves_energy=True, min_distance_A=0.0, **dict.fromkeys(names, math.inf))
    assert eye.sees(shortest_A=1e-3, temperature_K=1e9, forces_eV_per_A=forces(quiet, 1e9)) is None


def test_throughput_is_nanoseconds_a_day():
    assert checks.throughput_ns_per_day(simulated_ps=2.0, wall_s=86.4) == pytest.approx(2.0)
