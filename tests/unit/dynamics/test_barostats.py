"""Constant pressure: volumes of an ideal gas, a crystal on springs and Lennard-Jones argon, each by a second route."""

import ase.units
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.md.langevinbaoab import LangevinBAOAB
from model_systems import (
    FALSE_ALARM,
    EinsteinCrystal,
    OneOfBatch,
    argon,
    argon_model,
    begin,
    chi_square_chance,
    crystal,
    decorrelated,
    mean_and_error,
    run,
)
from scipy.stats import gamma, norm
from scipy.stats import t as student

from hopline.console import InputError
from hopline.dynamics.barostats import (
    LangevinPiston,
    StochasticCellRescaling,
    piston_mass,
    pressures_GPa,
    volumes_A3,
)
from hopline.dynamics.protocol import draw_momenta
from hopline.dynamics.state import kinetic_energies_eV
from hopline.units import ASE_TIME_PER_FS, BOLTZMANN_EV_PER_K

BAROSTATS = [LangevinPiston, StochasticCellRescaling]
N_SYSTEMS = 128


def named(integrator):
    return integrator.__name__


@pytest.mark.slow
@pytest.mark.parametrize("barostat", BAROSTATS, ids=named)
def test_volumes_of_an_ideal_gas_follow_their_gamma_law(barostat):
    n_atoms, temperature_K, pressure_GPa = 4, 600.0, 20.0
    law = gamma(n_atoms + 1, scale=BOLTZMANN_EV_PER_K * temperature_K / (pressure_GPa * ase.units.GPa))
    systems = []
    for seed in range(N_SYSTEMS):
        length_A = law.rvs(random_state=seed) ** (1 / 3)
        atoms = Atoms(f"Ar{n_atoms}", cell=[length_A] * 3, pbc=True)
        atoms.set_scaled_positions(np.random.default_rng(seed).random((n_atoms, 3)))
        draw_momenta(atoms, temperature_K, seed)
        systems.append(atoms)
    model = EinsteinCrystal(np.zeros((n_atoms, 3)), np.zeros(n_atoms))
    integrator = barostat(2.0, friction_per_ps=20.0, pressure_GPa=pressure_GPa, barostat_time_fs=100.0)
    started = begin(integrator, systems, model)
    warm, _ = run(integrator, started, 2000, temperature_K)
    _, volumes = run(integrator, (warm, *started[1:]), 10_000, temperature_K, every=20, observe=volumes_A3)
    samples = decorrelated(volumes)
    assert chi_square_chance(samples, law) > FALSE_ALARM
    # one factor of V more or less, as of a centre of mass that is not scaled, is seen
    for other in (n_atoms, n_atoms + 2):
        assert chi_square_chance(samples, gamma(other, scale=law.kwds["scale"])) < FALSE_ALARM


@pytest.mark.slow
@pytest.mark.parametrize("barostat", BAROSTATS, ids=named)
def test_volumes_of_a_crystal_on_springs_follow_their_gaussian_law(barostat):
    temperature_K, pressure_GPa, modulus, volume_A3 = 300.0, 1.0, 50.0 * ase.units.GPa, 216.0
    stiffness = np.array([1.0, 1.7, 2.9, 4.1, 6.3, 8.0, 11.0, 15.0])
    made = [crystal(temperature_K, stiffness, free=False, seed=seed) for seed in range(N_SYSTEMS)]
    model = EinsteinCrystal(made[0][1], stiffness, volume_A3=volume_A3, modulus_eV_per_A3=modulus)
    integrator = barostat(1.0, friction_per_ps=20.0, pressure_GPa=pressure_GPa, barostat_time_fs=50.0)
    started = begin(integrator, [atoms for atoms, _ in made], model)

    def both(state):
        return torch.stack((volumes_A3(state), kinetic_energies_eV(state)))

    warm, _ = run(integrator, started, 2000, temperature_K)
    _, seen = run(integrator, (warm, *started[1:]), 8000, temperature_K, every=10, observe=both)
    thermal_eV = BOLTZMANN_EV_PER_K * temperature_K
    mean_A3 = volume_A3 * (1.0 - pressure_GPa * ase.units.GPa / modulus)
    law = norm(mean_A3, np.sqrt(thermal_eV * volume_A3 / modulus))
    assert chi_square_chance(decorrelated(seen[:, 0]), law) > FALSE_ALARM
    assert chi_square_chance(decorrelated(seen[:, 1]), gamma(12, scale=thermal_eV)) > FALSE_ALARM


