"""H5MD survives a killed writer and opens elsewhere; every reader gives back what was written."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from random_walks import CELL_A, gaussian_walk, trajectory_of, write_h5

from hopline.console import InputError
from hopline.trajectories import FRAMES_PER_WRITE, Trajectory, TrajectoryWriter, read_trajectory

SCRIPTS = Path(__file__).parents[2] / "scripts"
FLOAT32 = 1e-5


@pytest.fixture
def walk() -> Trajectory:
    """Three hundred and seven frames: not a multiple of what one write holds."""
    return trajectory_of(gaussian_walk(diffusivity_A2_per_ps=0.5, frames=307, walkers=2, seed=1))


def wrapped_frames(walk: Trajectory) -> list[Atoms]:
    frames = []
    for row in range(walk.n_frames):
        atoms = walk.atoms(row)
        atoms.wrap()
        frames.append(atoms)
    return frames


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


def test_readable_while_the_run_goes_on(tmp_path, walk):
    mda = pytest.importorskip("MDAnalysis")
    path = tmp_path / "a.h5md"
    atoms = walk.atoms(0)
    writer = TrajectoryWriter(path, atoms, frame_interval_ps=0.1)
    frames = {"potential_energy_eV": 0.0, "kinetic_energy_eV": 0.0, "temperature_K": 0.0}
    with pytest.raises(InputError, match="holds no frame"):
        read_trajectory(path)
    for row in range(FRAMES_PER_WRITE + 3):
        writer.append(walk.positions_A[row], walk.cells_A[row], step=row, time_ps=0.1 * row, **frames)
    assert read_trajectory(path).n_frames == FRAMES_PER_WRITE
    holder = "import h5py, sys; file = h5py.File(sys.argv[1]); print('go', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", holder, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout.readline() == b"go\n"
        writer.flush()  # another program holds the file open and locked
        assert read_trajectory(path).n_frames == FRAMES_PER_WRITE + 3
    universe = mda.Universe(str(path), str(path), topology_format="MINIMAL")
    assert universe.trajectory.n_frames == FRAMES_PER_WRITE + 3


CHILD = """
import sys
sys.path.insert(0, {scripts!r})
import numpy as np
import hopline.trajectories as t
t.FRAMES_PER_WRITE = 4
from ase import Atoms
n = 200
writer = t.TrajectoryWriter({path!r}, Atoms("Li" * n, cell=[9, 9, 9], pbc=True), frame_interval_ps=1.0)
row = 0
while True:
    writer.append(np.full((n, 3), float(row)), (9.0 + row) * np.eye(3), step=row, time_ps=float(row),
                  potential_energy_eV=float(row), kinetic_energy_eV=0.0, temperature_K=1.0)
    row += 1
    if row == 8:
        print("go", flush=True)
