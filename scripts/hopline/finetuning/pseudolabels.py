"""Replay frames labelled by the parent itself, for a parent whose own labels one does not have."""

import hashlib
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from hopline.console import progress, say
from hopline.files import sha256, whole
from hopline.finetuning.loop import until_stopped
from hopline.finetuning.task import Parent
from hopline.frames import ENERGY, FORCES, STRESS, frame_id, stress_matrix

LOT_FRAMES = 50
"""Frames whose labels are kept in one file: what a kill costs at most."""


@dataclass(frozen=True, eq=False)
class _Lot:
    """Labels of several frames: energies (n) in eV, forces (n_atoms of all, 3) in eV/A, stresses (n, 9) in eV/A^3."""

    energies_eV: NDArray[np.float64]
    forces_eV_per_A: NDArray[np.float64]
    stresses_eV_per_A3: NDArray[np.float64]


def pseudolabelled(frames: Sequence[Atoms], parent: Parent, folder: Path) -> list[Atoms]:
    """Return copies of frames with the parent's energy (eV), forces (eV/A) and stress (eV/A^3) as their labels.

    The labels of every `LOT_FRAMES` frames are kept in ``folder``, under the hashes of the parent's model file and of
    these frames, and taken from there by the next attempt, to the last bit.

    Raises
    ------
    Stopped
        If somebody asked to stop; the lots that are done are kept.
    """
    model_sha256 = f"{sha256(parent.model_file)} {parent.dtype}"
    lots = [frames[start : start + LOT_FRAMES] for start in range(0, len(frames), LOT_FRAMES)]
    paths = [_place(folder, model_sha256, lot) for lot in lots]
    kept = [_read(path) for path in paths]
    missing = [frame for lot, labels in zip(lots, kept, strict=True) if labels is None for frame in lot]
    if len(missing) < len(frames):
        say(
            f"pseudolabels: {len(frames) - len(missing)} of {len(frames)} frames have theirs from an earlier attempt"
        )
    to_do = progress(until_stopped(missing), total=len(missing), label="pseudolabels", unit="frames")
    made: list[Atoms] = []
    for lot, path, earlier in zip(lots, paths, kept, strict=True):
        labels = earlier or _write(path, _labels(parent.calculator, islice(to_do, len(lot))))
        made += _with_labels(lot, labels)
    return made


def _place(folder: Path, model_sha256: str, lot: Sequence[Atoms]) -> Path:
    words = [model_sha256, *map(frame_id, lot)]
    return folder / f"pseudolabels-{hashlib.sha256(' '.join(words).encode()).hexdigest()}.npz"


def _labels(parent: Calculator, lot: Iterable[Atoms]) -> _Lot:
    energies, forces, stresses = [], [], []
    for frame in lot:
        parent.calculate(frame, ["energy", "forces", "stress"])
        energies.append(float(parent.results["energy"]))
        forces.append(np.array(parent.results["forces"], dtype=float))
        stresses.append(stress_matrix(parent.results["stress"]).ravel())
    return _Lot(np.array(energies), np.concatenate(forces), np.array(stresses))


def _with_labels(lot: Sequence[Atoms], labels: _Lot) -> list[Atoms]:
    ends = np.cumsum([len(frame) for frame in lot])[:-1]
    made = []
    for frame, energy_eV, forces, stress in zip(
        lot,
        labels.energies_eV,
        np.split(labels.forces_eV_per_A, ends),
        labels.stresses_eV_per_A3,
        strict=True,
    ):
        copy = frame.copy()
        copy.info |= {
            ENERGY: float(energy_eV),
            STRESS: stress,
            "level_of_theory": "pseudolabels of the parent",
        }
        copy.arrays[FORCES] = forces
        made.append(copy)
    return made


def _write(path: Path, labels: _Lot) -> _Lot:
    with whole(path) as temporary:
        np.savez(
            temporary,
            energies=labels.energies_eV,
            forces=labels.forces_eV_per_A,
            stresses=labels.stresses_eV_per_A3,
        )
    return labels


def _read(path: Path) -> _Lot | None:
    """Return the labels of an earlier attempt, if there are any."""
    if not path.is_file():
        return None
    try:
        with np.load(path) as found:
            return _Lot(found["energies"], found["forces"], found["stresses"])
    except (zipfile.BadZipFile, ValueError, EOFError, KeyError) as error:
        say(f"{path} cannot be read ({error}): its frames are labelled again")
        return None
