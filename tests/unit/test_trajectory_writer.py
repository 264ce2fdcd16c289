"""H5MD survives ``kill -9`` and a full disk at any instant, opens elsewhere, continued to an unbroken file's bits."""

import contextlib
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from ase import Atoms
from random_walks import CELL_A, gaussian_walk, trajectory_of, write_h5

from hopline import trajectory_writer
from hopline.console import InputError
from hopline.frames import write_frames
from hopline.trajectories import Trajectory, read_trajectory
from hopline.trajectory_writer import LostTrajectoryError, TrajectoryWriter

SCRIPTS = Path(__file__).parents[2] / "scripts"
FLOAT32 = 1e-5
LITHIUM = Atoms("Li40", cell=[9, 9, 9], pbc=True)
SMALL = {"FRAMES_PER_FLUSH": 7, "FRAMES_PER_CHUNK": 6, "SCALARS_PER_CHUNK": 10}
N_FRAMES = 154
"""Of the unbroken file that others are compared with."""


@pytest.fixture
def walk() -> Trajectory:
    return trajectory_of(gaussian_walk(diffusivity_A2_per_ps=0.5, frames=307, walkers=2, seed=1))


@pytest.fixture
def few_frames_per_flush(monkeypatch):
    """Flushes that end anywhere in the chunks, and chunks enough for indices of more than one block."""
    for name, value in SMALL.items():
        monkeypatch.setattr(trajectory_writer, name, value)


@pytest.fixture
def unbroken(tmp_path, few_frames_per_flush) -> Path:  # noqa: ARG001
    write(tmp_path / "unbroken.h5", None, N_FRAMES)
    return tmp_path / "unbroken.h5"


def add(writer: TrajectoryWriter, stop: int) -> None:
    """Append frames that are all known by their number, up to ``stop``."""
    for row in range(writer.n_frames, stop):
        writer.append(
            np.random.default_rng(row).normal(size=(len(LITHIUM), 3)), (9.0 + row) * np.eye(3), step=10 * row,
            time_ps=0.1 * row, potential_energy_eV=-row, kinetic_energy_eV=0.5 * row, temperature_K=300 + row,
            pressure_GPa=0.01 * row,
        )  # fmt: skip


def write(path: Path, n_frames: int | None, stop: int, **named) -> None:
    with TrajectoryWriter(path, LITHIUM, frame_interval_ps=0.1, n_frames=n_frames, **named) as writer:
        add(writer, stop)


def content(path: Path) -> dict[str, bytes]:
    """Every data set's and attribute's bits."""
    found = {}

    def look(name, item):
        found.update({f"{name}@{key}": str(value) for key, value in item.attrs.items()})
        if isinstance(item, h5py.Dataset):
            found[name] = (item.dtype, item.shape, item[()].tobytes())

    with h5py.File(path, "r") as file:
        file.visititems(look)
    return found


def assert_begins_as(path: Path, unbroken: Path, at_least: int = 0) -> int:
    """Every program may open ``path``, and what it has are the unbroken file's first frames; returns their number."""
    with h5py.File(path, "r") as file, h5py.File(unbroken, "r") as other:
        n_frames = len(file["particles/trajectory/position/step"])
        assert n_frames >= at_least
        for element in (
            *(f"observables/{name}" for name in other["observables"]),
            "particles/trajectory/position",
        ):
            for part in ("value", "time", "step"):
                np.testing.assert_array_equal(
                    file[f"{element}/{part}"][:n_frames], other[f"{element}/{part}"][:n_frames]
                )
        cells = "particles/trajectory/box/edges/value"
        np.testing.assert_array_equal(file[cells][:n_frames], other[cells][:n_frames])
    if n_frames:
        assert read_trajectory(path).n_frames == n_frames
    return n_frames


def assert_continues_to(path: Path, unbroken: Path, n_frames: int) -> None:
    write(path, n_frames, N_FRAMES)
    assert content(path) == content(unbroken)
    assert not list(path.parent.glob(f".{path.stem}-*"))


