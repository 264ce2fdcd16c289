"""Molecular dynamics with any ASE calculator and ASE's integrators: the reference engine."""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ase.units
import numpy as np
from ase import Atoms
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.md import MolecularDynamics
from ase.md.verlet import VelocityVerlet

from hopline.console import InputError, progress, say
from hopline.dynamics.checks import Limits, Watch, energy_drift, throughput_ns_per_day
from hopline.dynamics.protocol import Stage, degrees_of_freedom
from hopline.files import write_json
from hopline.provenance import read_sidecar, sidecar_of
from hopline.trajectories import TrajectoryWriter
from hopline.units import ASE_TIME_PER_FS, BOLTZMANN_EV_PER_K, FS_PER_PS, GPA_PER_EV_PER_A3

NOT_RUN = "not run, since "
"""Begins the reason of a run whose start was no good; what follows says which run went wrong, and how."""

TYPICAL_BULK_MODULUS_GPA = 50.0
"""Sets the speed of the barostat only, not what it samples: within a factor of four it stays near critical damping."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``finished`` or ``exploded``, why, the checks' figures, and the throughput."""

    status: str
    reason: str
    checks: dict[str, float]
    simulated_ps: float
    throughput_ns_per_day: float
    offending: Atoms | None

    def write_sidecar(self, trajectory: str | os.PathLike[str], provenance: Mapping[str, Any]) -> None:
        """Write the outcome beside its trajectory, as ``.json`` in place of ``.h5``, and say it in one line."""
        content = {
            "status": self.status,
            "reason": self.reason,
            "checks": self.checks,
            "simulated_ps": self.simulated_ps,
            "throughput_ns_per_day": self.throughput_ns_per_day,
            "provenance": provenance,
        }
        write_json(sidecar_of(trajectory), content)
        say(f"{trajectory}: {self.status}, {self.reason}; {self.throughput_ns_per_day:.3g} ns/day")


def simulate(
    atoms: Atoms,
    stage: Stage,
    limits: Limits,
    trajectory: str | os.PathLike[str],
    *,
    velocities: bool = False,
    unfit: str | None = None,
) -> Outcome:
    """Run one stage from ``atoms`` (with calculator and momenta), writing frames as it goes.

    The start is frame 0 and always written. Every later frame is checked before it is written; the run ends at the
    first that fails, and that frame is returned, not written. ``velocities`` asks for velocities in the trajectory.
    ``unfit`` says why the start is no good (``why_exploded`` of the run before): then nothing but frame 0 is written.
    A potential that refuses a frame after the start ends the run as a failed check does.
    """
    driver = _integrator(atoms, stage)
    freedom = degrees_of_freedom(atoms, stage.ensemble)
    watch = Watch(limits, stage.temperature_K, atoms.get_volume())
    times_ps: list[float] = []
    energies_eV: list[float] = []
    reason: str | None = None
    n_frames = stage.n_steps // stage.steps_per_frame
    clock_s = time.monotonic()
    interval_ps = stage.steps_per_frame * stage.timestep_fs / FS_PER_PS
    with TrajectoryWriter(trajectory, atoms, frame_interval_ps=interval_ps, velocities=velocities) as writer:
        try:
            for step in progress(
                _steps(atoms, driver, stage), total=n_frames + 1, label=stage.ensemble, unit="frames"
            ):
                kinetic_eV = atoms.get_kinetic_energy()
                temperature_K = 2.0 * kinetic_eV / (freedom * BOLTZMANN_EV_PER_K)
                reason = unfit or watch.look(atoms, temperature_K=temperature_K)
                if reason and step:
                    break
                potential_eV = atoms.get_potential_energy()
                writer.append(
                    atoms.positions,
                    atoms.cell.array,
                    step=step,
                    time_ps=step * stage.timestep_fs / FS_PER_PS,
                    potential_energy_eV=potential_eV,
                    kinetic_energy_eV=kinetic_eV,
                    temperature_K=temperature_K,
                    pressure_GPa=_pressure(atoms) if stage.ensemble == "npt" else None,
                    velocities_A_per_ps=atoms.get_velocities() * ASE_TIME_PER_FS * FS_PER_PS
                    if velocities
                    else None,
                )
                times_ps.append(step * stage.timestep_fs / FS_PER_PS)
                energies_eV.append(potential_eV + kinetic_eV)
                if reason:
                    break
        except InputError as error:
            if not times_ps:  # the start itself is what the potential refuses
                raise
            reason = f"the potential refuses what came next ({error})"
    checks = dict(watch.figures)
    if stage.ensemble == "nve":
        drift = energy_drift(np.array(times_ps), np.array(energies_eV), len(atoms))
        checks["energy_drift_meV_per_atom_per_ps"] = drift
    simulated_ps = times_ps[-1] if times_ps else 0.0
    told = f"after {simulated_ps:g} ps: {reason}" if reason else f"all {simulated_ps:g} ps were run"
    return Outcome(
        status="exploded" if reason else "finished",
        reason=f"{NOT_RUN}{unfit}" if unfit else told,
        checks=checks,
        simulated_ps=simulated_ps,
        throughput_ns_per_day=throughput_ns_per_day(simulated_ps, time.monotonic() - clock_s),
        offending=atoms.copy() if reason else None,
    )


