"""Trajectories: H5MD 1.1 written in chunks that survive ``kill -9``, and one reader for every format.

Layout of the files written here: ``/particles/trajectory/{species, mass, box/edges, position[, velocity]}``
and ``/observables/{potential_energy, kinetic_energy, temperature, pressure}``; one ``step`` and one ``time``
data set, hard-linked wherever H5MD asks for them. Source: de Buyl, Colberg and Hoefling,
Comput. Phys. Commun. 185, 1546 (2014), and nongnu.org/h5md.
"""

import os
import time as clock
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike, NDArray

from hopline.console import InputError
from hopline.files import whole
from hopline.trajectory_formats import (
    frames_by_ase,
    h5md_creator,
    h5md_frames,
    h5md_particles,
    unwrapped,
)
from hopline.units import ASE_TIME_PER_FS, FS_PER_PS

CREATOR = "Hopline"
FRAMES_PER_WRITE = 100
SECONDS_PER_WRITE = 10.0
CHUNK_BYTES = 1 << 20
SCALARS_PER_CHUNK = 512
LIBRARY_FORMAT = ("v110", "v110")
"""HDF5 1.10's file format: the first with single-writer-multiple-readers (SWMR); later releases read it."""
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


class TrajectoryWriter:
    """Write one trajectory as H5MD; a context manager.

    Frames are buffered and written a hundred at a time or, at the next ``append``, after ten seconds. Between
    two writes the file is closed, so any tool may open it; each write runs in SWMR mode, which keeps the file
    consistent at every instant, and ``step`` is extended last: a killed writer leaves whole frames only.

    Parameters
    ----------
    path
        File to write; replaced if it exists.
    atoms
        Species and masses; positions are not used.
    frame_interval_ps
        Time between frames in ps; ``append`` refuses a frame at another time.
    velocities
        Whether frames carry velocities.
    author
        Author's name, which H5MD asks for.
    """

    def __init__(
        self, path: str | os.PathLike[str], atoms: Atoms, *, frame_interval_ps: float,
        velocities: bool = False, author: str = "Hopline",
    ) -> None:  # fmt: skip
        self.path = Path(path)
        self.frame_interval_ps = frame_interval_ps
        self._first_time_ps: float | None = None
        self._n_written = 0
        self._buffered = 0
        self._last_write_s = clock.monotonic()
        vectors = (FRAMES_PER_WRITE, len(atoms), 3)
        self._buffer: dict[str, NDArray[Any]] = {
            "particles/trajectory/position/value": np.empty(vectors, np.float32),
            "particles/trajectory/box/edges/value": np.empty((FRAMES_PER_WRITE, 3, 3)),
        }
        if velocities:
            self._buffer["particles/trajectory/velocity/value"] = np.empty(vectors, np.float32)
        for name, _unit in OBSERVABLES.values():
            self._buffer[f"observables/{name}/value"] = np.empty(FRAMES_PER_WRITE)
        self._clock: dict[str, NDArray[Any]] = {
            "particles/trajectory/position/time": np.empty(FRAMES_PER_WRITE),
            "particles/trajectory/position/step": np.empty(FRAMES_PER_WRITE, np.int64),
        }
        with whole(self.path) as temporary:
            self._lay_out(temporary, atoms, author)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    def append(
        self, positions_A: ArrayLike, cell_A: ArrayLike, *, step: int, time_ps: float,
        potential_energy_eV: float, kinetic_energy_eV: float, temperature_K: float,
        pressure_GPa: float | None = None, velocities_A_per_ps: ArrayLike | None = None,
    ) -> None:  # fmt: skip
        """Add one frame: unwrapped positions (n_atoms, 3) in A, cell vectors as rows (3, 3) in A.

        Raises
        ------
        ValueError
            If the frame is not at its time, or has velocities where the file has none, or the reverse.
        """
        if self._first_time_ps is None:
            self._first_time_ps = time_ps
        due_ps = self._first_time_ps + (self._n_written + self._buffered) * self.frame_interval_ps
        if abs(time_ps - due_ps) > SPACING_TOLERANCE * self.frame_interval_ps:
            raise ValueError(f"frame at {time_ps} ps where one is due at {due_ps} ps")
        if (velocities_A_per_ps is not None) != ("particles/trajectory/velocity/value" in self._buffer):
            raise ValueError("velocities go with a writer opened with velocities=True, and only with it")
        values: dict[str, Any] = {
            "particles/trajectory/position/value": positions_A,
            "particles/trajectory/box/edges/value": cell_A,
            "particles/trajectory/velocity/value": velocities_A_per_ps,
            "observables/potential_energy/value": potential_energy_eV,
            "observables/kinetic_energy/value": kinetic_energy_eV,
            "observables/temperature/value": temperature_K,
            "observables/pressure/value": np.nan if pressure_GPa is None else pressure_GPa,
            "particles/trajectory/position/time": time_ps,
            "particles/trajectory/position/step": step,
        }
        for name, rows in (self._buffer | self._clock).items():
            rows[self._buffered] = values[name]
        self._buffered += 1
        waited_s = clock.monotonic() - self._last_write_s
        if self._buffered == FRAMES_PER_WRITE or waited_s >= SECONDS_PER_WRITE:
            self.flush()

    def flush(self) -> None:
        """Write the buffered frames to the file now."""
        import h5py

        if self._buffered:
            stop = self._n_written + self._buffered
            with h5py.File(_open_for_swmr_write(self.path)) as file:
                for group in (self._buffer, self._clock):
                    for name, rows in group.items():
                        file[name].resize(stop, axis=0)
                        file[name][self._n_written : stop] = rows[: self._buffered]
                    file.flush()
            self._n_written, self._buffered = stop, 0
        self._last_write_s = clock.monotonic()

    def _lay_out(self, path: Path, atoms: Atoms, author: str) -> None:
        import h5py

        import hopline

        with h5py.File(path, "w", libver=LIBRARY_FORMAT) as file:
            head = file.create_group("h5md")
            head.attrs["version"] = np.array([1, 1], dtype=np.int32)
            head.create_group("author").attrs["name"] = author
            creator = head.create_group("creator")
            creator.attrs["name"] = CREATOR
            creator.attrs["version"] = getattr(hopline, "__version__", "0")
            head.create_group("modules/units").attrs["version"] = np.array([1, 0], dtype=np.int32)
            particles = file.create_group("particles/trajectory")
            particles["species"] = atoms.numbers.astype(np.int32)
            particles["mass"] = atoms.get_masses()
            particles["mass"].attrs["unit"] = "u"
            box = particles.create_group("box")
            box.attrs["dimension"] = 3
            box.attrs["boundary"] = ["periodic"] * 3
            for name, rows in (self._buffer | self._clock).items():
                per_chunk = SCALARS_PER_CHUNK
                if rows.ndim > 1:
                    per_chunk = max(1, min(FRAMES_PER_WRITE, CHUNK_BYTES // max(1, rows[0].nbytes)))
                file.create_dataset(
                    name, shape=(0, *rows.shape[1:]), maxshape=(None, *rows.shape[1:]), dtype=rows.dtype,
                    chunks=(per_chunk, *rows.shape[1:]),
                )  # fmt: skip
            for name in ("position/value", "box/edges/value"):
                particles[name].attrs["unit"] = "Angstrom"
            particles["position/time"].attrs["unit"] = "ps"
            if "velocity" in particles:
                particles["velocity/value"].attrs["unit"] = "Angstrom ps-1"
            for name, unit in OBSERVABLES.values():
                file[f"observables/{name}/value"].attrs["unit"] = unit
            for name in self._buffer:
                for part in ("step", "time"):
                    element = file[name].parent
                    if part not in element:
                        element[part] = particles[f"position/{part}"]


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


def _open_for_swmr_write(path: Path) -> Any:
    """Open a file in SWMR mode from its first instant on, which h5py's own interface reaches one write later.

    In between a killed writer would leave a file that HDF5 refuses to open.
    """
    from h5py import h5f, h5p

    access = h5p.create(h5p.FILE_ACCESS)
    access.set_libver_bounds(h5f.LIBVER_V110, h5f.LIBVER_V110)
    access.set_fclose_degree(h5f.CLOSE_STRONG)
    access.set_file_locking(False, True)  # an open reader's lock must not stop a simulation
    return h5f.open(os.fsencode(path), h5f.ACC_RDWR | h5f.ACC_SWMR_WRITE, access)


@contextmanager
def _open_h5(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading, also one whose writer is at work or was killed amid a write."""
    import h5py

    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:  # a killed SWMR writer leaves its mark in the file; SWMR readers look past it
        if "already open for write" not in str(error):
            raise
        file = h5py.File(path, "r", libver="latest", swmr=True, locking=False)
    with file:
        yield file


def _read_h5md(path: Path, frame_interval_fs: float | None) -> Trajectory:
    with _open_h5(path) as file:
        particles = h5md_particles(file, str(path))
        position = particles["position"]
        n_frames = len(position["value"])
        if position["step"].shape:  # a killed writer may leave values whose step was not reached
            n_frames = min(n_frames, len(position["step"]))
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
