"""Molecular dynamics whose answers statistical mechanics gives in closed form."""

import ase.build
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import all_changes
from ase.calculators.lj import LennardJones
from ase.md.verlet import VelocityVerlet
from md_runs import moving, run, stage
from scipy.stats import chi2, kstest
from scipy.stats import t as student
from small import Broken, GasInElasticBox, Springs

from hopline import files
from hopline.console import InputError
from hopline.dynamics.ase_engine import AseEngine
from hopline.dynamics.checks import Limits
from hopline.dynamics.outcomes import offending_of, why_exploded
from hopline.dynamics.protocol import draw_momenta, remove_total_momentum
from hopline.frames import read_frames
from hopline.potentials.forcefield import SystemRefused
from hopline.trajectories import read_trajectory
from hopline.units import ASE_TIME_PER_FS, BOLTZMANN_EV_PER_K, GPA_PER_EV_PER_A3

FALSE_ALARM = 1e-3


def total_energy(run):
    return run.observables["potential_energy_eV"] + run.observables["kinetic_energy_eV"]


def test_nve_is_velocity_verlet_step_by_step(tmp_path):
    atoms, known = moving(), moving()
    outcome = run(atoms, stage(), tmp_path / "a.h5", velocities=True)
    seen = read_trajectory(tmp_path / "a.h5")
    assert outcome.status == "finished"
    assert outcome.simulated_ps == pytest.approx(0.1)
    driver = VelocityVerlet(known, 2.0 * ASE_TIME_PER_FS)
    for frame in range(26):
        np.testing.assert_allclose(seen.positions_A[frame], known.positions, atol=1e-5)
        velocities = known.get_velocities() * ASE_TIME_PER_FS * 1000
        np.testing.assert_allclose(seen.velocities_A_per_ps[frame], velocities, atol=1e-4)
        assert total_energy(seen)[frame] == pytest.approx(known.get_total_energy(), abs=1e-12)
        assert seen.time_ps[frame] == pytest.approx(0.004 * frame)
        driver.run(2)


def test_nve_keeps_energy_to_second_order_in_the_timestep(tmp_path):
    fluctuations = []
    for timestep_fs in (2.0, 1.0):
        asked = stage(timestep_fs=timestep_fs, duration_ps=0.4)
        outcome = run(moving(), asked, tmp_path / "a.h5")
        fluctuations.append(total_energy(read_trajectory(tmp_path / "a.h5")).std())
        # the error of velocity Verlet swings and does not grow
        assert abs(outcome.checks["energy_drift_meV_per_atom_per_ps"]) < 0.5
    assert fluctuations[0] / fluctuations[1] == pytest.approx(4.0, rel=0.1)


def test_nve_keeps_the_total_momentum_where_forces_sum_to_zero():
    atoms = ase.build.bulk("Ar", cubic=True, a=5.3)
    atoms.calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=7.0, smooth=True)
    draw_momenta(atoms, 40.0, seed=1)
    remove_total_momentum(atoms)
    engine = AseEngine(
        [atoms], [stage(timestep_fs=5.0, frame_interval_fs=50.0)], [None], calculator=atoms.calc
    )
    for _ in range(20):
        engine.advance([300.0])
    [now] = engine.snapshots()
    assert np.abs(now.momenta).max() > 0.1
    np.testing.assert_allclose(now.momenta.sum(axis=0), 0, atol=1e-10)


