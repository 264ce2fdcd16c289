"""The protocol NpT -> mean volume -> NVT -> starts near the mean energy -> NVE replicas (Angeletti et al. 2025)."""

from dataclasses import dataclass

import numpy as np
from ase import Atoms

from hopline.console import InputError
from hopline.trajectories import Trajectory
from hopline.units import FS_PER_PS

ENSEMBLES = ("npt", "nvt", "nve")


@dataclass(frozen=True)
class Stage:
    """One molecular-dynamics run.

    ``friction_per_ps`` belongs to the Langevin thermostat of npt and nvt, ``pressure_GPa`` and
    ``barostat_time_fs`` (relaxation time of the volume) to npt; nve uses none of them. An nvt run may sweep its
    volume: the cell's lengths go evenly from ``scale_first`` to ``scale_last`` times the start's, a step before each
    frame interval, so that one run visits compressed and expanded crystals.
    """

    ensemble: str
    temperature_K: float
    timestep_fs: float
    duration_ps: float
    frame_interval_fs: float
    seed: int
    friction_per_ps: float = 0.0
    pressure_GPa: float = 0.0
    barostat_time_fs: float = 0.0
    scale_first: float = 1.0
    scale_last: float = 1.0

    def __post_init__(self) -> None:
        """Refuse settings no integrator can follow."""
        if self.ensemble not in ENSEMBLES:
            raise InputError(f"ensemble {self.ensemble!r} is not known; there are {', '.join(ENSEMBLES)}")
        positive = {
            "temperature_K": self.temperature_K,
            "timestep_fs": self.timestep_fs,
            "duration_ps": self.duration_ps,
            "frame_interval_fs": self.frame_interval_fs,
            "scale_first": self.scale_first,
            "scale_last": self.scale_last,
        }
        if self.ensemble != "nve":
            positive["friction_per_ps"] = self.friction_per_ps
        if self.ensemble == "npt":
            positive["barostat_time_fs"] = self.barostat_time_fs
        for name, value in positive.items():
            if not 0 < value < np.inf:
                raise InputError(f"{name} must be positive, got {value}")
        if self.sweeps and self.ensemble != "nvt":
            raise InputError(f"only nvt can sweep its volume, not {self.ensemble}")
        if self.frame_interval_fs < self.timestep_fs:
            raise InputError(
                f"frames every {self.frame_interval_fs} fs cannot be written with a timestep of {self.timestep_fs} fs"
            )

    @property
    def sweeps(self) -> bool:
        """Whether the volume is swept."""
        return (self.scale_first, self.scale_last) != (1.0, 1.0)

    @property
    def n_steps(self) -> int:
        """Number of timesteps, a whole number of frame intervals."""
        interval_fs = self.steps_per_frame * self.timestep_fs
        return max(1, round(self.duration_ps * FS_PER_PS / interval_fs)) * self.steps_per_frame

    @property
    def steps_per_frame(self) -> int:
        """Timesteps between two written frames."""
        return max(1, round(self.frame_interval_fs / self.timestep_fs))


def draw_momenta(atoms: Atoms, temperature_K: float, seed: int) -> None:
    """Give atoms Maxwell-Boltzmann momenta at a temperature (K), in place."""
    from ase.md.velocitydistribution import thermalize_momenta  # slow to import: --help need not pay it

    thermalize_momenta(atoms, temperature_K, rng=np.random.default_rng(seed))


def remove_total_momentum(atoms: Atoms) -> None:
    """Set the total momentum to zero without touching the relative velocities, in place.

    The centre of mass of a Langevin run carries its own 3/2 kT; taking it out leaves 3 N - 3 degrees of freedom
    at the same temperature, so nothing is rescaled.
    """
    masses = atoms.get_masses()[:, None]
    velocities = atoms.get_velocities()
    atoms.set_velocities(velocities - (masses * velocities).sum(axis=0) / masses.sum())


def degrees_of_freedom(atoms: Atoms, ensemble: str) -> int:
    """Return 3 N for Langevin runs and 3 N - 3 where the total momentum is conserved and zero."""
    return 3 * len(atoms) - (3 if ensemble == "nve" else 0)


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
