"""Writing trajectories: H5MD 1.1, intact after ``kill -9`` and on a full disk, cut back to a checkpoint and continued.

Layout: ``/particles/trajectory/{species, mass, box/edges, position[, velocity]}`` and
``/observables/{potential_energy, kinetic_energy, temperature, pressure}``; one ``step`` and one ``time`` data set,
hard-linked wherever H5MD asks for them. Source: de Buyl, Colberg and Hoefling, Comput. Phys. Commun. 185, 1546 (2014),
and nongnu.org/h5md.
"""

import errno
import os
import time as clock
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike, NDArray

from hopline.console import InputError
from hopline.files import whole
from hopline.h5_draft import Draft, redo
from hopline.trajectories import CREATOR, OBSERVABLES, SPACING_TOLERANCE
from hopline.trajectory_formats import h5md_creator

FRAMES_PER_FLUSH = 1000
BUFFER_BYTES = 4 << 20
"""A flush costs some milliseconds however little it writes: whichever of the two is reached first."""
SECONDS_PER_FLUSH = 10.0
FRAMES_PER_CHUNK = 100
CHUNK_BYTES = 1 << 20
SCALARS_PER_CHUNK = 512
LIBRARY_FORMAT = ("v110", "v110")
"""HDF5 1.10's file format, of little metadata and all of it with checksums; later releases read it."""

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
PARTICLES = "particles/trajectory"
POSITIONS, CELLS = f"{PARTICLES}/position/value", f"{PARTICLES}/box/edges/value"
VELOCITIES = f"{PARTICLES}/velocity/value"
TIMES, STEPS = f"{PARTICLES}/position/time", f"{PARTICLES}/position/step"


class LostTrajectoryError(InputError):
    """The frames to continue from are gone: no file, a damaged one, or fewer frames; the run has to start anew."""


