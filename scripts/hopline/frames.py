"""The labelled-frame contract: what a frame carries and who it is (`splits`: that no frame sits in two sets).

A labelled frame is an ASE ``Atoms`` with ``info``: ``REF_energy`` (eV, total), ``REF_stress`` (eV/A^3, ASE sign,
optional), ``frame_id``, ``system``, ``composition``, ``source`` (the trajectory it comes from), optionally
``source_frame`` (its place there, counted from 0), ``temperature_K`` and ``level_of_theory``; and
``arrays["REF_forces"]`` (eV/A). On disk: extended XYZ.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hopline.console import InputError
from hopline.files import whole

ENERGY, FORCES, STRESS = "REF_energy", "REF_forces", "REF_stress"
UNSTATED = "unstated"


@dataclass(frozen=True)
class Labels:
    """DFT labels of one frame: energy (eV), forces (n_atoms, 3) in eV/A, stress (3, 3) in eV/A^3 or None."""

    energy_eV: float
    forces_eV_per_A: NDArray[np.float64]
    stress_eV_per_A3: NDArray[np.float64] | None


def frame_id(atoms: Atoms) -> str:
    """Return the content hash of species, cell and positions: 16 hexadecimal digits.

    Cell and positions enter as text with eight decimals (A), the precision of extended XYZ, so a frame
    keeps its id when it is written and read back.
    """
    digest = hashlib.sha256(atoms.numbers.astype("<i4").tobytes())
    for values in (atoms.cell.array, atoms.positions):
        numbers = np.asarray(values, dtype=float).ravel().tolist()
        # one format for all: four times faster than one each
        text = " ".join(["%.8f"] * len(numbers)) % tuple(numbers)
        digest.update(text.replace("-0.00000000", "0.00000000").encode())
    return digest.hexdigest()[:16]


def labels_of(atoms: Atoms) -> Labels:
    """Return the labels that a frame carries.

    Raises
    ------
    InputError
        If energy or forces are missing or any label is not finite.
    """
    if ENERGY not in atoms.info or FORCES not in atoms.arrays:
        raise InputError(
            f"frame {atoms.info.get('frame_id', '?')} has no {ENERGY} or no {FORCES}: ingest it first"
        )
    stress = atoms.info.get(STRESS)
    labels = Labels(
        energy_eV=float(atoms.info[ENERGY]),
        forces_eV_per_A=np.asarray(atoms.arrays[FORCES], dtype=float),
        stress_eV_per_A3=None if stress is None else stress_matrix(stress),
    )
    parts = [labels.energy_eV, labels.forces_eV_per_A, [] if stress is None else stress_matrix(stress)]
    if not all(np.isfinite(np.asarray(part)).all() for part in parts):
        raise InputError(f"frame {atoms.info.get('frame_id', '?')} has a label that is not a finite number")
    return labels


def stress_matrix(stress: Any) -> NDArray[np.float64]:
    """Return a stress given as 3x3, nine flat numbers or six in Voigt order (xx yy zz yz xz xy) as (3, 3)."""
    values = np.asarray(stress, dtype=float).ravel()
    if values.size == 9:  # noqa: PLR2004
        return values.reshape(3, 3)
    if values.size == 6:  # noqa: PLR2004
        xx, yy, zz, yz, xz, xy = values
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    raise InputError(f"a stress has {values.size} numbers; 6 (Voigt) or 9 are understood")


def read_frames(path: str | os.PathLike[str]) -> list[Atoms]:
    """Read every frame of an extended XYZ file; an empty or broken file is refused by name."""
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist")
    from ase.io import read  # half a second to import: --help need not pay it

    try:
        frames = read(path, index=":", format="extxyz")
    except Exception as error:  # ASE's parsers raise whatever they stumble over
        raise InputError(
            f"{path} is not a whole extended XYZ file ({type(error).__name__}: {error})"
        ) from error
    if not frames:
        raise InputError(f"{path} holds no frame")
    return list(frames)


def read_labelled(path: str | os.PathLike[str]) -> list[Atoms]:
    """Read frames that all keep the labelled-frame contract and share one level of theory."""
    frames = read_frames(path)
    for frame in frames:
        labels_of(frame)
    level_of_theory(frames)
    return frames


def write_frames(path: str | os.PathLike[str], frames: Sequence[Atoms]) -> None:
    """Write frames as extended XYZ, whole or not at all, with ids; calculators are left out."""
    from ase.io import write  # as above

    bare = []
    for frame in frames:
        copy = frame.copy()
        copy.info["frame_id"] = frame_id(copy)
        bare.append(copy)
    with whole(path) as temporary:
        write(temporary, bare, format="extxyz")


def level_of_theory(frames: Sequence[Atoms]) -> str:
    """Return the one level of theory of a set; a set that mixes two is refused."""
    levels: dict[str, list[Atoms]] = {}
    for frame in frames:
        levels.setdefault(str(frame.info.get("level_of_theory", UNSTATED)), []).append(frame)
    if len(levels) > 1:
        told = [
            f"{level} ({len(found)} frames, one from {found[0].info.get('source')})"
            for level, found in sorted(levels.items())
        ]
        raise InputError(
            f"a set may hold one level of theory, this one mixes {len(levels)}: {' | '.join(told)}: take them apart, "
            "or say what unstated ones are (--level-of-theory)"
        )
    return next(iter(levels))