def why_exploded(trajectory: str | os.PathLike[str]) -> str | None:
    """Return which run went wrong, and how, where the one behind a trajectory is no ground to start from; else None.

    A run that was not run for this reason passes on the reason it was given: the first run that went wrong is named.
    """
    sidecar = read_sidecar(trajectory)
    if sidecar.get("status") != "exploded":
        return None
    reason = str(sidecar["reason"])
    return reason.removeprefix(NOT_RUN) if reason.startswith(NOT_RUN) else f"{trajectory} exploded {reason}"


def _steps(atoms: Atoms, driver: MolecularDynamics, stage: Stage) -> Iterator[int]:
    """Yield the step number at the start and after each frame interval, moving the atoms in between."""
    cell = atoms.cell.array.copy()
    scales = np.linspace(stage.scale_first, stage.scale_last, stage.n_steps // stage.steps_per_frame + 1)
    for frame, scale in enumerate(scales):
        if stage.sweeps:
            atoms.set_cell(cell * scale, scale_atoms=True)
        if frame:
            driver.run(stage.steps_per_frame)
        yield frame * stage.steps_per_frame


def _integrator(atoms: Atoms, stage: Stage) -> MolecularDynamics:
    timestep = stage.timestep_fs * ASE_TIME_PER_FS
    if stage.ensemble == "nve":
        return VelocityVerlet(atoms, timestep)
    settings: dict[str, Any] = {
        "temperature_K": stage.temperature_K,
        "T_tau": FS_PER_PS / stage.friction_per_ps * ASE_TIME_PER_FS,
        "rng": np.random.default_rng(stage.seed),
    }
    if stage.ensemble == "npt":
        settings["externalstress"] = -stage.pressure_GPa * ase.units.GPa
        settings["hydrostatic"] = True
        # critically damped: an undamped cell that starts off its volume overshoots to densities no potential knows.
        # The length strain e of a crystal obeys W e'' = -9 B V e, so W = 9 B V tau^2 gives the frequency 1 / tau, and
        # a friction of 2 / tau damps it critically; ASE's friction is 1 / P_tau
        tau = stage.barostat_time_fs * ASE_TIME_PER_FS
        settings["P_tau"] = tau / 2.0
        settings["P_mass"] = 9.0 * TYPICAL_BULK_MODULUS_GPA * ase.units.GPa * atoms.get_volume() * tau**2
    return LangevinBAOAB(atoms, timestep, **settings)


def _pressure(atoms: Atoms) -> float:
    """Return the instantaneous pressure in GPa, kinetic part included."""
    stress: float = np.mean(atoms.get_stress(include_ideal_gas=True)[:3])
    return -stress * GPA_PER_EV_PER_A3
