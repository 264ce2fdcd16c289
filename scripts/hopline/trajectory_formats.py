"""What reading a foreign trajectory needs: ASE's readers, H5MD's units and box forms, unwrapping."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hopline.console import InputError

LENGTHS_A = {"Angstrom": 1.0, "A": 1.0, "nm": 10.0, "pm": 0.01, "um": 1e4}
TIMES_PS = {"ps": 1.0, "fs": 1e-3, "ns": 1e3, "us": 1e6, "s": 1e12}
AMBIGUOUS_STEP = 0.4
"""In a wrapped trajectory a step beyond this share of a cell vector may be the step the other way round."""


def frames_by_ase(path: Path, head: bytes) -> list[Atoms]:
    """Return every frame of an extended XYZ, ASE .traj, XDATCAR or LAMMPS dump file; ``head`` is its start.

    Raises
    ------
    InputError
        If the format is none of these, there is no frame, the atoms or their order change, or some frames or
        directions only are periodic. ASE's own exceptions on broken files pass through.
    """
    import ase.io

    kind = _ase_format(path, head)
    if kind != "traj":  # a text cut within its last number still parses
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                raise InputError(f"{path} is not a whole trajectory: its last line is cut off")
    frames = list(ase.io.iread(path, index=":", format=kind))
    if not frames:
        raise InputError(f"{path} holds no frame")
    for row, frame in enumerate(frames):
        if not np.array_equal(frame.numbers, frames[0].numbers):
            raise InputError(f"{path} changes its atoms or their order at frame {row}")
        if frame.cell.rank not in {0, 3} or frame.cell.rank != frames[0].cell.rank:
            raise InputError(f"{path} is periodic in some directions or frames only, see frame {row}")
    return frames


def _ase_format(path: Path, head: bytes) -> str:
    """Name ASE's reader; only formats that cannot carry code are accepted."""
    if head.startswith(b"- of Ulm"):
        return "traj"
    if head.startswith(b"ITEM:"):
        with path.open() as file:
            columns = next((line for line in file if line.startswith("ITEM: ATOMS")), "")
        if "element" not in columns.split():
            raise InputError(f"{path} has no element column, its species are unknown: dump it with `element`")
        return "lammps-dump-text"
    if path.name.upper().startswith("XDATCAR"):
        return "vasp-xdatcar"
    if path.suffix in {".xyz", ".extxyz"}:
        return "extxyz"
    raise InputError(
        f"{path} is none of H5MD, .extxyz, ASE .traj, XDATCAR, LAMMPS dump, or its start is lost"
    )


def unwrapped(positions_A: NDArray[Any], cells_A: NDArray[np.float64], source: str) -> NDArray[Any]:
    """Undo wrapping: each atom goes the shortest way, in fractional coordinates, from frame to frame.

    Shapes (n_frames, n_atoms, 3) and (n_frames, 3, 3), in A; zero cells: not periodic. Positions that never
    jump by half a cell come back untouched, bit by bit.

    Raises
    ------
    InputError
        If the trajectory is wrapped and an atom moves almost half a cell between frames; ``source`` is named.
    """
    if not cells_A.any():
        return positions_A
    fractional = np.einsum("fai,fij->faj", positions_A, np.linalg.inv(cells_A))
    steps = np.diff(fractional, axis=0)
    whole_cells = np.round(steps)
    if not whole_cells.any():
        return positions_A
    remaining = np.abs(steps - whole_cells)
    if remaining.max() > AMBIGUOUS_STEP:
        frame = 1 + int(remaining.max(axis=(1, 2)).argmax())
        raise InputError(
            f"{source} is wrapped and an atom moves by almost half the cell up to frame {frame}: "
            "its way is ambiguous, write frames more often or unwrapped"
        )
    fractional[1:] -= np.cumsum(whole_cells, axis=0)
    moved: NDArray[np.float64] = np.einsum("fai,fij->faj", fractional, cells_A)
    return moved


def h5md_particles(file: Any, source: str) -> Any:
    """Return the first particles group of an open H5MD file; one without what Hopline reads is refused."""
    if "particles" not in file or not len(file["particles"]):
        raise InputError(f"{source} is HDF5 without /particles: H5MD is expected")
    particles = file["particles"][next(iter(file["particles"]))]
    for needed in ("position/value", "position/step", "position/time", "species", "box/edges"):
        if needed not in particles:
            raise InputError(f"{source} lacks {particles.name}/{needed}, which Hopline reads")
    species, positions = particles["species"], particles["position/value"]
    if species.shape != positions.shape[1:2]:
        raise InputError(f"{source} has species of shape {species.shape} for positions {positions.shape}")
    return particles


def h5md_creator(file: Any) -> str:
    """Return the name of the program that wrote an open H5MD file, empty where none is stated."""
    return _text(file["h5md/creator"].attrs.get("name", "")) if "h5md/creator" in file else ""


def h5md_frames(
    particles: Any, n_frames: int, source: str
) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]:
    """Return positions (n_frames, n_atoms, 3) and cells (n_frames, 3, 3) in A, times (n_frames,) in ps."""
    position, edges = particles["position"], particles["box/edges"]
    length_A = _unit(position["value"], LENGTHS_A, source)
    positions = position["value"][:n_frames]
    fixed_box = not hasattr(edges, "keys")
    cells = np.asarray(edges[()] if fixed_box else edges["value"][:n_frames], dtype=float)
    if cells.ndim == (1 if fixed_box else 2):  # the diagonal of a cuboid
        cells = cells[..., None, :] * np.eye(3)
    cells = np.broadcast_to(cells, (n_frames, 3, 3)) * length_A
    times = np.asarray(position["time"][()], dtype=np.float64) * _unit(position["time"], TIMES_PS, source)
    times = times[:n_frames] if times.ndim else np.arange(n_frames, dtype=np.float64) * times
    return positions if length_A == 1.0 else positions * length_A, cells, times


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _unit(dataset: Any, known: Mapping[str, float], source: str) -> float:
    unit = _text(dataset.attrs.get("unit"))
    if unit not in known:
        raise InputError(f"{source}: {dataset.name} has the unit {unit}; one of {', '.join(known)} is needed")
    return known[unit]
