"""Walls of known height: Lennard-Jones has no hole, exp-6 falls behind a maximum that can be worked out."""

import numpy as np
import pytest
from ase.data import atomic_numbers, covalent_radii
from scipy.optimize import brentq
from small import LIF_A, PairPotential, label, rocksalt_lif

from hopline.console import InputError
from hopline.dynamics.checks import Limits
from hopline.dynamics.protocol import Stage
from hopline.dynamics.stability import DEEPEST_BOND_EV, DIP_EV, LEVEL_EV, Scan, examine, judge_wall

SCAN = Scan(min_barrier_eV=3.0, scan_from_ratio=0.3, scan_points=400)
HOT = Stage(
    ensemble="nvt", temperature_K=300, timestep_fs=1, duration_ps=0.05, frame_interval_fs=5, seed=1, friction_per_ps=10
)  # fmt: skip
LI_F_A = covalent_radii[atomic_numbers["Li"]] + covalent_radii[atomic_numbers["F"]]


def lennard_jones(depth_eV=0.1, sigma_A=1.75):
    return PairPotential(
        lambda r: 4 * depth_eV * ((sigma_A / r) ** 12 - (sigma_A / r) ** 6),
        lambda r: 4 * depth_eV * (-12 * (sigma_A / r) ** 12 + 6 * (sigma_A / r) ** 6) / r,
    )


def exp_6(prefactor_eV, decay_per_A=4.87318, attraction_eV_A6=133.5381):
    """Return Buckingham's potential; decay and attraction are those of Si-O (van Beest et al. 1990)."""
    return PairPotential(
        lambda r: prefactor_eV * np.exp(-decay_per_A * r) - attraction_eV_A6 / r**6,
        lambda r: -decay_per_A * prefactor_eV * np.exp(-decay_per_A * r) + 6 * attraction_eV_A6 / r**7,
    )


def training():
    made = []
    for temperature_K in (300, 900, 600):
        atoms = rocksalt_lif(rattle_A=0.03, seed=temperature_K)
        made.append(label(atoms, temperature_K=temperature_K))
    return made


def wall_of(found, pair, surroundings):
    return next(wall for wall in found.walls if (wall.pair, wall.surroundings) == (pair, surroundings))


def test_lennard_jones_has_no_hole_and_the_wall_it_should_have():
    calculator = lennard_jones()
    found = examine(calculator, training(), scan=SCAN, hot=HOT, limits=Limits())
    assert [(wall.pair, wall.surroundings) for wall in found.walls] == [
        (pair, where) for where in ("vacuum", "crystal") for pair in ("F-F", "F-Li", "Li-Li")
    ]
    assert all(wall.hole_A is None for wall in found.walls)
    wall = wall_of(found, "F-Li", "vacuum")
    start, end, level = LI_F_A, 0.3 * LI_F_A, calculator.energy_eV
    assert wall.barrier_eV == pytest.approx(level(end) - level(start), rel=1e-9)
    turning_A = brentq(lambda r: level(r) - level(start) - 3.0, end, start)
    assert wall.turning_A == pytest.approx(turning_A, abs=0.7 * LI_F_A / 399)
    assert wall.turning_A <= turning_A
    assert found.hot_run.status == "finished"
    assert found.faults() == []
    assert found.figures()["lowest_barrier_eV"] == min(one.barrier_eV for one in found.walls)


