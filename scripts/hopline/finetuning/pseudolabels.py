"""Replay frames labelled by the parent itself, for a parent whose own labels one does not have."""

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from hopline.console import progress
from hopline.finetuning.loop import until_stopped
from hopline.frames import ENERGY, FORCES, STRESS, stress_matrix


def pseudolabelled(frames: Sequence[Atoms], parent: Calculator) -> list[Atoms]:
    """Return copies of frames with the parent's energy (eV), forces (eV/A) and stress (eV/A^3) as their labels."""
    made = []
    for frame in progress(until_stopped(frames), total=len(frames), label="pseudolabels", unit="frames"):
        copy = frame.copy()
        parent.calculate(copy, ["energy", "forces", "stress"])
        copy.info[ENERGY] = float(parent.results["energy"])
        copy.info[STRESS] = stress_matrix(parent.results["stress"]).ravel()
        copy.arrays[FORCES] = np.array(parent.results["forces"], dtype=float)
        copy.info["level_of_theory"] = "pseudolabels of the parent"
        made.append(copy)
    return made