BAROSTAT_TIME_FS = 20.0
"""Argon is fifteen times softer than the typical crystal, its volume that much slower than this."""


def argon_volumes(barostat, pressures, n_steps):
    """Return volumes of argon at 40 K, (n_frames, 16) a pressure, and the mean pressures seen in GPa."""
    seen = {}
    for pressure_GPa in pressures:
        integrator = barostat(
            4.0, friction_per_ps=5.0, pressure_GPa=pressure_GPa, barostat_time_fs=BAROSTAT_TIME_FS
        )
        started = begin(integrator, [argon(40.0, seed) for seed in range(16)], argon_model(), seed=1)
        warm, _ = run(integrator, started, 1000, 40.0)

        def both(state):
            return torch.stack((volumes_A3(state), pressures_GPa(state)))

        _, seen[pressure_GPa] = run(integrator, (warm, *started[1:]), n_steps, 40.0, every=5, observe=both)
    return seen


@pytest.fixture(scope="module", params=BAROSTATS, ids=named)
def argon_seen(request):
    return argon_volumes(request.param, [0.1, 0.2, 0.3], 3000)


@pytest.fixture(scope="module")
def volumes_by_ase():
    """One run at 0.1 GPa in sixteen blocks of 3 ps, each many relaxation times long."""
    atoms = argon(40.0)
    atoms.calc = OneOfBatch(argon_model())
    time = BAROSTAT_TIME_FS * ASE_TIME_PER_FS
    driver = LangevinBAOAB(
        atoms, 4.0 * ASE_TIME_PER_FS, temperature_K=40.0, T_tau=200.0 * ASE_TIME_PER_FS, hydrostatic=True,
        externalstress=-0.1 * ase.units.GPa, P_tau=time / 2, rng=np.random.default_rng(2),
        P_mass=piston_mass(atoms.get_volume(), BAROSTAT_TIME_FS),
    )  # fmt: skip
    driver.run(1000)
    volumes = []
    driver.attach(lambda: volumes.append(atoms.get_volume()), interval=5)
    driver.run(12_000)
    return np.array(volumes[-2400:]).reshape(16, 150).T


@pytest.mark.slow
def test_mean_volume_of_argon_is_that_of_ases_barostat(argon_seen, volumes_by_ase):
    ours, our_error = mean_and_error(argon_seen[0.1][:, 0])
    theirs, their_error = mean_and_error(volumes_by_ase)
    assert abs(ours - theirs) < student.isf(FALSE_ALARM / 2, 15) * np.hypot(our_error, their_error)
    assert their_error < 2e-3 * theirs
    # the virial and the atoms' motion balance what presses from outside
    for pressure_GPa, seen in argon_seen.items():
        pressure, error = mean_and_error(seen[:, 1])
        assert abs(pressure - pressure_GPa) < student.isf(FALSE_ALARM / 2, 15) * error
        assert error < 0.01


