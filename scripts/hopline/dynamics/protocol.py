"""The protocol NpT -> mean volume -> NVT -> starts near the mean energy -> NVE replicas (Angeletti et al. 2025)."""

import numpy as np
from ase import Atoms

from hopline.console import InputError
from hopline.dynamics.stage import Stage, degrees_of_freedom
from hopline.trajectories import Trajectory


def draw_momenta(atoms: Atoms, temperature_K: float, seed: int) -> None:
    """Give atoms Maxwell-Boltzmann momenta at a temperature (K), in place."""
    from ase.md.velocitydistribution import thermalize_momenta  # slow to import: --help need not pay it

    thermalize_momenta(atoms, temperature_K, rng=np.random.default_rng(seed))


def with_momenta(atoms: Atoms, stage: Stage) -> Atoms:
    """Return a copy with momenta: for nve its own if it has any, else drawn at the stage's temperature with its seed.

    Where no thermostat moves the centre of mass, the total momentum is removed.
    """
    moving = atoms.copy()
    if stage.ensemble != "nve" or not moving.has("momenta"):
        draw_momenta(moving, stage.temperature_K, stage.seed)
    if degrees_of_freedom(moving, stage) < 3 * len(moving):
        remove_total_momentum(moving)
    return moving


def remove_total_momentum(atoms: Atoms) -> None:
    """Set the total momentum to zero without touching the relative velocities, in place.

    The centre of mass of a Langevin run carries its own 3/2 kT; taking it out leaves 3 N - 3 degrees of freedom
    at the same temperature, so nothing is rescaled.
    """
    masses = atoms.get_masses()[:, None]
    velocities = atoms.get_velocities()
    atoms.set_velocities(velocities - (masses * velocities).sum(axis=0) / masses.sum())


def at_mean_volume(structure: Atoms, npt: Trajectory, *, discard_fraction: float) -> Atoms:
    """Return a structure scaled (fixed shape) to the mean volume of an NpT run of the same host supercell.

    The first ``discard_fraction`` of the run is equilibration and does not enter the mean.

    Raises
    ------
    InputError
        If the run's cell is not the structure's up to scaling.
    """
    first = int(discard_fraction * npt.n_frames)
    volume_A3 = np.abs(np.linalg.det(npt.cells_A[first:])).mean()
    atoms = structure.copy()
    scaled = atoms.cell * (volume_A3 / atoms.get_volume()) ** (1.0 / 3.0)
    npt_cell = npt.cells_A[-1] * (volume_A3 / abs(np.linalg.det(npt.cells_A[-1]))) ** (1.0 / 3.0)
    if not np.allclose(scaled, npt_cell, atol=1e-3 * volume_A3 ** (1.0 / 3.0)):
        raise InputError(
            f"{npt.source} has another cell shape than the structure: both need the same host supercell"
        )
    atoms.set_cell(scaled, scale_atoms=True)
    return atoms


def select_starts(nvt: Trajectory, *, replicas: int, starts_apart_ps: float) -> list[int]:
    """Choose frames of an NVT run as starts of NVE replicas: at the mean total energy, well apart in time.

    An NVE run keeps its start's energy, so a start off the mean would sample another temperature (Angeletti et
    al. 2025). The run is cut into ``replicas`` stretches with ``starts_apart_ps`` between them, after a first
    tenth left for equilibration; in each the frame whose energy is nearest the mean is taken.

    Raises
    ------
    InputError
        If the run is too short to hold that many starts so far apart.
    """
    potential_eV, kinetic_eV = (
        nvt.observables[name] for name in ("potential_energy_eV", "kinetic_energy_eV")
    )
    if potential_eV is None or kinetic_eV is None:
        raise InputError(f"{nvt.source} holds no energies: starts cannot be chosen by energy")
    energy_eV = potential_eV + kinetic_eV
    n_frames = len(energy_eV)
    first, gap = n_frames // 10, round(starts_apart_ps / nvt.frame_interval_ps)
    stretch = (n_frames - first - (replicas - 1) * gap) // replicas
    if stretch < 1:
        raise InputError(
            f"an NVT run of {nvt.time_ps[-1]:g} ps cannot give {replicas} starts {starts_apart_ps:g} ps apart: "
            "lengthen dynamics.nvt.duration_ps or lower production.starts_apart_ps"
        )
    mean_eV = energy_eV[first:].mean()
    starts = []
    for replica in range(replicas):
        begin = first + replica * (stretch + gap)
        rows = np.arange(begin, begin + stretch)
        starts.append(int(rows[np.abs(energy_eV[rows] - mean_eV).argmin()]))
    return starts
