"""Trajectories in memory, and one reader for every format; ``trajectory_writer`` writes them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hopline.console import InputError
from hopline.trajectory_formats import (
    frames_by_ase,
    h5md_creator,
    h5md_frames,
    h5md_particles,
    unwrapped,
)
from hopline.units import ASE_TIME_PER_FS, FS_PER_PS

CREATOR = "Hopline"
OBSERVABLES = {
    "potential_energy_eV": ("potential_energy", "eV"),
    "kinetic_energy_eV": ("kinetic_energy", "eV"),
    "temperature_K": ("temperature", "K"),
    "pressure_GPa": ("pressure", "GPa"),
}
SPACING_TOLERANCE = 1e-3
"""Frames are evenly spaced if every interval is within this share of the mean one (times may be float32)."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One trajectory with unwrapped positions.

    ``numbers`` (n_atoms,), ``masses_amu`` (n_atoms,), ``positions_A`` (n_frames, n_atoms, 3), ``cells_A``
    (n_frames, 3, 3) with vectors as rows (zero: not periodic), ``time_ps`` (n_frames,),
    ``velocities_A_per_ps`` like the positions or None. ``observables`` maps ``potential_energy_eV``,
    ``kinetic_energy_eV``, ``temperature_K`` and ``pressure_GPa`` to (n_frames,) arrays, or to None where the
    file has none. ``source`` names the file.
    """

    numbers: NDArray[np.int64]
    masses_amu: NDArray[np.float64]
    positions_A: NDArray[np.floating[Any]]
    cells_A: NDArray[np.float64]
    time_ps: NDArray[np.float64]
    observables: Mapping[str, NDArray[np.float64] | None]
    velocities_A_per_ps: NDArray[np.floating[Any]] | None = None
    source: str = "trajectory"

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.time_ps)

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.numbers)

    @property
    def length_ps(self) -> float:
        """Time between the first and the last frame in ps."""
        return float(self.time_ps[-1] - self.time_ps[0])

    @property
    def frame_interval_ps(self) -> float:
        """Time between two frames in ps; fewer than two frames or uneven spacing raise InputError."""
        if self.n_frames < 2:  # noqa: PLR2004
            raise InputError(f"{self.source} has one frame: time differences need at least two")
        intervals = np.diff(self.time_ps)
        mean_ps = float(intervals.mean())
        if mean_ps <= 0 or np.abs(intervals - mean_ps).max() > SPACING_TOLERANCE * mean_ps:
            raise InputError(
                f"{self.source} has frames {intervals.min():.6g} to {intervals.max():.6g} ps apart: "
                "evenly spaced frames are needed"
            )
        return mean_ps

    def atoms(self, frame: int) -> Atoms:
        """Return one frame as ASE Atoms: unwrapped, with velocities where there are any."""
        atoms = Atoms(
            numbers=self.numbers, positions=self.positions_A[frame], cell=self.cells_A[frame],
            pbc=bool(self.cells_A[frame].any()), masses=self.masses_amu,
        )  # fmt: skip
        if self.velocities_A_per_ps is not None:
            per_ase_time = 1.0 / (FS_PER_PS * ASE_TIME_PER_FS)
            atoms.set_velocities(np.asarray(self.velocities_A_per_ps[frame], dtype=float) * per_ase_time)
        return atoms


def read_trajectory(path: str | os.PathLike[str], *, frame_interval_fs: float | None = None) -> Trajectory:
    """Read a trajectory, unwrapped: H5MD, extended XYZ, ASE .traj, VASP XDATCAR or a LAMMPS dump.

    The format is known by content where it says so, else by name. H5MD written elsewhere and the other
    formats may be wrapped into the cell: they are unwrapped by the shortest way between consecutive frames.

    Parameters
    ----------
    path
        File to read.
    frame_interval_fs
        Time between frames in fs: needed where the format carries no time, checked against H5MD's own.

    Raises
    ------
    InputError
        If the file is missing, empty, cut off, holds numbers that are not finite, changes its atoms along the
        way, or has no time and no ``frame_interval_fs`` is given.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    with path.open("rb") as file:
        head = file.read(64)
    if not head.strip():
        raise InputError(f"{path} is empty: it holds no trajectory")
    try:
        if head.startswith(b"\x89HDF"):
            trajectory = _read_h5md(path, frame_interval_fs)
        else:
            trajectory = _read_by_ase(path, head, frame_interval_fs)
    except InputError:
        raise
    except Exception as error:  # h5py's and ASE's parsers raise whatever they stumble over
        raise InputError(f"{path} is not a whole trajectory ({type(error).__name__}: {error})") from error
    for what, values in (("positions", trajectory.positions_A), ("cells", trajectory.cells_A)):
        finite = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
        if not finite.all():
            frame = int(np.argmin(finite))
            raise InputError(f"{path} has {what} that are not finite numbers in frame {frame}")
    if not np.isfinite(trajectory.time_ps).all():
        raise InputError(f"{path} has times that are not finite numbers")
    return trajectory


