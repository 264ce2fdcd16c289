"""Starts, volumes and momenta of the protocol."""

import dataclasses

import numpy as np
import pytest
from ase.constraints import FixAtoms
from hypothesis import given, settings
from hypothesis import strategies as st
from md_runs import stage
from small import rocksalt_lif

from hopline.console import InputError
from hopline.dynamics import protocol
from hopline.trajectories import OBSERVABLES, Trajectory
from hopline.units import BOLTZMANN_EV_PER_K


def run_of(energies_eV=None, cells_A=None, interval_ps=0.1):
    """Return a trajectory with these total energies and cells."""
    n_frames = len(energies_eV if cells_A is None else cells_A)
    atoms = rocksalt_lif()
    cells_A = np.repeat(atoms.cell.array[None], n_frames, axis=0) if cells_A is None else np.asarray(cells_A)
    observables = dict.fromkeys(OBSERVABLES)
    if energies_eV is not None:
        observables |= {
            "potential_energy_eV": np.asarray(energies_eV),
            "kinetic_energy_eV": np.zeros(n_frames),
        }
    return Trajectory(
        numbers=atoms.numbers, masses_amu=atoms.get_masses(),
        positions_A=np.repeat(atoms.positions[None], n_frames, axis=0), cells_A=cells_A,
        time_ps=np.arange(n_frames) * interval_ps, observables=observables, source="run.h5",
        velocities_A_per_ps=np.zeros((n_frames, len(atoms), 3)),
    )  # fmt: skip


def test_total_momentum_goes_and_relative_velocities_stay():
    atoms = rocksalt_lif()
    protocol.draw_momenta(atoms, 900.0, seed=3)
    before = atoms.get_velocities()
    protocol.remove_total_momentum(atoms)
    np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.diff(atoms.get_velocities(), axis=0), np.diff(before, axis=0), atol=1e-12)


def test_a_start_has_its_own_momenta_in_nve_and_new_ones_elsewhere():
    atoms = rocksalt_lif()
    drawn = protocol.with_momenta(atoms, stage("nve", seed=3))
    assert not atoms.has("momenta")
    np.testing.assert_allclose(drawn.get_momenta().sum(axis=0), 0, atol=1e-12)
    again = protocol.with_momenta(drawn, stage("nve", seed=4))
    np.testing.assert_allclose(again.get_momenta(), drawn.get_momenta(), atol=1e-12)
    for thermostat, moves in (("langevin", True), ("nose-hoover", False)):
        other = protocol.with_momenta(drawn, stage("nvt", seed=4, thermostat=thermostat))
        assert np.abs(other.get_momenta() - drawn.get_momenta()).max() > 0.01
        assert (np.abs(other.get_momenta().sum(axis=0)).max() > 0.01) == moves


def test_momenta_depend_on_the_seed_alone():
    drawn = []
    for seed in (1, 1, 2):
        atoms = rocksalt_lif()
        protocol.draw_momenta(atoms, 300.0, seed)
        drawn.append(atoms.get_momenta())
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert np.abs(drawn[0] - drawn[2]).max() > 0.01


def test_drawn_momenta_have_the_temperature_before_and_after_the_total_is_removed():
    """Chi-square with 3 N and 3 N - 3 degrees of freedom an atom set; false-alarm rate 1e-3 each."""
    from scipy.stats import chi2

    from hopline.units import BOLTZMANN_EV_PER_K

    sums = np.zeros(2)
    draws, temperature_K = 200, 700.0
    for seed in range(draws):
        atoms = rocksalt_lif()
        protocol.draw_momenta(atoms, temperature_K, seed)
        sums[0] += 2 * atoms.get_kinetic_energy() / (BOLTZMANN_EV_PER_K * temperature_K)
        protocol.remove_total_momentum(atoms)
        sums[1] += 2 * atoms.get_kinetic_energy() / (BOLTZMANN_EV_PER_K * temperature_K)
    for total, freedom in zip(sums, (24, 21), strict=True):
        low, high = chi2.ppf([5e-4, 1 - 5e-4], freedom * draws)
        assert low < total < high


def test_the_volume_is_the_mean_after_the_discarded_part():
    structure = rocksalt_lif()
    scales = np.array([2.0, 2.0, 1.01, 1.03])
    run = run_of(cells_A=structure.cell.array * scales[:, None, None])
    scaled = protocol.at_mean_volume(structure, run, discard_fraction=0.5)
    assert scaled.get_volume() == pytest.approx(structure.get_volume() * (1.01**3 + 1.03**3) / 2)
    np.testing.assert_allclose(scaled.get_scaled_positions(), structure.get_scaled_positions(), atol=1e-12)
    assert structure.get_volume() == pytest.approx(4.08**3)