def test_langevin_has_its_temperature_with_three_n_degrees_of_freedom(tmp_path):
    """Frames are 40 fs apart at a friction of 200/ps: correlated by exp(-8). Two tests, each at FALSE_ALARM."""
    asked = stage("nvt", temperature_K=600.0, friction_per_ps=200.0, frame_interval_fs=40.0, duration_ps=8.0)
    run(moving(600.0, quartic=0.0), asked, tmp_path / "a.h5")
    seen = read_trajectory(tmp_path / "a.h5")
    chi = 2 * seen.observables["kinetic_energy_eV"][10:] / (BOLTZMANN_EV_PER_K * 600.0)
    low, high = chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], 24 * len(chi))
    assert low < chi.sum() < high
    assert kstest(chi, chi2(24).cdf).pvalue > FALSE_ALARM
    temperature_K = seen.observables["temperature_K"]
    np.testing.assert_allclose(temperature_K[10:], 600.0 * chi / 24, rtol=1e-6)


def test_npt_holds_the_pressure_and_volume_of_an_ideal_gas_in_an_elastic_box(tmp_path):
    """p(V) ~ V^N exp(-(U(V) + P V) / kT) by quadrature; Student's t over blocks, false-alarm rate FALSE_ALARM each."""
    n_atoms, volume_A3, modulus, temperature_K, pressure_GPa = 8, 100.0, 0.02, 600.0, 1.0
    rng = np.random.default_rng(0)
    side_A = volume_A3 ** (1 / 3)
    atoms = Atoms("Ar8", positions=rng.uniform(0, side_A, (n_atoms, 3)), cell=np.eye(3) * side_A, pbc=True)
    atoms.calc = GasInElasticBox(volume_A3, modulus)
    draw_momenta(atoms, temperature_K, seed=2)
    asked = stage(
        "npt", temperature_K=temperature_K, pressure_GPa=pressure_GPa, friction_per_ps=20.0, timestep_fs=4.0,
        # sixteen times softer than the crystal the barostat's mass is made for: four times the time asked for
        barostat_time_fs=15.0, frame_interval_fs=20.0, duration_ps=100.0,
    )  # fmt: skip
    run(atoms, asked, tmp_path / "a.h5")
    seen = read_trajectory(tmp_path / "a.h5")
    kT, pressure = BOLTZMANN_EV_PER_K * temperature_K, pressure_GPa / GPA_PER_EV_PER_A3
    grid = np.linspace(1, 600, 100_000)
    exponent = (
        n_atoms * np.log(grid) - (modulus * (grid - volume_A3) ** 2 / (2 * volume_A3) + pressure * grid) / kT
    )
    weights = np.exp(exponent - exponent.max())
    known_A3 = (weights * grid).sum() / weights.sum()
    volumes = np.abs(np.linalg.det(seen.cells_A))
    for values, known in ((volumes, known_A3), (seen.observables["pressure_GPa"], pressure_GPa)):
        blocks = values[len(values) // 10 :]
        means = blocks[: len(blocks) // 15 * 15].reshape(15, -1).mean(axis=1)
        error = means.std(ddof=1) / np.sqrt(15)
        assert abs(means.mean() - known) < student.ppf(1 - FALSE_ALARM / 2, 14) * error
        assert error < 0.1 * abs(known)
    shapes = seen.cells_A / np.cbrt(volumes)[:, None, None]
    np.testing.assert_allclose(shapes, np.repeat(np.eye(3)[None], len(shapes), axis=0), atol=1e-9)


def test_a_sweep_visits_exactly_its_scales(tmp_path):
    atoms = moving()
    asked = stage("nvt", scale_first=0.95, scale_last=1.05, duration_ps=0.04)
    run(atoms, asked, tmp_path / "a.h5")
    seen = read_trajectory(tmp_path / "a.h5")
    scales = seen.cells_A[:, 0, 0] / 4.08
    np.testing.assert_allclose(scales, np.linspace(0.95, 1.05, 11), atol=1e-12)


def test_the_same_seed_gives_the_same_run(tmp_path):
    runs = []
    for number, seed in enumerate((1, 1, 2)):
        path = tmp_path / f"{number}.h5"
        run(moving(), stage("nvt", seed=seed), path)
        runs.append(read_trajectory(path).positions_A)
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 1e-3


def test_overlapping_atoms_explode_and_say_so(tmp_path):
    atoms = ase.build.bulk("Ar", cubic=True, a=5.3)
    atoms.positions[1] = atoms.positions[0] + [2.6, 0.0, 0.0]
    atoms.calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=7.0)
    draw_momenta(atoms, 40.0, seed=1)
    asked = stage(temperature_K=40.0, timestep_fs=1.0, frame_interval_fs=10.0, duration_ps=1.0)
    outcome = run(atoms, asked, tmp_path / "a.h5", limits=Limits(), record=lambda: {"seed": 1})
    assert outcome.status == "exploded"
    assert "temperature" in outcome.reason
    assert len(read_frames(offending_of(tmp_path / "a.h5"))[0]) == 4
    assert read_trajectory(tmp_path / "a.h5").n_frames >= 1
    sidecar = files.read_json(tmp_path / "a.json")
    assert sidecar["status"] == "exploded"
    assert sidecar["reason"] == outcome.reason
    assert sidecar["provenance"] == {"seed": 1}
    assert why_exploded(tmp_path / "a.h5") == f"{tmp_path / 'a.h5'} exploded {outcome.reason}"


@pytest.mark.parametrize("error", [None, InputError("isolated atom")])
def test_a_potential_that_fails_on_the_way_ends_the_run_as_exploded(tmp_path, error):
    atoms = moving()
    atoms.calc = Broken(good=12, error=error)
    outcome = run(atoms, stage(), tmp_path / "a.h5")
    assert outcome.status == "exploded"
    assert ("isolated atom" if error else "no longer finite") in outcome.reason
    assert 1 < read_trajectory(tmp_path / "a.h5").n_frames < 8
    assert outcome.simulated_ps == pytest.approx(0.004 * (read_trajectory(tmp_path / "a.h5").n_frames - 1))
    assert files.read_json(tmp_path / "a.json")["status"] == "exploded"


def test_a_start_that_the_potential_refuses_is_told_and_not_run(tmp_path):
    atoms = moving()
    atoms.calc = Broken(good=0, error=InputError("isolated atom"))
    outcome = run(atoms, stage(), tmp_path / "a.h5")
    assert outcome.status == "exploded"
    assert outcome.reason == "not run, since the potential refuses its start (isolated atom)"
    assert read_trajectory(tmp_path / "a.h5").n_frames == 1


class Short(Springs):
    """Springs that refuse marked atoms in a cell longer than LiF's."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        """Refuse, or compute."""
        if atoms.info.get("short") and atoms.cell[0, 0] > 4.1:
            raise InputError("the cell is too long")
        super().calculate(atoms, properties, system_changes)


def test_cells_are_scaled_together_or_not_at_all():
    systems = [moving() for _ in range(3)]
    systems[2].info["short"] = True
    asked = [stage("nvt", seed=seed) for seed in range(3)]
    engine = AseEngine(systems, asked, [None] * 3, calculator=Short(systems[0].positions))
    with pytest.raises(SystemRefused) as refused:
        engine.scale_cells([1.1, 1.1, 1.1])
    assert refused.value.row == 2
    assert [now.cell_A[0, 0] for now in engine.snapshots()] == [4.08] * 3
    engine.keep([0, 1])
    engine.scale_cells([1.1, 1.0])
    assert [now.cell_A[0, 0] for now in engine.snapshots()] == [pytest.approx(4.488), 4.08]


def test_an_unfit_start_is_written_and_not_run(tmp_path):
    why = "npt.h5 exploded after 1 ps: two atoms met"
    outcome = run(moving(), stage(), tmp_path / "a.h5", unfit=why)
    assert outcome.status == "exploded"
    assert outcome.reason == f"not run, since {why}"
    assert read_trajectory(tmp_path / "a.h5").n_frames == 1
    # whoever starts from this one names the run that went wrong, not the one in between
    assert why_exploded(tmp_path / "a.h5") == why