def _read_h5md(path: Path, frame_interval_fs: float | None) -> Trajectory:
    import h5py

    with h5py.File(path, "r", locking=False) as file:  # a lock must not stop whoever writes it
        particles = h5md_particles(file, str(path))
        position = particles["position"]
        n_frames = len(position["value"])
        for part in ("step", "time"):  # a killed writer may leave values whose step was not reached
            if position[part].shape:
                n_frames = min(n_frames, len(position[part]))
        if n_frames == 0:
            raise InputError(f"{path} holds no frame")
        positions_A, cells_A, time_ps = h5md_frames(particles, n_frames, str(path))
        numbers = np.asarray(particles["species"][()], dtype=np.int64)
        masses_amu = Atoms(numbers=numbers).get_masses()
        velocities = None
        observables: dict[str, NDArray[np.float64] | None] = dict.fromkeys(OBSERVABLES)
        if h5md_creator(file) == CREATOR:
            masses_amu = particles["mass"][()]
            velocities = particles["velocity/value"][:n_frames] if "velocity" in particles else None
            for key, (name, _) in OBSERVABLES.items():
                values = file[f"observables/{name}/value"][:n_frames]
                observables[key] = None if np.isnan(values).all() else values
        else:  # elsewhere positions may be wrapped, masses and energies may be in any unit
            positions_A = unwrapped(positions_A, cells_A, str(path))
    trajectory = Trajectory(
        numbers=numbers,
        masses_amu=masses_amu,
        positions_A=positions_A,
        cells_A=cells_A,
        time_ps=time_ps,
        observables=observables,
        velocities_A_per_ps=velocities,
        source=str(path),
    )
    if frame_interval_fs is not None and n_frames > 1:
        stored_fs = trajectory.frame_interval_ps * FS_PER_PS
        if abs(stored_fs - frame_interval_fs) > SPACING_TOLERANCE * stored_fs:
            raise InputError(
                f"{path} has frames {stored_fs:.6g} fs apart, not {frame_interval_fs:g} fs as stated"
            )
    return trajectory


def _read_by_ase(path: Path, head: bytes, frame_interval_fs: float | None) -> Trajectory:
    frames = frames_by_ase(path, head)
    if frame_interval_fs is None:
        raise InputError(
            f"{path} carries no time: state the time between its frames with --frame-interval-fs"
        )
    if not frame_interval_fs > 0:
        raise InputError(f"the time between frames is {frame_interval_fs} fs; it must be positive")
    cells_A = np.array([frame.cell.array for frame in frames])
    observables: dict[str, NDArray[np.float64] | None] = dict.fromkeys(OBSERVABLES)
    energies = [frame.calc.results.get("energy") if frame.calc else None for frame in frames]
    if all(energy is not None for energy in energies):
        observables["potential_energy_eV"] = np.array(energies, dtype=float)
    if all(frame.has("momenta") for frame in frames):
        observables["kinetic_energy_eV"] = np.array([frame.get_kinetic_energy() for frame in frames])
        observables["temperature_K"] = np.array([frame.get_temperature() for frame in frames])
    return Trajectory(
        numbers=np.asarray(frames[0].numbers, dtype=np.int64),
        masses_amu=frames[0].get_masses(),
        positions_A=unwrapped(np.array([frame.positions for frame in frames]), cells_A, str(path)),
        cells_A=cells_A,
        time_ps=np.arange(len(frames), dtype=np.float64) * (frame_interval_fs / FS_PER_PS),
        observables=observables,
        source=str(path),
    )