@pytest.mark.slow
def test_compressibility_by_fluctuations_is_that_by_pressure_difference(argon_seen):
    volumes = {pressure_GPa: both[:, 0] for pressure_GPa, both in argon_seen.items()}
    slopes = (volumes[0.1].mean(axis=0) - volumes[0.3].mean(axis=0)) / (0.2 * ase.units.GPa)
    off = volumes[0.2] - volumes[0.2].mean()
    fluctuations = (off**2).mean(axis=0) / (BOLTZMANN_EV_PER_K * 40.0)
    error = np.hypot(slopes.std(ddof=1), fluctuations.std(ddof=1)) / 4.0
    assert abs(slopes.mean() - fluctuations.mean()) < student.isf(FALSE_ALARM / 2, 15) * error
    assert error < 0.1 * slopes.mean()


def quiet_piston(timestep_fs):
    return LangevinPiston(
        timestep_fs,
        friction_per_ps=0.0,
        pressure_GPa=0.1,
        barostat_time_fs=100.0,
        barostat_friction_per_ps=0.0,
    )


def test_a_piston_on_a_typical_crystal_swings_at_its_stated_frequency():
    modulus, volume_A3, time_fs = 50.0 * ase.units.GPa, 216.0, 30.0
    stiffness = np.full(4, 5.0)
    atoms, sites = crystal(1e-9, stiffness, length_A=6.003, free=False)
    integrator = LangevinPiston(
        1.0, friction_per_ps=0.0, pressure_GPa=0.0, barostat_time_fs=time_fs, barostat_friction_per_ps=0.0
    )
    model = EinsteinCrystal(sites, stiffness, volume_A3=volume_A3, modulus_eV_per_A3=modulus)
    _, volumes = run(integrator, begin(integrator, [atoms], model), 1885, 0.0, observe=volumes_A3)
    # ten periods of 2 pi tau: as many crossings of the volume at rest upwards, and back where it started
    upwards = np.flatnonzero((volumes[:-1, 0] < volume_A3) & (volumes[1:, 0] >= volume_A3))
    assert np.diff(upwards).mean() == pytest.approx(2 * np.pi * time_fs, rel=5e-3)
    assert len(upwards) == 10


def test_energy_of_the_piston_without_heat_baths_swings_with_the_square_of_the_timestep():
    timesteps_fs = np.array([2.0, 4.0, 8.0])
    swings = []
    for timestep_fs in timesteps_fs:
        integrator = quiet_piston(timestep_fs)
        systems = [argon(40.0, seed, lattice_A=5.4) for seed in range(4)]
        started = begin(integrator, systems, argon_model())
        state, kept = run(
            integrator, started, round(3200 / timestep_fs), 0.0, observe=integrator.conserved_eV
        )
        swings.append(kept.std(axis=0).mean())
        halves = np.array_split(kept, 2)
        assert abs(halves[1].mean() - halves[0].mean()) < swings[-1]
    assert np.polyfit(np.log(timesteps_fs), np.log(swings), 1)[0] == pytest.approx(2.0, abs=0.15)
    assert (state.extra["heat_eV"] == 0.0).all()
    # the cell did move: what is kept is a sum of parts that come and go
    assert (volumes_A3(state) / volumes_A3(started[0]) - 1.0).abs().min() > 1e-3


def test_the_piston_without_heat_baths_runs_backwards():
    integrator = quiet_piston(4.0)
    state, forces, noise = begin(integrator, [argon(40.0, lattice_A=5.4)], argon_model())
    there, _ = run(integrator, (state, forces, noise), 200, 0.0)
    turned = there.moved(forces(there.positions_A, there.cells_A), momenta=-there.momenta)
    turned = turned.with_extra(strain_rates=-there.extra["strain_rates"])
    back, _ = run(integrator, (turned, forces, noise), 200, 0.0)
    assert (there.cells_A - state.cells_A).abs().max() > 1e-2
    assert (back.positions_A - state.positions_A).abs().max() < 1e-9
    assert (back.cells_A - state.cells_A).abs().max() < 1e-9