class TrajectoryWriter:
    """Write one trajectory as H5MD; a context manager.

    Frames are buffered and written a thousand (or 4 MiB) at a time or, at the next ``append``, after ten seconds.
    The file is a whole one at every instant, so any tool may open it: what a write adds goes behind its end first,
    which is where a full disk is met, and ``step`` is extended last. A killed writer leaves whole frames only; a reader
    that opens the file amid a write may be refused, not misled.

    Positions and velocities are kept as float32: an unwrapped position is good to 6e-8 of its value, 4e-6 A at 100 A
    from the origin.

    Parameters
    ----------
    path
        File to write; replaced if it exists and ``n_frames`` is None.
    atoms
        Species and masses; positions are not used.
    frame_interval_ps
        Time between frames in ps; ``append`` refuses a frame at another time.
    velocities
        Whether frames carry velocities.
    author
        Author's name, which H5MD asks for.
    n_frames
        Continue ``path`` after its first so many frames; what follows them is cut off: the file is then copied and
        replaced by the copy.

    Raises
    ------
    LostTrajectoryError
        If the file to continue is missing or damaged or has fewer frames.
    InputError
        If it is of other atoms or times, with or without velocities against what is asked, or not Hopline's.
    OSError
        If the disk is full, with the file's name; frames written before are whole, and can be continued from.
    """

    def __init__(
        self, path: str | os.PathLike[str], atoms: Atoms, *, frame_interval_ps: float,
        velocities: bool = False, author: str = "Hopline", n_frames: int | None = None,
    ) -> None:  # fmt: skip
        self.path = Path(path)
        self.frame_interval_ps = frame_interval_ps
        self._first_time_ps: float | None = None
        self._n_written = self._buffered = 0
        self._velocities = velocities
        self._columns = _columns(len(atoms), velocities=velocities)
        self._rows_per_flush = len(self._columns[STEPS])
        self._last_flush_s = clock.monotonic()
        with _named_errors(self.path):
            if n_frames is None:
                _journal_of(self.path).unlink(missing_ok=True)
                with whole(self.path) as temporary:
                    temporary.write_bytes(_empty_file(atoms, self._columns, author))
            else:
                self._continue_after(n_frames, atoms, author)
            _to_disk(self.path.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    @property
    def n_frames(self) -> int:
        """Frames of the trajectory so far; after ``flush`` or ``sync`` all of them are in the file."""
        return self._n_written + self._buffered

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
        OSError
            If the disk is full; the frame is kept in the buffer, and a later ``flush`` writes it.
        """
        if self._buffered == self._rows_per_flush:  # after a flush that failed
            self.flush()
        first_ps = time_ps if self._first_time_ps is None else self._first_time_ps
        due_ps = first_ps + self.n_frames * self.frame_interval_ps
        if abs(time_ps - due_ps) > SPACING_TOLERANCE * self.frame_interval_ps:
            raise ValueError(f"frame at {time_ps} ps where one is due at {due_ps} ps")
        if (velocities_A_per_ps is not None) != self._velocities:
            raise ValueError("velocities go with a writer opened with velocities=True, and only with it")
        values: list[Any] = [
            positions_A, cell_A, potential_energy_eV, kinetic_energy_eV, temperature_K,
            np.nan if pressure_GPa is None else pressure_GPa, time_ps, step,
        ]  # fmt: skip
        if self._velocities:
            values.insert(0, velocities_A_per_ps)
        for rows, value in zip(self._columns.values(), values, strict=True):
            rows[self._buffered] = value
        self._first_time_ps = first_ps
        self._buffered += 1
        waited_s = clock.monotonic() - self._last_flush_s
        if self._buffered == self._rows_per_flush or waited_s >= SECONDS_PER_FLUSH:
            self.flush()

    def flush(self) -> None:
        """Write the buffered frames to the file now; OSError if the disk is full."""
        if self._buffered:
            rows = {name: column[: self._buffered] for name, column in self._columns.items()}
            _extend(self.path, self._n_written, rows)
            self._n_written += self._buffered
            self._buffered = 0
        self._last_flush_s = clock.monotonic()

    def sync(self) -> None:
        """Write the buffered frames and wait until the disk has them: from then on the loss of the node spares them."""
        self.flush()
        with _named_errors(self.path):
            _to_disk(self.path)

    def _continue_after(self, n_frames: int, atoms: Atoms, author: str) -> None:
        """Make the file one of its first ``n_frames`` frames, in one instant where it is not already."""
        if not self.path.is_file():
            raise LostTrajectoryError(f"{self.path} does not exist: it cannot be continued")
        redo(self.path, _journal_of(self.path))
        with self.path.open("rb") as opened:
            head = opened.read(len(HDF5_SIGNATURE))
        if head != HDF5_SIGNATURE and head.strip(b"\0"):  # zeros are what a lost node leaves
            raise InputError(f"{self.path} is no HDF5 file: it is not continued, nor replaced")
        with _read_for_continuing(self.path) as file:
            self._check_origin(file, atoms)
            lengths = [len(file[name]) for name in self._columns]
            if min(lengths) < n_frames:
                raise LostTrajectoryError(
                    f"{self.path} has {min(lengths)} frames where {n_frames} are to be continued from"
                )
            self._check_times(file[TIMES][:n_frames])
            # indices and checksums are gone through now, not in the middle of a run
            for name in self._columns if n_frames else ():
                file[name][n_frames - 1]
        if max(lengths) > n_frames:
            with whole(self.path) as temporary:
                temporary.write_bytes(_empty_file(atoms, self._columns, author))
                for start in range(0, n_frames, self._rows_per_flush):
                    stop = min(n_frames, start + self._rows_per_flush)
                    with _read_for_continuing(self.path) as file:
                        rows = {name: file[name][start:stop] for name in self._columns}
                    _extend(temporary, start, rows)
        self._n_written = n_frames

    def _check_origin(self, file: Any, atoms: Atoms) -> None:
        if h5md_creator(file) != CREATOR:
            raise InputError(f"{self.path} was not written by {CREATOR}: it is not continued, nor replaced")
        species, masses_amu = file[f"{PARTICLES}/species"][()], file[f"{PARTICLES}/mass"][()]
        if not np.array_equal(species, atoms.numbers) or not np.allclose(masses_amu, atoms.get_masses()):
            raise InputError(f"{self.path} is of other atoms than those to continue with")
        if (VELOCITIES in file) != self._velocities:
            has = "has" if VELOCITIES in file else "lacks"
            raise InputError(f"{self.path} {has} velocities, against what is asked of its continuation")

    def _check_times(self, times_ps: NDArray[np.float64]) -> None:
        if len(times_ps):
            self._first_time_ps = float(times_ps[0])
            due_ps = self._first_time_ps + self.frame_interval_ps * np.arange(len(times_ps))
            late = np.abs(times_ps - due_ps) > SPACING_TOLERANCE * self.frame_interval_ps
            if late.any():
                frame = int(late.argmax())
                raise InputError(
                    f"{self.path} has frame {frame} at {times_ps[frame]:g} ps; frames every {self.frame_interval_ps:g} "
                    f"ps, as asked of its continuation, put it at {due_ps[frame]:g} ps"
                )


def _columns(n_atoms: int, *, velocities: bool) -> dict[str, NDArray[Any]]:
    """Return buffers by data set, in the order of writing: ``step`` last, since it says how many frames there are."""
    kinds: dict[str, tuple[tuple[int, ...], type]] = (
        {VELOCITIES: ((n_atoms, 3), np.float32)} if velocities else {}
    )
    kinds |= {POSITIONS: ((n_atoms, 3), np.float32), CELLS: ((3, 3), np.float64)}
    kinds |= {f"observables/{name}/value": ((), np.float64) for name, _unit in OBSERVABLES.values()}
    kinds |= {TIMES: ((), np.float64), STEPS: ((), np.int64)}
    frame_bytes = sum(int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in kinds.values())
    n_rows = max(1, min(FRAMES_PER_FLUSH, BUFFER_BYTES // frame_bytes))
    return {name: np.empty((n_rows, *shape), kind) for name, (shape, kind) in kinds.items()}


def _rows_per_chunk(rows: NDArray[Any]) -> int:
    if rows.ndim == 1:
        return SCALARS_PER_CHUNK
    return max(1, min(FRAMES_PER_CHUNK, CHUNK_BYTES // max(1, rows[0].nbytes)))


def _extend(path: Path, n_before: int, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write rows (n_rows, ...) by data set after the first ``n_before``, in steps that each leave the file whole."""
    import h5py

    stop = n_before + len(columns[STEPS])
    redo(path, _journal_of(path))
    descriptor = os.open(path, os.O_RDWR)
    try:
        draft = Draft(descriptor)
        counts = []
        with h5py.File(draft, "r+", libver=LIBRARY_FORMAT) as file:
            for name, rows in columns.items():
                # h5py's own slicing takes three times as long
                dataset = h5py.h5d.open(file.id, name.encode())
                dataset.set_extent((stop, *rows.shape[1:]))
                space = dataset.get_space()
                space.select_hyperslab((n_before, *[0] * (rows.ndim - 1)), rows.shape)
                dataset.write(h5py.h5s.create_simple(rows.shape), space, np.ascontiguousarray(rows))
                counts.append(h5py.h5o.get_info(dataset).addr)
        draft.carry_out(counts, _journal_of(path))
    except OSError as error:
        number = error.errno or errno.EIO
        message = f"{os.strerror(number)}: frames {n_before} to {stop - 1} are not written, those before them are whole"
        raise OSError(number, message, str(path)) from error
    finally:
        os.close(descriptor)


@contextmanager
def _read_for_continuing(path: Path) -> Iterator[Any]:
    """Open a trajectory; what HDF5 stumbles over in it becomes LostTrajectoryError, an unwell disk stays OSError."""
    try:
        import h5py

        with h5py.File(path, "r", locking=False) as file:
            yield file
    except InputError:
        raise
    except Exception as error:  # h5py raises whatever it stumbles over
        if isinstance(error, OSError) and error.errno:
            raise
        raise LostTrajectoryError(
            f"{path} is damaged and cannot be continued ({type(error).__name__}: {error})"
        ) from error


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Give errors of the system that name no file the name of this one."""
    try:
        yield
    except OSError as error:
        if error.filename or not error.errno:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def _journal_of(path: Path) -> Path:
    """Return where changes to a trajectory are kept while they are carried out."""
    return path.with_name(f".{path.name}.changes")


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _empty_file(atoms: Atoms, columns: Mapping[str, NDArray[Any]], author: str) -> bytes:
    """Return a trajectory without frames; made in memory, since HDF5 does not take a full disk well."""
    import h5py

    import hopline

    with h5py.File("empty", "w", driver="core", backing_store=False, libver=LIBRARY_FORMAT) as file:
        head = file.create_group("h5md")
        head.attrs["version"] = np.array([1, 1], dtype=np.int32)
        head.create_group("author").attrs["name"] = author
        creator = head.create_group("creator")
        creator.attrs["name"] = CREATOR
        creator.attrs["version"] = getattr(hopline, "__version__", "0")
        head.create_group("modules/units").attrs["version"] = np.array([1, 0], dtype=np.int32)
        particles = file.create_group(PARTICLES)
        particles["species"] = atoms.numbers.astype(np.int32)
        particles["mass"] = atoms.get_masses()
        particles["mass"].attrs["unit"] = "u"
        box = particles.create_group("box")
        box.attrs["dimension"] = 3
        box.attrs["boundary"] = ["periodic"] * 3
        for name, rows in columns.items():
            file.create_dataset(
                name, shape=(0, *rows.shape[1:]), maxshape=(None, *rows.shape[1:]), dtype=rows.dtype,
                chunks=(_rows_per_chunk(rows), *rows.shape[1:]),
            )  # fmt: skip
        for name, unit in (
            (POSITIONS, "Angstrom"), (CELLS, "Angstrom"), (VELOCITIES, "Angstrom ps-1"), (TIMES, "ps"),
            *((f"observables/{name}/value", unit) for name, unit in OBSERVABLES.values()),
        ):  # fmt: skip
            if name in columns:
                file[name].attrs["unit"] = unit
        for name in columns.keys() - {TIMES, STEPS}:
            element = file[name].parent
            for source in (TIMES, STEPS):
                part = source.rpartition("/")[2]
                if part not in element:
                    element[part] = file[source]
        file.flush()
        image: bytes = file.id.get_file_image()
    return image
