"""Every reader gives back what was written, and broken files are refused."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from random_walks import CELL_A, gaussian_walk, trajectory_of, write_h5

from hopline.console import InputError
from hopline.trajectories import Trajectory, read_trajectory

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