def test_the_piston_with_heat_baths_keeps_its_effective_energy():
    drifts = []
    for timestep_fs in (2.0, 4.0):
        integrator = LangevinPiston(
            timestep_fs, friction_per_ps=5.0, pressure_GPa=0.1, barostat_time_fs=200.0
        )
        started = begin(integrator, [argon(40.0, seed) for seed in range(8)], argon_model())
        _, kept = run(integrator, started, round(2400 / timestep_fs), 40.0, observe=integrator.conserved_eV)
        drifts.append(kept.std(axis=0).mean())
    assert drifts[0] < 1e-5 * 32
    assert drifts[1] / drifts[0] == pytest.approx(4.0, rel=0.25)


@pytest.mark.parametrize("barostat", BAROSTATS, ids=named)
def test_the_cell_keeps_its_shape_and_the_atoms_their_place_in_it(barostat):
    integrator = barostat(2.0, friction_per_ps=1e-6, pressure_GPa=50.0, barostat_time_fs=100.0)
    atoms = Atoms("Ar2", cell=[[9.0, 0.0, 0.0], [2.0, 8.0, 0.0], [1.0, -1.0, 7.0]], pbc=True)
    atoms.set_scaled_positions([[0.1, 0.7, 0.3], [2.5, -0.4, 0.2]])
    model = EinsteinCrystal(atoms.get_scaled_positions(wrap=False), np.zeros(2))
    state, _ = run(integrator, begin(integrator, [atoms], model), 20, 1e-6)
    shrunk = state.cells_A[0].numpy() / np.where(atoms.cell.array == 0.0, 1.0, atoms.cell.array)
    factors = shrunk[atoms.cell.array != 0.0]
    assert factors.max() < 0.99
    np.testing.assert_allclose(factors, factors[0], rtol=1e-13)
    scaled = np.linalg.solve(state.cells_A[0].numpy().T, state.positions_A.numpy().T).T
    np.testing.assert_allclose(scaled, atoms.get_scaled_positions(wrap=False), atol=1e-4)


def test_pressure_of_an_ideal_gas_is_that_of_its_motion():
    systems = []
    for temperature_K in (300.0, 600.0):
        atoms = Atoms("Ar5", positions=np.eye(5)[:, :3], cell=[4.0, 5.0, 6.0], pbc=True)
        draw_momenta(atoms, temperature_K, seed=1)
        systems.append(atoms)
    integrator = LangevinPiston(1.0, friction_per_ps=1.0, pressure_GPa=1.0, barostat_time_fs=100.0)
    state, _, _ = begin(integrator, systems, EinsteinCrystal(np.zeros((5, 3)), np.zeros(5)))
    expected = [2.0 * atoms.get_kinetic_energy() / (3.0 * 120.0) / ase.units.GPa for atoms in systems]
    np.testing.assert_allclose(pressures_GPa(state).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("barostat", BAROSTATS, ids=named)
@pytest.mark.parametrize(
    ("changed", "named_setting"),
    [
        ({"timestep_fs": 0.0}, "timestep_fs"),
        ({"friction_per_ps": -1.0}, "friction_per_ps"),
        ({"pressure_GPa": float("inf")}, "pressure_GPa"),
        ({"barostat_time_fs": 0.0}, "barostat_time_fs"),
    ],
)
def test_settings_no_barostat_can_follow_are_refused(barostat, changed, named_setting):
    good = {"timestep_fs": 1.0, "friction_per_ps": 1.0, "pressure_GPa": 0.0, "barostat_time_fs": 100.0}
    with pytest.raises(InputError, match=named_setting):
        barostat(**{**good, **changed})


def test_forces_without_stresses_are_a_defect():
    integrator = LangevinPiston(1.0, friction_per_ps=1.0, pressure_GPa=1.0, barostat_time_fs=100.0)
    model = argon_model()
    state, _, _ = begin(integrator, [argon()], model)
    state = state.moved(model.compute(state.positions_A, state.cells_A, stress=False))
    with pytest.raises(ValueError, match="stresses"):
        pressures_GPa(state)