def test_another_supercell_is_refused():
    cells = np.repeat(rocksalt_lif((2, 1, 1)).cell.array[None], 3, axis=0)
    with pytest.raises(InputError, match="another cell shape"):
        protocol.at_mean_volume(rocksalt_lif(), run_of(cells_A=cells), discard_fraction=0.0)


@settings(max_examples=60, deadline=None)
@given(
    n_frames=st.integers(2, 400),
    replicas=st.integers(1, 6),
    apart_ps=st.floats(0, 10),
    seed=st.integers(0, 9),
)
def test_starts_are_apart_after_equilibration_and_at_the_mean(n_frames, replicas, apart_ps, seed):
    energies = np.random.default_rng(seed).normal(size=n_frames)
    run = run_of(energies)
    gap = round(apart_ps / 0.1)
    if n_frames - n_frames // 10 < replicas + (replicas - 1) * gap:
        with pytest.raises(InputError, match="cannot give"):
            protocol.select_starts(run, replicas=replicas, starts_apart_ps=apart_ps)
        return
    chosen = protocol.select_starts(run, replicas=replicas, starts_apart_ps=apart_ps)
    starts = [start.row for start in chosen]
    assert len(starts) == replicas
    assert starts[0] >= n_frames // 10
    assert starts[-1] < n_frames
    assert (np.diff(run.time_ps[starts]) >= apart_ps - 1e-9).all()
    mean = energies[n_frames // 10 :].mean()
    # the first start is the nearest to the mean in the first stretch: nothing before it there is nearer
    before = energies[n_frames // 10 : starts[0]]
    assert not len(before) or np.abs(before - mean).min() >= abs(energies[starts[0]] - mean)
    # eight atoms: 21 degrees of freedom, which share what the energy is off
    excess_K = (energies[starts] - mean) / (21 * BOLTZMANN_EV_PER_K)
    np.testing.assert_allclose([start.excess_K for start in chosen], excess_K)


def test_the_starts_known_to_be_nearest_are_taken():
    energies = np.ones(100)
    energies[1::2] = -1
    energies[[15, 55, 85]] = 0.001
    starts = protocol.select_starts(run_of(energies), replicas=3, starts_apart_ps=1.0)
    assert [start.row for start in starts] == [15, 55, 85]


def test_the_motion_of_the_centre_of_mass_plays_no_part():
    """It is taken out of the start: 0.001 eV off the mean without it beats 0 eV off with it."""
    atoms = rocksalt_lif()
    energies = np.ones(100)
    energies[1::2] = -1
    speeds = np.zeros(100)
    # in A/ps; the mass is 103.7 u, an eV is 9648.5 u A^2/ps^2
    speeds[[15, 40]] = np.sqrt(2 * 9648.53 / atoms.get_masses().sum())
    energies[[15, 40]] = [0.001, 1.001]
    velocities = np.zeros((100, 8, 3))
    velocities[:, :, 1] = speeds[:, None]
    run = dataclasses.replace(run_of(energies), velocities_A_per_ps=velocities)
    [start] = protocol.select_starts(run, replicas=1, starts_apart_ps=0.0)
    assert start.row == 40
    with pytest.raises(InputError, match="holds no velocities"):
        protocol.select_starts(
            dataclasses.replace(run, velocities_A_per_ps=None), replicas=1, starts_apart_ps=0.0
        )


@pytest.mark.parametrize("ensemble", ["nve", "nvt"])
def test_constrained_atoms_are_refused_since_no_engine_knows_them(ensemble):
    atoms = rocksalt_lif()
    atoms.set_constraint(FixAtoms([0]))
    with pytest.raises(InputError, match="constrained atoms"):
        protocol.with_momenta(atoms, stage(ensemble))


def test_one_atom_alone_has_nothing_to_do_in_nve():
    with pytest.raises(InputError, match="one atom alone cannot move in nve"):
        protocol.with_momenta(rocksalt_lif()[:1], stage("nve"))
    assert protocol.with_momenta(rocksalt_lif()[:1], stage("nvt")).has("momenta")


def test_a_run_without_energies_gives_no_starts():
    run = run_of(np.zeros(50))
    bare = dataclasses.replace(run, observables=dict.fromkeys(OBSERVABLES))
    with pytest.raises(InputError, match="holds no energies"):
        protocol.select_starts(bare, replicas=2, starts_apart_ps=0.1)
