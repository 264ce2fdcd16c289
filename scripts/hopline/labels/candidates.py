"""A labelled frame as it was found, before anybody has judged it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hopline import frames

FREE, SIGMA_TO_ZERO = "free", "sigma->0"
"""Kinds of energy: E - TS, whose derivatives the forces are; or its extrapolation to no smearing."""


class Broken(Exception):  # noqa: N818  it names the state of a file
    """A source that cannot be read further; the message is the reason a person is told."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """One frame as its source holds it; ``reason`` is set where the source already speaks against it.

    Energy in eV (total), forces (n_atoms, 3) in eV/A, stress in eV/A^3 with ASE's sign (positive under tension) as
    (3, 3), nine flat numbers or six in Voigt order. ``frame`` counts from 0 within ``source``, the file it was found
    in. ``trajectory`` names the run whose neighbouring frames resemble each other; empty: the file itself is the run.
    ``pseudopotentials`` maps an element to a checksum or name of its pseudopotential. ``corrected_energy_eV`` is the
    energy with the Materials Project's corrections, where the source has it too. ``ends_early`` marks the frame that
    stands for the rest of a source which cannot be read further.
    """

    source: str
    frame: int
    atoms: Atoms | None = None
    reason: str = ""
    energy_eV: float | None = None
    forces_eV_per_A: NDArray[np.float64] | None = None
    stress: object = None
    level_of_theory: str | None = None
    energy_kind: str = frames.UNSTATED
    pseudopotentials: Mapping[str, str] = field(default_factory=dict)
    trajectory: str = ""
    corrected_energy_eV: float | None = None
    ends_early: bool = False


def numbers(value: Any) -> NDArray[np.float64]:
    """Return a label as numbers; text where a number is expected becomes NaN, which is rejected later."""
    try:
        return np.asarray(value, dtype=float)
    except (ValueError, TypeError):
        return np.full(np.shape(value), np.nan)
