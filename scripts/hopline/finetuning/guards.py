"""Proofs that a training did what it says: each refuses with the sentence why."""

from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from hopline.console import InputError
from hopline.frames import labels_of
from hopline.units import MEV_PER_EV

MAX_INITIAL_ERROR_EV_PER_ATOM = 0.5
"""MACE's fine-tuning guidance: above this the labels' energies are counted from other atoms than the model's."""
MAX_FORCE_DIFFERENCE_EV_PER_A = {"float64": 1e-6, "float32": 2e-4}
"""Between two ways to the same forces; float32 keeps seven digits of sums of some 10 eV/A."""
MAX_RMSE_DIFFERENCE = {"float64": 1e-5, "float32": 2e-3}
"""Relative, between two ways to the same validation error."""
N_COMPARED = 5


def refuse_reference_mismatch(errors_eV_per_atom: NDArray[np.float64], kind: str) -> float:
    """Return the RMS of a parent's energy errors (eV/atom) on the labels, references moved; above 0.5 they are refused.

    ``kind`` says what the atomic references are: ``isolated`` or ``estimated``.
    """
    error = float(np.sqrt(np.mean(np.square(errors_eV_per_atom))))
    if not error <= MAX_INITIAL_ERROR_EV_PER_ATOM:
        remedy = (
            "take estimated ones (training.atom_energies: estimated) or isolated atoms of the labels' own settings"
            if kind == "isolated"
            else "the parent knows nothing like these frames, or their labels are wrong"
        )
        raise InputError(
            f"before any training the energies are wrong by {error:.2f} eV/atom ({kind} atomic references), more than "
            f"{MAX_INITIAL_ERROR_EV_PER_ATOM}: {remedy}"
        )
    return error


def refuse_different_forces(
    first: Sequence[NDArray[np.float64]], second: Sequence[NDArray[np.float64]], *, dtype: str, what: str
) -> float:
    """Return the largest difference (eV/A) between forces on the same frames; beyond rounding it is refused.

    ``what`` names the two, as in "the exported model and the trained one".
    """
    difference = max(float(np.abs(a - b).max()) for a, b in zip(first, second, strict=True))
    if not difference <= MAX_FORCE_DIFFERENCE_EV_PER_A[dtype]:
        raise InputError(
            f"{what} differ by {difference:.2g} eV/A on the same frames, where {dtype} allows "
            f"{MAX_FORCE_DIFFERENCE_EV_PER_A[dtype]:.0e}: the model is not what it should be; it was not written"
        )
    return difference


def refuse_other_epoch(
    calculator: Calculator, valid: Sequence[Atoms], expected_meV_per_A: float, *, epoch: int, dtype: str
) -> float:
    """Return the force RMSE (meV/A) of the exported model on the validation frames; it must be the best epoch's."""
    squares = [
        np.square(forces - labels_of(atoms).forces_eV_per_A).ravel()
        for atoms, forces in zip(valid, forces_on(calculator, valid), strict=True)
    ]
    measured = float(np.sqrt(np.mean(np.concatenate(squares)))) * MEV_PER_EV
    # an error of nothing cannot be compared by its ratio
    floor = MAX_FORCE_DIFFERENCE_EV_PER_A[dtype] * MEV_PER_EV
    if not abs(measured - expected_meV_per_A) <= MAX_RMSE_DIFFERENCE[dtype] * expected_meV_per_A + floor:
        raise InputError(
            f"the exported model's force RMSE on the validation frames is {measured:.3f} meV/A, that of its best epoch "
            f"({epoch}) was {expected_meV_per_A:.3f}: it is another epoch's; it was not written"
        )
    return measured


def refuse_untrained_replay(frames_per_epoch: int, n_replay: int, batch_size: int) -> None:
    """Refuse a training with replay whose batches held fewer replay frames than there are, but for a batch cut off."""
    if frames_per_epoch == 0 or frames_per_epoch <= n_replay - batch_size:
        raise InputError(
            f"of {n_replay} replay frames {frames_per_epoch} were trained in an epoch: the replay did not happen"
        )


def forces_on(calculator: Calculator, frames: Sequence[Atoms]) -> list[NDArray[np.float64]]:
    """Return a calculator's forces (eV/A) on each frame."""
    return [np.asarray(calculator.get_property("forces", atoms), dtype=float) for atoms in frames]


def spread(frames: Sequence[Atoms], n_wanted: int = N_COMPARED) -> list[Atoms]:
    """Return up to ``n_wanted`` frames, evenly from first to last."""
    rows = np.unique(np.linspace(0, len(frames) - 1, n_wanted).round().astype(int))
    return [frames[row] for row in rows]


def describe(figures: Mapping[str, float | int]) -> str:
    """Return the figures of the proofs in one line."""
    return ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in figures.items())