"""


def test_intact_after_kill_9(tmp_path):
    """Writers that only write are killed at twelve different moments; every whole frame is right."""
    for attempt in range(12):
        path = tmp_path / f"{attempt}.h5"
        code = CHILD.format(scripts=str(SCRIPTS), path=str(path))
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            time.sleep(0.05 + 0.0137 * attempt)
            child.send_signal(signal.SIGKILL)
        read = read_trajectory(path)
        expected = np.arange(read.n_frames, dtype=float)
        assert read.n_frames >= 8
        np.testing.assert_array_equal(
            read.positions_A, np.broadcast_to(expected[:, None, None], (len(expected), 200, 3))
        )
        np.testing.assert_array_equal(read.cells_A[:, 0, 0], 9 + expected)
        np.testing.assert_array_equal(read.time_ps, expected)
        np.testing.assert_array_equal(read.observables["potential_energy_eV"], expected)


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


@pytest.mark.parametrize("name", ["a.extxyz", "a.traj", "XDATCAR", "a.lammpstrj"])
def test_wrapped_formats_are_unwrapped(tmp_path, walk, name):
    path = tmp_path / name
    frames = wrapped_frames(walk)
    if name.endswith("lammpstrj"):
        write_lammps_dump(path, frames)
    else:
        kind = {"a.extxyz": "extxyz", "a.traj": "traj", "XDATCAR": "vasp-xdatcar"}[name]
        ase.io.write(path, frames, format=kind)
    read = read_trajectory(path, frame_interval_fs=100.0)
    assert sorted(read.numbers) == sorted(walk.numbers)
    moved = read.positions_A - read.positions_A[0]
    order = np.argsort(walk.numbers, kind="stable")
    back = np.argsort(read.numbers, kind="stable")
    text_precision = 1e-4
    np.testing.assert_allclose(
        moved[:, back], (walk.positions_A - walk.positions_A[0])[:, order], atol=text_precision
    )
    assert read.frame_interval_ps == pytest.approx(0.1)
    with pytest.raises(InputError, match="--frame-interval-fs"):
        read_trajectory(path)


def write_lammps_dump(path: Path, frames: list[Atoms]) -> None:
    with path.open("w") as file:
        for step, frame in enumerate(frames):
            file.write(f"ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n{len(frame)}\n")
            file.write("ITEM: BOX BOUNDS pp pp pp\n" + 3 * f"0.0 {CELL_A}\n")
            file.write("ITEM: ATOMS id type element x y z\n")
            for row, (symbol, xyz) in enumerate(zip(frame.symbols, frame.positions, strict=True)):
                file.write(f"{row + 1} 1 {symbol} " + " ".join(f"{x:.8f}" for x in xyz) + "\n")


def test_unwrapped_positions_come_back_untouched(tmp_path, walk):
    slow = trajectory_of(0.2 * walk.positions_A[:, :2])
    frames = [slow.atoms(row) for row in range(20)]
    for frame in frames:
        frame.calc = SinglePointCalculator(frame, energy=-3.0)
    ase.io.write(tmp_path / "a.traj", frames)
    read = read_trajectory(tmp_path / "a.traj", frame_interval_fs=100)
    np.testing.assert_array_equal(read.positions_A, slow.positions_A[:20])
    np.testing.assert_array_equal(read.observables["potential_energy_eV"], -3.0)
    assert read.observables["temperature_K"] is None


def test_ambiguous_wrapping_is_refused(tmp_path, walk):
    frames = wrapped_frames(trajectory_of(10 * walk.positions_A[:, :2]))
    ase.io.write(tmp_path / "a.extxyz", frames)
    with pytest.raises(InputError, match="ambiguous"):
        read_trajectory(tmp_path / "a.extxyz", frame_interval_fs=100)


def test_foreign_h5md_in_nanometres(tmp_path, walk):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("particles/all")
        group["species"] = walk.numbers
        for name, values in (
            ("value", walk.positions_A / 10),
            ("step", np.arange(307)),
            ("time", walk.time_ps * 1e3),
        ):
            group[f"position/{name}"] = values
        group["position/value"].attrs["unit"] = "nm"
        group["position/time"].attrs["unit"] = "fs"
        group["box/edges"] = np.full(3, CELL_A / 10)
    read = read_trajectory(tmp_path / "a.h5")
    np.testing.assert_allclose(read.positions_A, walk.positions_A, atol=FLOAT32)
    np.testing.assert_allclose(read.cells_A, walk.cells_A)
    assert read.frame_interval_ps == pytest.approx(0.1)


def broken(tmp_path: Path, walk: Trajectory) -> dict[str, Path]:
    whole = write_h5(tmp_path / "whole.h5", walk).read_bytes()
    nan = trajectory_of(np.where(np.arange(307)[:, None, None] == 5, np.nan, walk.positions_A[:, :2]))
    files = {"not a whole trajectory": tmp_path / "cut.h5", "empty": tmp_path / "empty.h5"}
    files["not a whole trajectory"].write_bytes(whole[: len(whole) // 2])
    files["empty"].write_bytes(b"")
    files["frame 5"] = write_h5(tmp_path / "nan.h5", nan)
    files["none of H5MD"] = tmp_path / "notes.txt"
    files["none of H5MD"].write_text("not a trajectory\n")
    files["does not exist"] = tmp_path / "missing.h5"
    return files


def test_broken_files_are_refused_in_one_sentence(tmp_path, walk):
    for message, path in broken(tmp_path, walk).items():
        with pytest.raises(InputError, match=message) as error:
            read_trajectory(path)
        assert path.name in str(error.value)


def test_cut_text_formats_are_refused(tmp_path, walk):
    ase.io.write(tmp_path / "a.extxyz", wrapped_frames(walk)[:5])
    text = (tmp_path / "a.extxyz").read_text()
    for kept in (0.95 * len(text), len(text) - 3):  # the second cuts a number short
        (tmp_path / "a.extxyz").write_text(text[: int(kept)])
        with pytest.raises(InputError, match="whole trajectory"):
            read_trajectory(tmp_path / "a.extxyz", frame_interval_fs=100)


def test_walks_without_a_cell_are_read_as_they_are(tmp_path, walk):
    frames = [Atoms(walk.numbers, positions) for positions in walk.positions_A]
    ase.io.write(tmp_path / "a.extxyz", frames)
    read = read_trajectory(tmp_path / "a.extxyz", frame_interval_fs=100)
    np.testing.assert_allclose(read.positions_A, walk.positions_A, atol=FLOAT32)
    assert not read.atoms(3).pbc.any()


def test_uneven_frames_and_wrong_interval_are_refused(tmp_path, walk):
    uneven = Trajectory(
        numbers=walk.numbers, masses_amu=walk.masses_amu, positions_A=walk.positions_A, cells_A=walk.cells_A,
        time_ps=walk.time_ps**2, observables={},
    )  # fmt: skip
    with pytest.raises(InputError, match="evenly"):
        _ = uneven.frame_interval_ps
    path = write_h5(tmp_path / "a.h5", walk)
    assert read_trajectory(path, frame_interval_fs=100).n_frames == 307
    with pytest.raises(InputError, match="not 50 fs"):
        read_trajectory(path, frame_interval_fs=50)


def test_pickle_is_never_loaded(tmp_path):
    import pickle

    (tmp_path / "a.traj").write_bytes(pickle.dumps({"positions": [1, 2, 3]}))
    with pytest.raises(InputError, match="none of H5MD"):
        read_trajectory(tmp_path / "a.traj", frame_interval_fs=1)
