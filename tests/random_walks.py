"""Trajectories whose answers are known: shared by the tests of trajectories and diffusion."""

from pathlib import Path

import numpy as np
from ase import Atoms

from hopline.trajectories import Trajectory
from hopline.trajectory_writer import TrajectoryWriter

CELL_A = 12.0
FRAME_INTERVAL_PS = 0.1
SITES_A = CELL_A / 2 * np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])


def trajectory_of(mobile, host=SITES_A, *, interval_ps=FRAME_INTERVAL_PS, observables=None, common=0.0):
    """Li at ``mobile`` (n_frames, n, 3) among F at ``host``; ``common`` (n_frames, 1, 3) moves all alike."""
    frames, walkers, _ = mobile.shape
    host = np.broadcast_to(host, (frames, *np.shape(host)[-2:]))
    return Trajectory(
        numbers=np.array([3] * walkers + [9] * host.shape[1]),
        masses_amu=np.array([6.94] * walkers + [18.998] * host.shape[1]),
        positions_A=np.concatenate([mobile, host], axis=1) + common,
        cells_A=np.broadcast_to(CELL_A * np.eye(3), (frames, 3, 3)),
        time_ps=np.arange(frames) * interval_ps,
        observables=observables or {},
    )


def gaussian_walk(*, diffusivity_A2_per_ps, frames, walkers, seed):
    """Positions (frames, walkers, 3) of Brownian walkers."""
    rng = np.random.default_rng(seed)
    scale = np.sqrt(2 * diffusivity_A2_per_ps * FRAME_INTERVAL_PS)
    return np.cumsum(rng.normal(scale=scale, size=(frames, walkers, 3)), axis=0) + CELL_A / 2


def conserved_energies(frames, n_atoms, *, drift_meV_per_atom_per_ps=0.0, temperature_K=700.0):
    """Observables whose total energy has a known drift."""
    time_ps = np.arange(frames) * FRAME_INTERVAL_PS
    return {
        "potential_energy_eV": -5.0 * n_atoms + 1e-3 * drift_meV_per_atom_per_ps * n_atoms * time_ps,
        "kinetic_energy_eV": np.zeros(frames),
        "temperature_K": np.full(frames, temperature_K),
        "pressure_GPa": None,
    }


def write_h5(path: Path, trajectory: Trajectory, *, temperature_K=700.0) -> Path:
    """Write a trajectory as the engines would, total energy conserved."""
    atoms = Atoms(numbers=trajectory.numbers, cell=trajectory.cells_A[0], pbc=True)
    interval_ps = trajectory.frame_interval_ps
    with TrajectoryWriter(path, atoms, frame_interval_ps=interval_ps) as writer:
        for step, (positions, cell) in enumerate(
            zip(trajectory.positions_A, trajectory.cells_A, strict=True)
        ):
            writer.append(
                positions, cell, step=step, time_ps=step * interval_ps, potential_energy_eV=-5.0,
                kinetic_energy_eV=1.0, temperature_K=temperature_K,
            )  # fmt: skip
    return path
