"""Constant volume: mechanics that can be reversed, ASE's own steps, and laws of statistical mechanics."""

import json

import numpy as np
import pytest
import torch
from ase.calculators.lj import LennardJones
from ase.md.verlet import VelocityVerlet as AseVelocityVerlet
from model_systems import (
    ARGON,
    CPU,
    FALSE_ALARM,
    EinsteinCrystal,
    argon,
    argon_model,
    begin,
    chi_square_chance,
    crystal,
    decorrelated,
    mean_and_error,
    run,
)
from scipy.stats import gamma
from scipy.stats import t as student

from hopline.console import InputError
from hopline.dynamics.barostats import LangevinPiston, StochasticCellRescaling
from hopline.dynamics.integrators import Langevin, NoseHooverChain, VelocityVerlet
from hopline.dynamics.protocol import draw_momenta
from hopline.dynamics.state import BatchState, Noise, kinetic_energies_eV
from hopline.units import ASE_TIME_PER_FS, BOLTZMANN_EV_PER_K

STIFFNESS = np.array([1.0, 1.7, 2.9, 4.1, 6.3, 8.0, 11.0, 15.0])
EVERY_ENSEMBLE = [
    VelocityVerlet(2.0),
    Langevin(2.0, friction_per_ps=5.0),
    NoseHooverChain(2.0, thermostat_time_fs=100.0),
    LangevinPiston(2.0, friction_per_ps=5.0, pressure_GPa=0.1, barostat_time_fs=200.0),
    StochasticCellRescaling(2.0, friction_per_ps=5.0, pressure_GPa=0.1, barostat_time_fs=500.0),
]


def kinetic_law(temperature_K, freedom):
    return gamma(freedom / 2, scale=BOLTZMANN_EV_PER_K * temperature_K)


def test_the_lennard_jones_of_these_tests_is_ases():
    systems = [argon(seed=1), argon(seed=2)]
    state, _, _ = begin(EVERY_ENSEMBLE[3], systems, argon_model())
    for row, atoms in enumerate(systems):
        atoms.calc = LennardJones(**ARGON)
        alone = state.select([row])
        assert alone.energies_eV.item() == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
        np.testing.assert_allclose(alone.forces_eV_per_A.numpy(), atoms.get_forces(), atol=1e-13)
        np.testing.assert_allclose(
            alone.stresses_eV_per_A3[0].numpy(), atoms.get_stress(voigt=False), atol=1e-14
        )
        distances = atoms.get_all_distances(mic=True)
        assert alone.shortest_A.item() == pytest.approx(distances[distances > 0].min(), rel=1e-12)


@pytest.mark.slow
def test_velocity_verlet_is_ases_step_by_step():
    atoms = argon(temperature_K=80.0)
    integrator = VelocityVerlet(2.0)
    started = begin(integrator, [atoms], argon_model())
    state, _ = run(integrator, started, 1000, 0.0)
    atoms.calc = LennardJones(**ARGON)
    AseVelocityVerlet(atoms, 2.0 * ASE_TIME_PER_FS).run(1000)
    np.testing.assert_allclose(state.positions_A.numpy(), atoms.positions, atol=1e-10)
    np.testing.assert_allclose(state.momenta.numpy(), atoms.get_momenta(), atol=1e-10)
    assert state.energies_eV.item() == pytest.approx(atoms.get_potential_energy(), abs=1e-10)


def test_energy_of_velocity_verlet_swings_with_the_square_of_the_timestep():
    timesteps_fs = np.array([1.0, 2.0, 4.0, 8.0])
    swings = []
    for timestep_fs in timesteps_fs:
        integrator = VelocityVerlet(timestep_fs)
        started = begin(integrator, [argon(seed=seed) for seed in range(4)], argon_model())
        _, energies = run(
            integrator, started, round(1600 / timestep_fs), 0.0, observe=integrator.conserved_eV
        )
        swings.append(energies.std(axis=0).mean())
    slope = np.polyfit(np.log(timesteps_fs), np.log(swings), 1)[0]
    assert slope == pytest.approx(2.0, abs=0.1)


def test_velocity_verlet_runs_backwards_to_where_it_came_from():
    integrator = VelocityVerlet(4.0)
    state, forces, noise = begin(integrator, [argon(80.0)], argon_model())
    there, _ = run(integrator, (state, forces, noise), 500, 0.0)
    assert (there.positions_A - state.positions_A).abs().max() > 0.1
    back, _ = run(integrator, (there.moved(forces(there.positions_A, there.cells_A), momenta=-there.momenta),
                               forces, noise), 500, 0.0)  # fmt: skip
    assert (back.positions_A - state.positions_A).abs().max() < 1e-9
    assert (back.momenta + state.momenta).abs().max() < 1e-9