@pytest.mark.parametrize("prefactor_eV", [15_000, 18_003.7572])
def test_exp_6_falls_behind_a_barrier_of_known_height(prefactor_eV):
    calculator = exp_6(prefactor_eV)
    start = LI_F_A
    top_A = brentq(calculator.slope_eV_per_A, 0.9, 1.5)
    barrier_eV = calculator.energy_eV(top_A) - calculator.energy_eV(start)
    distances_A = np.linspace(start, 0.3 * start, 2000)
    energies_eV = calculator.energy_eV(distances_A) - calculator.energy_eV(start)
    found_eV, turning_A, hole_A = judge_wall(distances_A, energies_eV, min_barrier_eV=3.0)
    # the grid's nearest point is half a step away: second order in a step of 0.7 mA
    assert found_eV == pytest.approx(barrier_eV, abs=1e-4)
    assert 0.3 * start < hole_A < top_A
    bond_eV = energies_eV[energies_eV.argmax() :: -1].min()
    level_eV = min(bond_eV + LEVEL_EV, energies_eV.max() - DIP_EV)
    row = int(np.flatnonzero(distances_A == hole_A)[0])
    assert energies_eV[row] < level_eV <= energies_eV[row - 1]
    assert (turning_A is None) == (barrier_eV < 3.0)


def test_a_potential_with_a_hole_is_not_fit_whoever_finds_it():
    """Fluorine pairs of the crystal stand far outside the hole, alone they start within it."""
    found = examine(exp_6(16_000), training(), scan=SCAN, hot=HOT, limits=Limits())
    faults = " ".join(found.faults())
    assert "F-Li in crystal" in faults
    assert "at least 3 eV are wanted" in faults
    assert wall_of(found, "F-Li", "crystal").hole_A is not None
    assert wall_of(found, "F-F", "vacuum").barrier_eV == 0
    # alone they fall without a barrier, and deeper than any bond
    assert (
        "F-F in vacuum: 0.00 eV to climb from 1.14 A, a hole from 1.13 A on, 80433 eV deep: no bond is"
        in faults
    )


def test_a_way_down_to_a_shorter_bond_is_no_hole():
    distances_A = np.linspace(3.0, 1.0, 201)
    # a double bond at 1.8 A, and a bump before it lower than what counts
    energies_eV = 5 * (distances_A - 1.8) ** 2 * np.where(distances_A < 1.8, 20, 1)
    energies_eV += 0.8 * DIP_EV * np.exp(-(((distances_A - 2.9) / 0.02) ** 2))
    energies_eV -= energies_eV[0]
    barrier_eV, turning_A, hole_A = judge_wall(distances_A, energies_eV, min_barrier_eV=3.0)
    assert hole_A is None
    assert barrier_eV == pytest.approx(energies_eV[-1])
    assert 1.0 < turning_A < 1.8


def test_a_shelf_high_in_the_wall_is_no_hole_and_a_low_one_is():
    distances_A = np.linspace(2.0, 1.0, 5)
    high = np.array([0, 2.5, LEVEL_EV + 0.1, 8.0, 9.0])
    assert judge_wall(distances_A, high, min_barrier_eV=3.0) == (9.0, 1.25, None)
    low = np.array([0, 2.5, LEVEL_EV - 0.1, 8.0, 9.0])
    assert judge_wall(distances_A, low, min_barrier_eV=3.0) == (2.5, None, 1.5)


def test_an_energy_that_is_no_number_is_a_hole():
    distances_A = np.linspace(2.0, 1.0, 5)
    energies_eV = np.array([0.0, 1.0, np.nan, np.inf, 4.0])
    assert judge_wall(distances_A, energies_eV, min_barrier_eV=3.0) == (1.0, None, 1.5)


def test_a_fall_deeper_than_any_bond_is_a_hole_whatever_wall_stands_behind():
    # a well at 1.3 A, reached from 2.5 A without a barrier, and a hard core behind it
    distances_A = np.linspace(2.5, 0.8, 60)
    energies_eV = -40 * np.exp(-(((distances_A - 1.3) / 0.35) ** 2)) + 60 * np.exp(
        -(distances_A - 0.8) / 0.12
    )
    energies_eV -= energies_eV[0]
    assert energies_eV.min() < -38
    assert energies_eV[-1] > 40
    barrier_eV, turning_A, hole_A = judge_wall(distances_A, energies_eV, min_barrier_eV=3.0)
    assert (barrier_eV, turning_A) == (0.0, None)
    # it begins where the way down does
    row = int(np.flatnonzero(distances_A == hole_A)[0])
    assert energies_eV[row] <= -DIP_EV < energies_eV[row - 1]
    # as deep as the deepest bond it is one, and the wall behind it counts
    for depth_eV, is_hole in ((0.99 * DEEPEST_BOND_EV, False), (1.01 * DEEPEST_BOND_EV, True)):
        scaled_eV = energies_eV * depth_eV / -energies_eV.min()
        found_eV, turning_A, hole_A = judge_wall(distances_A, scaled_eV, min_barrier_eV=3.0)
        assert (hole_A is not None, turning_A is None) == (is_hole, is_hole)
        assert found_eV == pytest.approx(0.0 if is_hole else scaled_eV[-1])


