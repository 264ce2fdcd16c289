"""The protocol NpT -> mean volume -> NVT -> starts near the mean energy -> NVE replicas (Angeletti et al. 2025)."""

from typing import NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hopline.console import InputError
from hopline.dynamics.stage import Stage, degrees_of_freedom
from hopline.trajectories import Trajectory
from hopline.units import ASE_TIME_PER_FS, BOLTZMANN_EV_PER_K, FS_PER_PS


def draw_momenta(atoms: Atoms, temperature_K: float, seed: int) -> None:
    """Give atoms Maxwell-Boltzmann momenta at a temperature (K), in place."""
    from ase.md.velocitydistribution import thermalize_momenta  # slow to import: --help need not pay it

    thermalize_momenta(atoms, temperature_K, rng=np.random.default_rng(seed))


def with_momenta(atoms: Atoms, stage: Stage) -> Atoms:
    """Return a copy with momenta: for nve its own if it has any, else drawn at the stage's temperature with its seed.

    Where no thermostat moves the centre of mass, the total momentum is removed.

    Raises
    ------
    InputError
        If the cell is not three vectors, atoms are constrained, which the engines do not know, or the only atom could
        not move.
    """
    if not atoms.cell.volume:
        raise InputError("the start has no cell of three vectors: a crystal is wanted")
    if atoms.constraints:
        raise InputError(
            "the start has constrained atoms (move_mask or the like): all atoms move here, take them out"
        )
    if degrees_of_freedom(atoms, stage) <= 0:
        raise InputError(
            f"one atom alone cannot move in {stage.ensemble}: its momentum is the total, which is zero"
        )
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
        If the run's cell is not the structure's up to scaling, or all of it would be left out.
    """
    if not 0.0 <= discard_fraction < 1.0:
        raise InputError(f"discard_fraction must be 0 or more and less than 1, got {discard_fraction:g}")
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


class Start(NamedTuple):
    """A frame of an NVT run, and the temperature (K) that a run from it will have over the mean one's."""

    row: int
    excess_K: float


def select_starts(nvt: Trajectory, *, replicas: int, starts_apart_ps: float) -> list[Start]:
    """Choose frames of an NVT run as starts of NVE replicas: at the mean internal energy, well apart in time.

    An NVE run keeps its start's energy, so a start off the mean would sample another temperature (Angeletti et
    al. 2025). The energy is taken without the motion of the centre of mass, which a Langevin run has and the NVE run
    has not. The run is cut into ``replicas`` stretches with ``starts_apart_ps`` between them, after a first tenth left
    for equilibration; in each the frame whose energy is nearest the mean is taken. Half of what it is off goes into
    the kinetic energy, as in a harmonic crystal: a kelvin for each (3 N - 3) k.

    Raises
    ------
    InputError
        If the run is too short to hold that many starts so far apart, or holds no energies or velocities.
    """
    potential_eV, kinetic_eV = (
        nvt.observables[name] for name in ("potential_energy_eV", "kinetic_energy_eV")
    )
    if potential_eV is None or kinetic_eV is None:
        raise InputError(f"{nvt.source} holds no energies: starts cannot be chosen by energy")
    energy_eV = potential_eV + kinetic_eV - _centre_of_mass_energy_eV(nvt)
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
        row = int(rows[np.abs(energy_eV[rows] - mean_eV).argmin()])
        excess_K = (energy_eV[row] - mean_eV) / ((3 * nvt.n_atoms - 3) * BOLTZMANN_EV_PER_K)
        starts.append(Start(row, float(excess_K)))
    return starts


def _centre_of_mass_energy_eV(run: Trajectory) -> NDArray[np.float64]:
    """Return the kinetic energy of the centre of mass in each frame."""
    if run.velocities_A_per_ps is None:
        raise InputError(f"{run.source} holds no velocities: starts cannot be chosen by energy")
    momenta = np.einsum("a,fai->fi", run.masses_amu, np.asarray(run.velocities_A_per_ps, dtype=np.float64))
    per_ase_time = 1.0 / (FS_PER_PS * ASE_TIME_PER_FS)
    squares: NDArray[np.float64] = (momenta**2).sum(axis=1)
    return squares * per_ase_time**2 / (2.0 * run.masses_amu.sum())