@pytest.mark.parametrize("integrator", [VelocityVerlet(4.0), NoseHooverChain(4.0, thermostat_time_fs=100.0)])
def test_total_momentum_stays_zero(integrator):
    assert integrator.conserves_momentum
    state, _ = run(integrator, begin(integrator, [argon(80.0)], argon_model()), 500, 80.0)
    assert state.momenta.sum(0).abs().max() < 1e-12


@pytest.mark.parametrize("integrator", EVERY_ENSEMBLE, ids=lambda made: type(made).__name__)
def test_nine_together_are_nine_alone_bit_for_bit(integrator):
    systems = [argon(20.0 + 5 * seed, seed) for seed in range(9)]
    temperatures = torch.arange(9.0, dtype=torch.float64) * 5 + 20.0
    together, forces, noise = begin(integrator, systems, argon_model())
    kept = noise.states()
    ended, _ = run(integrator, (together, forces, noise), 30, temperatures)
    for row in range(9):
        own = Noise.of_states([kept[row]], [32], CPU)
        alone, _ = run(integrator, (together.select([row]), forces, own), 30, temperatures[row])
        for name, array in ended.select([row]).to_arrays().items():
            np.testing.assert_array_equal(alone.to_arrays()[name], array, err_msg=name)


@pytest.mark.parametrize("integrator", EVERY_ENSEMBLE, ids=lambda made: type(made).__name__)
def test_a_state_saved_and_read_goes_on_as_if_it_had_not_been(integrator, tmp_path):
    started = begin(integrator, [argon(seed=seed) for seed in range(3)], argon_model())
    half, _ = run(integrator, started, 10, 50.0)
    kinds = {name: str(array.dtype) for name, array in half.to_arrays().items()}
    assert kinds.pop("system_of_atom") == "int64"
    assert set(kinds.values()) == {"float64"}
    np.savez(tmp_path / "state.npz", **half.to_arrays())
    told = json.dumps(started[2].states())
    whole, _ = run(integrator, (half, *started[1:]), 10, 50.0)
    with np.load(tmp_path / "state.npz") as arrays:
        read = BatchState.from_arrays(arrays, CPU)
    noise = Noise.of_states(json.loads(told), [32] * 3, CPU)
    again, _ = run(integrator, (read, started[1], noise), 10, 50.0)
    assert set(again.to_arrays()) == set(whole.to_arrays())
    for name, array in whole.to_arrays().items():
        np.testing.assert_array_equal(again.to_arrays()[name], array, err_msg=name)


def test_systems_that_leave_a_batch_leave_the_others_as_they_are():
    integrator = EVERY_ENSEMBLE[3]
    started = begin(integrator, [argon(seed=seed) for seed in range(4)], argon_model())
    half, _ = run(integrator, started, 5, 50.0)
    kept = started[2].states()
    whole, _ = run(integrator, (half, *started[1:]), 5, 50.0)
    noise = Noise.of_states(kept, [32] * 4, CPU).select([3, 1])
    fewer, _ = run(integrator, (half.select([3, 1]), started[1], noise), 5, 50.0)
    for name, array in whole.select([3, 1]).to_arrays().items():
        np.testing.assert_array_equal(fewer.to_arrays()[name], array, err_msg=name)


def test_noise_is_standard_normal_and_a_systems_own():
    noise = Noise.of_seeds([3, 4], [1000, 500], CPU)
    numbers = torch.cat([noise.atoms() for _ in range(20)])
    # 90,000 numbers: five standard errors, false alarm 1e-6
    assert abs(numbers.mean().item()) < 5 / np.sqrt(90_000)
    assert abs(numbers.var().item() - 1.0) < 5 * np.sqrt(2 / 90_000)
    other = Noise.of_seeds([4], [500], CPU)
    assert torch.equal(Noise.of_seeds([3, 4], [1000, 500], CPU).atoms()[1000:], other.atoms())