@contextmanager
def largest_file(n_bytes: int):
    """A write beyond ``n_bytes`` fails with EFBIG (Python ignores SIGXFSZ)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_h5md_gives_back_what_was_written(tmp_path):
    rng = np.random.default_rng(3)
    atoms = Atoms("LiF", cell=[[5, 0, 0], [1, 6, 0], [0, 2, 7]], pbc=True)
    positions, velocities = rng.normal(size=(2, 150, 2, 3))
    with TrajectoryWriter(tmp_path / "a.h5", atoms, frame_interval_ps=0.02, velocities=True) as writer:
        for row in range(150):
            writer.append(
                positions[row], atoms.cell.array + row, step=10 * row, time_ps=5 + 0.02 * row,
                potential_energy_eV=-row, kinetic_energy_eV=row, temperature_K=300 + row,
                pressure_GPa=0.1 * row,
                velocities_A_per_ps=velocities[row],
            )  # fmt: skip
    read = read_trajectory(tmp_path / "a.h5")
    assert read.positions_A.dtype == np.float32
    assert read.cells_A.dtype == np.float64
    np.testing.assert_allclose(read.positions_A, positions, atol=FLOAT32)
    np.testing.assert_allclose(read.velocities_A_per_ps, velocities, atol=FLOAT32)
    np.testing.assert_array_equal(read.cells_A[149], atoms.cell.array + 149)
    np.testing.assert_array_equal(read.observables["potential_energy_eV"], -np.arange(150.0))
    np.testing.assert_allclose(read.observables["pressure_GPa"], 0.1 * np.arange(150))
    np.testing.assert_allclose(read.masses_amu, atoms.get_masses())
    assert read.frame_interval_ps == pytest.approx(0.02)
    assert read.length_ps == pytest.approx(149 * 0.02)
    frame = read.atoms(7)
    assert frame.get_chemical_symbols() == ["Li", "F"]
    ase_velocity_per_A_per_ps = 1 / (1000 * 0.09822694788464063)  # ASE's own fs
    np.testing.assert_allclose(
        frame.get_velocities(), velocities[7] * ase_velocity_per_A_per_ps, atol=FLOAT32
    )


def test_mdanalysis_opens_it_with_units(tmp_path, walk):
    mda = pytest.importorskip("MDAnalysis")
    path = write_h5(tmp_path / "a.h5md", walk)
    universe = mda.Universe(str(path), str(path), topology_format="MINIMAL")
    assert universe.atoms.n_atoms == walk.n_atoms
    assert universe.trajectory.n_frames == walk.n_frames
    assert universe.trajectory.units["length"] == "Angstrom"
    frame = universe.trajectory[200]
    assert frame.time == pytest.approx(20.0)
    np.testing.assert_allclose(frame.positions, walk.positions_A[200], atol=FLOAT32)
    np.testing.assert_allclose(frame.dimensions, [CELL_A, CELL_A, CELL_A, 90, 90, 90])
    assert frame.data["temperature"] == pytest.approx(700.0)
    # as docs/dynamics.md opens it: with the elements, from the start beside it
    write_frames(tmp_path / "start.extxyz", [walk.atoms(0)])
    universe = mda.Universe(str(tmp_path / "start.extxyz"), str(path), topology_format="XYZ", format="H5MD")
    assert list(universe.atoms.elements) == walk.atoms(0).get_chemical_symbols()
    with h5py.File(path) as file:
        np.testing.assert_allclose(
            file["particles/trajectory/position/value"][:], walk.positions_A, atol=FLOAT32
        )


@pytest.mark.usefixtures("few_frames_per_flush")
def test_readable_while_the_run_goes_on(tmp_path, walk):
    mda = pytest.importorskip("MDAnalysis")
    path = tmp_path / "a.h5md"
    atoms = walk.atoms(0)
    writer = TrajectoryWriter(path, atoms, frame_interval_ps=0.1)
    frames = {"potential_energy_eV": 0.0, "kinetic_energy_eV": 0.0, "temperature_K": 0.0}
    with pytest.raises(InputError, match="holds no frame"):
        read_trajectory(path)
    for row in range(100):
        writer.append(walk.positions_A[row], walk.cells_A[row], step=row, time_ps=0.1 * row, **frames)
    assert read_trajectory(path).n_frames == 98
    holder = "import h5py, sys; file = h5py.File(sys.argv[1]); print('go', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", holder, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout.readline() == b"go\n"
        writer.flush()  # another program holds the file open and locked
        assert read_trajectory(path).n_frames == 100
    universe = mda.Universe(str(path), str(path), topology_format="MINIMAL")
    assert universe.trajectory.n_frames == 100


def test_a_frame_at_the_wrong_time_is_refused(tmp_path, walk):
    writer = TrajectoryWriter(tmp_path / "a.h5", walk.atoms(0), frame_interval_ps=0.1)
    values = {"potential_energy_eV": 0.0, "kinetic_energy_eV": 0.0, "temperature_K": 0.0}
    writer.append(walk.positions_A[0], walk.cells_A[0], step=0, time_ps=0.0, **values)
    with pytest.raises(ValueError, match="is due"):
        writer.append(walk.positions_A[1], walk.cells_A[1], step=1, time_ps=0.2, **values)
    with pytest.raises(ValueError, match="velocities"):
        writer.append(
            walk.positions_A[1],
            walk.cells_A[1],
            step=1,
            time_ps=0.1,
            velocities_A_per_ps=walk.positions_A[1],
            **values,
        )


def test_written_after_ten_seconds_at_the_next_frame(tmp_path, monkeypatch):
    writer = TrajectoryWriter(tmp_path / "a.h5", LITHIUM, frame_interval_ps=0.1)
    add(writer, 3)
    with pytest.raises(InputError, match="holds no frame"):
        read_trajectory(tmp_path / "a.h5")
    monkeypatch.setattr(trajectory_writer, "SECONDS_PER_FLUSH", 0.01)
    time.sleep(0.02)
    add(writer, 4)
    assert read_trajectory(tmp_path / "a.h5").n_frames == writer.n_frames == 4


def test_the_buffer_is_bounded_by_bytes():
    for n_atoms in (17, 1001, 100_000):
        columns = trajectory_writer._columns(n_atoms, velocities=True)
        assert sum(rows.nbytes for rows in columns.values()) <= max(4 << 20, 24 * n_atoms + 200)


def test_continued_where_it_ends_nothing_is_copied(tmp_path, unbroken):
    path = tmp_path / "a.h5"
    write(path, None, 123)
    before = path.stat().st_ino
    writer = TrajectoryWriter(path, LITHIUM, frame_interval_ps=0.1, n_frames=123)
    assert writer.n_frames == 123
    add(writer, N_FRAMES)
    writer.flush()
    assert path.stat().st_ino == before
    assert content(path) == content(unbroken)


@pytest.mark.parametrize("n_frames", [0, 1, 99, 100, 122])
def test_cut_back_and_continued_is_the_unbroken_file(tmp_path, unbroken, n_frames):
    path = tmp_path / "a.h5"
    write(path, None, 123)
    assert_continues_to(path, unbroken, n_frames)


@pytest.mark.usefixtures("few_frames_per_flush")
def test_continued_with_velocities(tmp_path):
    rng = np.random.default_rng(5)
    positions, velocities = rng.normal(size=(2, 30, len(LITHIUM), 3))

    def add_moving(path, n_frames, stop):
        with TrajectoryWriter(
            path, LITHIUM, frame_interval_ps=0.1, velocities=True, n_frames=n_frames
        ) as writer:
            for row in range(writer.n_frames, stop):
                writer.append(
                    positions[row], LITHIUM.cell.array, step=row, time_ps=0.1 * row, potential_energy_eV=0.0,
                    kinetic_energy_eV=0.0, temperature_K=0.0, velocities_A_per_ps=velocities[row],
                )  # fmt: skip

    add_moving(tmp_path / "whole.h5", None, 30)
    add_moving(tmp_path / "a.h5", None, 20)
    add_moving(tmp_path / "a.h5", 13, 30)
    assert content(tmp_path / "a.h5") == content(tmp_path / "whole.h5")
    read = read_trajectory(tmp_path / "a.h5")
    np.testing.assert_array_equal(read.velocities_A_per_ps, velocities.astype(np.float32))
    with pytest.raises(InputError, match="has velocities"):
        write(tmp_path / "a.h5", 20, 25)


def test_frames_that_are_gone_are_a_matter_of_starting_anew(tmp_path, unbroken):
    whole = unbroken.read_bytes()
    damaged = {
        "missing.h5": None, "empty.h5": b"", "zeros.h5": bytes(5000), "half.h5": whole[: len(whole) // 2],
        "blank.h5": whole[:8000] + bytes(20000) + whole[28000:],
    }  # fmt: skip
    for name, left in damaged.items():
        if left is not None:
            (tmp_path / name).write_bytes(left)
        with pytest.raises(LostTrajectoryError, match=name) as error:
            write(tmp_path / name, 100, N_FRAMES)
        assert len(str(error.value).splitlines()) == 1
        if left is not None:
            assert (tmp_path / name).read_bytes() == left
    with pytest.raises(LostTrajectoryError, match="has 154 frames where 155"):
        write(unbroken, N_FRAMES + 1, N_FRAMES + 2)
    assert unbroken.read_bytes() == whole


def test_what_does_not_belong_together_is_not_continued(tmp_path, unbroken):
    heavy = LITHIUM.copy()
    heavy.set_masses([7.016] * len(heavy))
    named = {"frame_interval_ps": 0.1, "n_frames": 50}
    for message, atoms, settings in (
        ("other atoms", Atoms("Na40"), {}), ("other atoms", LITHIUM[:39], {}), ("other atoms", heavy, {}),
        ("frame 1 at 0.1 ps", LITHIUM, {"frame_interval_ps": 0.2}), ("lacks velocities", LITHIUM, {"velocities": True}),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message) as error:
            TrajectoryWriter(unbroken, atoms, **{**named, **settings})
        assert not isinstance(error.value, LostTrajectoryError)
    (tmp_path / "notes.h5").write_text("not a trajectory\n")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["particles/all/species"] = LITHIUM.numbers
    for name in ("notes.h5", "foreign.h5"):
        with pytest.raises(InputError, match="nor replaced") as error:
            TrajectoryWriter(tmp_path / name, LITHIUM, **named)
        assert not isinstance(error.value, LostTrajectoryError)
        assert (tmp_path / name).exists()


def test_a_synced_frame_is_on_the_disk(tmp_path, monkeypatch):
    synced = []
    really = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.fstat(file).st_ino), really(file)))
    writer = TrajectoryWriter(tmp_path / "a.h5", LITHIUM, frame_interval_ps=0.1)
    assert synced[-1] == tmp_path.stat().st_ino  # the name
    add(writer, 5)
    synced.clear()
    writer.sync()
    assert read_trajectory(tmp_path / "a.h5").n_frames == 5
    assert synced[-1] == (tmp_path / "a.h5").stat().st_ino
    n_synced = len(synced)
    writer.sync()  # nothing new, but the file may not have reached the disk since
    assert len(synced) == n_synced + 1


def killed_at(path: Path, n_frames: int | None, wait_s: float) -> None:
    """Write to ``path`` in another process, without end, and kill that ``wait_s`` after it wrote its first frames."""
    ready, told = os.pipe()
    child = os.fork()
    if not child:
        try:
            writer = TrajectoryWriter(path, LITHIUM, frame_interval_ps=0.1, n_frames=n_frames)
            add(writer, writer.n_frames + 7)
            os.write(told, b"go")
            add(writer, 10**6)
        finally:
            os._exit(1)
    os.close(told)
    os.read(ready, 2)
    os.close(ready)
    time.sleep(wait_s)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


def test_killed_at_random_instants_and_continued(tmp_path, unbroken):
    """Forty kills, two in a row each, of a writer that only writes (most hit a flush); what must hold, holds at any."""
    rng = np.random.default_rng(11)
    write(tmp_path / "long.h5", None, 3000)
    for attempt in range(20):
        path = tmp_path / f"{attempt}.h5"
        killed_at(path, None, rng.uniform(0, 0.05))
        found = assert_begins_as(path, tmp_path / "long.h5", at_least=7)
        checkpoint = int(rng.integers(found + 1))
        killed_at(path, checkpoint, rng.uniform(0, 0.05))
        found = assert_begins_as(path, tmp_path / "long.h5", at_least=checkpoint + 7)
        assert_continues_to(path, unbroken, min(N_FRAMES, int(rng.integers(found - 7, found + 1))))


class BreaksOff:
    """The system's ``pwrite`` so many times; then an error, with half written of what would make the file longer."""

    def __init__(self, last: int, size_before: int) -> None:
        self.last, self.size_before, self.really = last, size_before, os.pwrite

    def __call__(self, file, data, place):
        """Write, or not."""
        self.last -= 1
        if self.last < 0:
            if place >= self.size_before:
                self.really(file, data[: len(data) // 2], place)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self.really(file, data, place)


@pytest.mark.usefixtures("few_frames_per_flush")
@pytest.mark.parametrize("n_before", [0, 7, 59, 60, 98, 511])
def test_stopped_at_every_single_write(tmp_path, monkeypatch, n_before):
    """Each write of a flush in turn is the first that does not happen; the frames before are whole, and it goes on."""
    start, whole_file, path = (tmp_path / name for name in ("start.h5", "whole.h5", "a.h5"))
    write(start, None, n_before)
    write(whole_file, None, n_before + 7)
    for n_writes in range(1000):
        shutil.copy(start, path)
        writer = TrajectoryWriter(path, LITHIUM, frame_interval_ps=0.1, n_frames=n_before)
        error = None
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", BreaksOff(n_writes, start.stat().st_size))
            try:
                add(writer, n_before + 7)
            except OSError as broke_off:
                error = broke_off
        if error is None:
            break
        assert error.filename == str(path)
        assert f"frames {n_before} to {n_before + 6} are not written" in error.strerror
        # the number of steps is the last thing to be written
        assert assert_begins_as(path, whole_file) == n_before
        writer.flush()  # the same writer may try again
        assert content(path) == content(whole_file)
    assert n_writes > 8  # one a data set and more


class NodeLossError(BaseException):
    """The end of a process that nothing in it can answer to."""


class Tears:
    """The system's ``pwrite`` but for one call, of which half reaches the disk; then the node is lost, or it goes on.

    Going on stands for a disk that wrote later pages first; what lies behind the end is on the disk before they come.
    """

    def __init__(self, torn: int, size_before: int, *, lost: bool) -> None:
        self.left, self.size_before, self.lost, self.met, self.really = (
            torn,
            size_before,
            lost,
            False,
            os.pwrite,
        )

    def __call__(self, file, data, place):
        """Write, or half of it."""
        if not self.lost and place >= self.size_before:
            return self.really(file, data, place)
        self.left -= 1
        if self.left == -1:
            self.met = True
            self.really(file, data[: len(data) // 2], place)
            if self.lost:
                raise NodeLossError
            return len(data)
        return self.really(file, data, place)


@pytest.mark.usefixtures("few_frames_per_flush")
@pytest.mark.parametrize("lost", [True, False])
def test_a_node_lost_amid_a_write_loses_no_frame_of_a_checkpoint(tmp_path, monkeypatch, lost):
    """Whichever write was torn, what was synced before comes back from the journal, and goes on to the same bits."""
    start, whole_file, path = (tmp_path / name for name in ("start.h5", "whole.h5", "a.h5"))
    write(start, None, 98)
    write(whole_file, None, 105)
    for torn in range(1000):
        path.unlink(missing_ok=True)
        shutil.copy(start, path)
        writer = TrajectoryWriter(path, LITHIUM, frame_interval_ps=0.1, n_frames=98)
        tears = Tears(torn, start.stat().st_size, lost=lost)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", tears)
            # the journal of the node that was lost later is still there
            patch.setattr(Path, "unlink", lambda *_, **__: None)
            with contextlib.suppress(NodeLossError):
                add(writer, 105)
        if not tears.met:
            break
        assert_continues_from(path, whole_file, 98, 105)
    assert torn > 8


def assert_continues_from(path, whole_file, n_frames, n_last):
    writer = TrajectoryWriter(path, LITHIUM, frame_interval_ps=0.1, n_frames=n_frames)
    add(writer, n_last)
    writer.flush()
    assert content(path) == content(whole_file)


def test_full_disk_at_many_instants(tmp_path, unbroken):
    """A limit on the size of files stands for the disk: at each of forty the frames before are whole and go on."""
    size = unbroken.stat().st_size
    kept = set()
    for limit in np.linspace(1000, size - 1, 40).astype(int):
        path = tmp_path / "a.h5"
        path.unlink(missing_ok=True)
        writer = None
        with largest_file(int(limit)), pytest.raises(OSError, match="too large") as error:  # noqa: PT012
            writer = TrajectoryWriter(path, LITHIUM, frame_interval_ps=0.1)
            add(writer, N_FRAMES)
        assert error.value.errno == errno.EFBIG
        assert error.value.filename == str(path)
        if writer is None:
            assert not list(tmp_path.glob("*a*.h5"))
            continue
        n_frames = writer.n_frames - 7
        assert assert_begins_as(path, unbroken) == n_frames
        kept.add(n_frames)
        if limit % 3:
            assert_continues_to(path, unbroken, max(0, n_frames - limit % 10))
        else:  # room was made, and the frames that waited are not lost
            add(writer, N_FRAMES)
            writer.flush()
            assert content(path) == content(unbroken)
    assert len(kept) > 10


def test_no_room_for_the_copy_leaves_the_old_file(tmp_path, unbroken):
    before = unbroken.read_bytes()
    for limit in range(3000, len(before), len(before) // 20):
        with largest_file(limit), pytest.raises(OSError, match="too large") as error:
            TrajectoryWriter(unbroken, LITHIUM, frame_interval_ps=0.1, n_frames=N_FRAMES - 1)
        assert error.value.filename
        assert unbroken.read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ["unbroken.h5"]


FULL_TMPFS = """
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
import test_trajectory_writer as t
folder, unbroken = Path(sys.argv[1]), Path(sys.argv[2])
for name, value in t.SMALL.items():
    setattr(t.trajectory_writer, name, value)
kept = set()
for attempt in range(25):
    path, ballast = folder / "a.h5", folder / "ballast"
    ballast.write_bytes(bytes(4096 * attempt))
    writer = None
    try:
        writer = t.TrajectoryWriter(path, t.LITHIUM, frame_interval_ps=0.1)
        t.add(writer, t.N_FRAMES)
        raise SystemExit("the disk did not fill")
    except OSError as error:
        assert error.errno == t.errno.ENOSPC, error
        assert error.filename == str(path), error
    ballast.unlink()
    if writer is None:
        continue
    n_frames = t.assert_begins_as(path, unbroken)
    assert n_frames == writer.n_frames - 7
    kept.add(n_frames)
    elsewhere = unbroken.parent / "moved.h5"
    t.shutil.move(path, elsewhere)
    t.assert_continues_to(elsewhere, unbroken, n_frames)
print("kept", len(kept))
"""


def test_a_disk_that_is_really_full(tmp_path, unbroken):
    """A small tmpfs in a mount namespace of its own, filled at twenty-five instants."""
    disk = tmp_path / "disk"
    disk.mkdir()
    code = FULL_TMPFS.format(
        paths=[str(SCRIPTS), *(str(SCRIPTS.parent / "tests" / part) for part in ("", "unit"))]
    )
    size = unbroken.stat().st_size - 8192
    mount = f'mount -t tmpfs -o size={size} none "$1" || exit 77; exec "$0" -c "$2" "$1" "$3"'
    command = ["unshare", "-rm", "sh", "-c", mount, sys.executable, str(disk), code, str(unbroken)]
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("this machine permits no mount namespace")
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode == 77:
        pytest.skip(f"this machine permits no mount: {run.stderr}")
    assert run.returncode == 0, run.stderr
    assert int(run.stdout.split()[1]) > 3


def test_mdanalysis_opens_interrupted_and_continued_files(tmp_path, unbroken):
    mda = pytest.importorskip("MDAnalysis")

    def check(path, n_frames):
        universe = mda.Universe(str(path), str(path), topology_format="MINIMAL")
        assert universe.trajectory.n_frames == n_frames
        assert universe.trajectory.units["length"] == "Angstrom"
        assert universe.trajectory.units["time"] == "ps"
        last = universe.trajectory[n_frames - 1]
        assert last.time == pytest.approx(0.1 * (n_frames - 1))
        assert last.data["potential_energy"] == -(n_frames - 1)
        positions_A = last.positions
        universe.trajectory.close()
        np.testing.assert_array_equal(positions_A, read_trajectory(path).positions_A[-1])

    path = tmp_path / "full.h5md"
    with largest_file(unbroken.stat().st_size // 2), pytest.raises(OSError, match="too large"):
        write(path, None, N_FRAMES)
    n_frames = read_trajectory(path).n_frames
    check(path, n_frames)
    write(path, n_frames - 10, N_FRAMES)
    check(path, N_FRAMES)
    killed = tmp_path / "killed.h5md"
    killed_at(killed, None, 0.03)
    check(killed, read_trajectory(killed).n_frames)