def test_no_number_on_the_way_down_is_no_bond():
    distances_A = np.linspace(2.0, 1.0, 5)
    energies_eV = np.array([0.0, -0.2, np.nan, 5.0, 9.0])
    assert judge_wall(distances_A, energies_eV, min_barrier_eV=3.0) == (0.0, None, 1.5)


def test_a_potential_that_falls_without_a_barrier_is_not_fit_and_the_depth_is_told():
    """Two atoms at 40 eV below the start, a core of 200 eV behind: what looked like a bond with a high wall."""
    width_A, core_A = 0.3, 0.1

    def parts(r):
        return -40 * np.exp(-(((r - 1.1) / width_A) ** 2)), 200 * np.exp(-(r - 0.5) / core_A)

    def slope(r):
        well_eV, wall_eV = parts(r)
        # an atom is infinitely far from itself
        return -2 * (np.minimum(r, 99) - 1.1) / width_A**2 * well_eV - wall_eV / core_A

    falling = PairPotential(lambda r: sum(parts(r)), slope)
    found = examine(falling, training(), scan=SCAN, hot=HOT, limits=Limits())
    wall = wall_of(found, "Li-Li", "vacuum")
    distances_A = np.linspace(wall.start_A, 0.3 * wall.start_A, SCAN.scan_points)
    level = falling.energy_eV(distances_A) - falling.energy_eV(wall.start_A)
    assert wall.lowest_eV == pytest.approx(level.min())
    assert wall.lowest_eV < -38
    told = (
        f"Li-Li in vacuum: 0.00 eV to climb from {wall.start_A:.2f} A, a hole from {wall.hole_A:.2f} A on, "
    )
    assert any(
        fault.startswith(f"{told}{-wall.lowest_eV:.0f} eV deep: no bond is") for fault in found.faults()
    )
    assert found.figures()["lowest_barrier_eV"] == 0


def test_no_wall_at_all_is_a_barrier_of_zero():
    distances_A = np.linspace(2.0, 1.0, 5)
    assert judge_wall(distances_A, -np.arange(5.0), min_barrier_eV=3.0) == (0.0, None, None)


def test_the_hot_run_starts_from_the_hottest_frame_and_its_end_is_told():
    limits = Limits(max_temperature_ratio=0.01)
    frames = training()
    before = [atoms.positions.copy() for atoms in frames]
    found = examine(lennard_jones(), frames, scan=SCAN, hot=HOT, limits=limits)
    assert found.hot_run.status == "exploded"
    assert any(told.startswith("the run at 300 K exploded after 0 ps") for told in found.faults())
    for atoms, positions in zip(frames, before, strict=True):
        assert (atoms.positions == positions).all()
    # the closest pair of the frame at 900 K is where the crystal's scan starts
    apart_A = frames[1].get_all_distances(mic=True)[
        np.ix_(frames[1].symbols == "Li", frames[1].symbols == "F")
    ]
    assert wall_of(found, "F-Li", "crystal").start_A == pytest.approx(apart_A.min())
    assert apart_A.min() < LIF_A / 2


def test_a_start_without_an_energy_is_refused():
    broken = PairPotential(lambda r: np.nan * r, lambda r: np.nan * r)
    with pytest.raises(InputError, match=r"F-F in vacuum, 1\.14 A apart, is not finite"):
        examine(broken, training(), scan=SCAN, hot=HOT, limits=Limits())