THERMOSTATS = [
    pytest.param(Langevin(4.0, friction_per_ps=10.0), 3 * 32, id="langevin"),
    pytest.param(NoseHooverChain(4.0, thermostat_time_fs=100.0), 3 * 32 - 3, id="chain"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("integrator", "freedom"), THERMOSTATS)
def test_kinetic_energy_of_lennard_jones_follows_its_gamma_law(integrator, freedom):
    started = begin(integrator, [argon(60.0, seed) for seed in range(32)], argon_model())
    warm, _ = run(integrator, started, 1000, 60.0)
    _, kinetic = run(integrator, (warm, *started[1:]), 3000, 60.0, every=10, observe=kinetic_energies_eV)
    samples = decorrelated(kinetic)
    assert chi_square_chance(samples, kinetic_law(60.0, freedom)) > FALSE_ALARM
    mean, error = mean_and_error(kinetic)
    thermal_eV = BOLTZMANN_EV_PER_K * 60.0
    resolved_eV = student.isf(FALSE_ALARM / 2, 31) * error
    assert abs(mean - freedom / 2 * thermal_eV) < resolved_eV
    assert resolved_eV < 0.75 * thermal_eV  # half of what three degrees of freedom more or less would make


HARMONIC = [
    pytest.param(Langevin(0.5, friction_per_ps=20.0), False, 24, id="langevin"),
    pytest.param(NoseHooverChain(0.5, thermostat_time_fs=20.0), True, 21, id="chain"),
]


def started_in_equilibrium(integrator, temperature_K, *, free, n_systems):
    """Return a batch of crystals drawn from the exact law, the chain's velocities too.

    Harmonic modes meet only in the thermostat and share their energy slowly: the law is that of the ensemble that the
    chain keeps, not one that a single run would find.
    """
    made = [crystal(temperature_K, STIFFNESS, free=free, seed=seed) for seed in range(n_systems)]
    model = EinsteinCrystal(made[0][1], STIFFNESS, free=free)
    state, forces, noise = begin(integrator, [atoms for atoms, _ in made], model)
    if isinstance(integrator, NoseHooverChain):
        drawn = np.random.default_rng(7).standard_normal((n_systems, 3)) / [np.sqrt(21.0), 1.0, 1.0]
        drawn /= integrator.thermostat_time_fs * ASE_TIME_PER_FS
        state = state.with_extra(chain_velocities=torch.from_numpy(drawn))
    return state, forces, noise


@pytest.mark.slow
@pytest.mark.parametrize(("integrator", "free", "freedom"), HARMONIC)
def test_energies_of_a_harmonic_crystal_follow_their_gamma_laws(integrator, free, freedom):
    started = started_in_equilibrium(integrator, 300.0, free=free, n_systems=1024)
    state, _ = run(integrator, started, 2000, 300.0)
    # one sample a system: independent
    for energies in (kinetic_energies_eV(state), state.energies_eV):
        samples = energies.numpy()
        assert chi_square_chance(samples, kinetic_law(300.0, freedom)) > FALSE_ALARM
        assert chi_square_chance(samples, kinetic_law(300.0, 45 - freedom)) < FALSE_ALARM
        # equipartition
        expected = freedom / 2 * BOLTZMANN_EV_PER_K * 300.0
        error = samples.std(ddof=1) / np.sqrt(1024)
        assert abs(samples.mean() - expected) < student.isf(FALSE_ALARM / 2, 1023) * error
        assert error < 0.01 * expected


def test_configurations_of_baoab_are_exact_on_springs_at_a_timestep_near_its_limit():
    stiffness = np.full(8, 10.0)
    made = [crystal(300.0, stiffness, free=False, seed=seed) for seed in range(256)]
    # a third of the lightest atom's 1 / frequency is usual; this is five sixths of the limit of stability, 2
    timestep_fs = 1.67 * np.sqrt(6.94 / 10.0) / ASE_TIME_PER_FS
    integrator = Langevin(timestep_fs, friction_per_ps=20.0)
    started = begin(integrator, [atoms for atoms, _ in made], EinsteinCrystal(made[0][1], stiffness))
    _, energies = run(integrator, started, 3000, 300.0, observe=lambda state: state.energies_eV)
    mean, error = mean_and_error(energies[100:])
    expected = 12 * BOLTZMANN_EV_PER_K * 300.0
    assert abs(mean - expected) < student.isf(FALSE_ALARM / 2, 255) * error
    assert error < 0.01 * expected


def test_each_system_has_its_own_temperature():
    integrator = Langevin(4.0, friction_per_ps=10.0)
    asked = torch.tensor([30.0, 90.0], dtype=torch.float64).repeat(16)
    systems = [argon(float(temperature), seed) for seed, temperature in enumerate(asked)]
    started = begin(integrator, systems, argon_model())
    warm, _ = run(integrator, started, 500, asked)
    _, kinetic = run(integrator, (warm, *started[1:]), 1000, asked, every=5, observe=kinetic_energies_eV)
    temperatures = kinetic.reshape(-1, 16, 2) / (48 * BOLTZMANN_EV_PER_K)
    for kind, expected in enumerate((30.0, 90.0)):
        mean, error = mean_and_error(temperatures[:, :, kind])
        assert abs(mean - expected) < student.isf(FALSE_ALARM / 2, 15) * error
        assert error < 0.02 * expected


@pytest.mark.parametrize(("integrator", "freedom"), THERMOSTATS)
def test_a_ramp_takes_the_systems_along(integrator, freedom):
    started = begin(integrator, [argon(20.0, seed) for seed in range(32)], argon_model())
    n_steps = 2000
    _, kinetic = run(
        integrator,
        started,
        n_steps,
        lambda step: 20.0 + 40.0 * step / n_steps,
        every=10,
        observe=kinetic_energies_eV,
    )
    temperatures = 2 * kinetic.mean(axis=1) / (freedom * BOLTZMANN_EV_PER_K)
    asked = 20.0 + 40.0 * np.arange(10, n_steps + 1, 10) / n_steps
    late = asked > 25.0
    # a solid's heat comes in through its momenta: it stays (rate of the ramp) / friction = 0.5 K behind the bath
    blocks = (temperatures - asked)[late][: late.sum() // 10 * 10].reshape(-1, 10).mean(axis=1)
    assert np.abs(blocks).max() < 5.0  # five standard errors of 32 systems' temperature
    assert abs(blocks.mean()) < 1.0


@pytest.mark.slow
def test_heat_capacity_by_fluctuations_is_that_by_temperature_difference():
    integrator = Langevin(4.0, friction_per_ps=10.0)
    temperatures = torch.tensor([45.0, 50.0, 55.0], dtype=torch.float64).repeat(32)
    systems = [argon(float(temperature), seed) for seed, temperature in enumerate(temperatures)]
    started = begin(integrator, systems, argon_model())
    warm, _ = run(integrator, started, 1000, temperatures)
    _, energies = run(
        integrator,
        (warm, *started[1:]),
        5000,
        temperatures,
        every=10,
        observe=lambda state: state.energies_eV,
    )
    of_temperature = energies.reshape(len(energies), 32, 3)
    means = of_temperature.mean(axis=0)
    slopes = (means[:, 2] - means[:, 0]) / 10.0
    off = of_temperature[:, :, 1] - of_temperature[:, :, 1].mean()
    fluctuations = (off**2).mean(axis=0) / (BOLTZMANN_EV_PER_K * 50.0**2)
    between = slopes.mean() - fluctuations.mean()
    error = np.hypot(slopes.std(ddof=1), fluctuations.std(ddof=1)) / np.sqrt(32)
    assert abs(between) < student.isf(FALSE_ALARM / 2, 31) * error
    assert error < 0.06 * slopes.mean()


@pytest.mark.parametrize("parts", [3, 5])
def test_the_chains_energy_swings_with_the_square_of_the_timestep_and_does_not_drift(parts):
    timesteps_fs = np.array([2.0, 4.0, 8.0])
    swings = []
    for timestep_fs in timesteps_fs:
        integrator = NoseHooverChain(timestep_fs, thermostat_time_fs=200.0, parts=parts)
        started = begin(integrator, [argon(40.0, seed) for seed in range(4)], argon_model())
        _, kept = run(integrator, started, round(3200 / timestep_fs), 40.0, observe=integrator.conserved_eV)
        swings.append(kept.std(axis=0).mean())
        halves = np.array_split(kept, 2)
        assert abs(halves[1].mean() - halves[0].mean()) < swings[-1]
    assert np.polyfit(np.log(timesteps_fs), np.log(swings), 1)[0] == pytest.approx(2.0, abs=0.15)
    state, _ = run(integrator, started, 400, 40.0)
    # what is kept is a sum of parts a thousand times larger that come and go
    assert state.extra["bath_eV"].abs().max() > 100 * swings[0]


def test_langevin_keeps_its_effective_energy():
    drifts = []
    for timestep_fs in (2.0, 4.0):
        integrator = Langevin(timestep_fs, friction_per_ps=5.0)
        started = begin(integrator, [argon(40.0, seed) for seed in range(8)], argon_model())
        _, kept = run(integrator, started, round(2400 / timestep_fs), 40.0, observe=integrator.conserved_eV)
        drifts.append(kept.std(axis=0).mean())
    assert drifts[0] < 1e-5 * 32
    assert drifts[1] / drifts[0] == pytest.approx(4.0, rel=0.25)


def test_a_chain_refuses_what_it_would_get_wrong():
    atoms = argon()
    draw_momenta(atoms, 40.0, seed=3)
    integrator = NoseHooverChain(2.0, thermostat_time_fs=100.0)
    with pytest.raises(InputError, match="system 2 moves as a whole"):
        begin(integrator, [argon(), atoms], argon_model())
    with pytest.raises(InputError, match="two atoms or more"):
        begin(integrator, [argon()[:1]], EinsteinCrystal(np.zeros((1, 3)), [1.0]))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: VelocityVerlet(0.0), "timestep_fs"),
        (lambda: Langevin(1.0, friction_per_ps=-1.0), "friction_per_ps"),
        (lambda: NoseHooverChain(1.0, thermostat_time_fs=float("nan")), "thermostat_time_fs"),
        (lambda: NoseHooverChain(1.0, thermostat_time_fs=10.0, parts=4), "1, 3, 5 parts, not 4"),
    ],
)
def test_settings_no_integrator_can_follow_are_refused(make, named):
    with pytest.raises(InputError, match=named):
        make()
