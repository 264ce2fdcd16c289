"""Proofs that a training did what it says: each refuses with the sentence why."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from hopline.console import InputError, progress
from hopline.finetuning.loop import Best, until_stopped
from hopline.frames import labels_of
from hopline.potentials.calculator import Prediction
from hopline.units import MEV_PER_EV

MAX_INITIAL_ERROR_EV_PER_ATOM = 0.5
"""MACE's fine-tuning guidance: above this the labels' energies are counted from other atoms than the model's."""
MAX_DIFFERENCE = {
    "float64": {"eV_per_A": 1e-6, "eV_per_atom": 1e-6},
    "float32": {"eV_per_A": 2e-4, "eV_per_atom": 2e-3},
}
"""Between two ways to the same; float32 keeps seven digits, of forces of 10 eV/A and energies of 1000 eV/atom."""
MAX_RMSE_DIFFERENCE = {"float64": 1e-5, "float32": 2e-3}
"""Relative, between two ways to the same validation error."""
N_COMPARED, MAX_REPLAY_FRAMES = 5, 50


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


def refuse_difference(
    first: Sequence[Prediction], second: Sequence[Prediction], *, dtype: str, what: str
) -> dict[str, float]:
    """Return the largest differences of two predictions for the same frames, by unit; beyond rounding they are refused.

    ``what`` names the two, as in "the exported model and the trained one".
    """
    pairs = list(zip(first, second, strict=True))
    forces = [np.abs(one.forces_eV_per_A - two.forces_eV_per_A).max() for one, two in pairs]
    energies = [abs(one.energy_eV - two.energy_eV) / len(one.forces_eV_per_A) for one, two in pairs]
    # numpy's maximum of numbers and a NaN is NaN, Python's is whichever it saw first
    found = {"eV_per_A": float(np.max(forces)), "eV_per_atom": float(np.max(energies))}
    allowed = MAX_DIFFERENCE[dtype]
    for unit, difference in found.items():
        if not difference <= allowed[unit]:
            raise InputError(
                f"{what} differ by {difference:.2g} {unit.replace('_per_', '/')} on the same frames, where {dtype} "
                f"allows {allowed[unit]:.0e}: the model is not what it should be; it gets no card"
            )
    return found


def refuse_other_epoch(
    calculator: Calculator, valid: Sequence[Atoms], expected_meV_per_A: float, *, epoch: int, dtype: str
) -> float:
    """Return the force RMSE (meV/A) of the exported model on the validation frames; it must be the best epoch's."""
    squares = [
        np.square(found.forces_eV_per_A - labels_of(atoms).forces_eV_per_A).ravel()
        for atoms, found in zip(valid, predict(calculator, valid), strict=True)
    ]
    measured = float(np.sqrt(np.mean(np.concatenate(squares)))) * MEV_PER_EV
    # an error of nothing cannot be compared by its ratio
    floor = MAX_DIFFERENCE[dtype]["eV_per_A"] * MEV_PER_EV
    if not abs(measured - expected_meV_per_A) <= MAX_RMSE_DIFFERENCE[dtype] * expected_meV_per_A + floor:
        raise InputError(
            f"the exported model's force RMSE on the validation frames is {measured:.3f} meV/A, that of its best epoch "
            f"({epoch}) was {expected_meV_per_A:.3f}: it is another epoch's; it gets no card"
        )
    return measured


def refuse_other_replay(parent: Calculator, replay: Sequence[Atoms]) -> float:
    """Return a parent's mean energy error (eV/atom) on up to 50 replay frames; beyond 0.5 either way they are refused.

    Replay frames keep what the parent knows: they have to count energies from the same zero. (The mean, since a small
    parent may be wrong by as much on single frames.)
    """
    shown = spread(replay, MAX_REPLAY_FRAMES)
    error = float(np.mean(energy_residuals(parent, shown) / np.array([len(atoms) for atoms in shown])))
    if not abs(error) <= MAX_INITIAL_ERROR_EV_PER_ATOM:
        raise InputError(
            f"the parent's energies of the replay frames are wrong by {error:.2f} eV/atom on average: they are of "
            "other settings than what it was trained on, or it is a fine-tune that counts as another code does: take "
            "other replay frames, or have the parent label them (strategy pseudolabel-replay of MACE)"
        )
    return error


def prove_export(
    calculator: Calculator,
    valid: Sequence[Atoms],
    trained: Sequence[Prediction],
    best: Best,
    *,
    dtype: str,
    shifts_eV: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Return the figures that show an exported model to be the trained one, and the best epoch's; else it is refused.

    ``trained`` are predictions of the model in training for ``spread(valid)``; ``shifts_eV`` takes the exported one's
    energies to the zero in which it was trained.
    """
    difference = refuse_difference(
        predict(calculator, spread(valid), shifts_eV=shifts_eV), trained,
        what="the exported model and the trained one", dtype=dtype,
    )  # fmt: skip
    expected = float(best.history["valid_force_rmse_meV_per_A"].iloc[best.epoch])
    measured = refuse_other_epoch(calculator, valid, expected, epoch=best.epoch, dtype=dtype)
    return {"exported_vs_trained": difference, "exported_valid_force_rmse_meV_per_A": measured}


def prove_replay(
    frames_per_epoch: Mapping[str, int], replay: str, n_replay: int, batch_size: int
) -> dict[str, Any]:
    """Return the frames that an epoch trained on, by their set; fewer of ``replay`` than there are are refused.

    A last batch that is not full may be left out of an epoch.
    """
    trained = frames_per_epoch.get(replay, 0)
    if n_replay and (trained == 0 or trained <= n_replay - batch_size):
        raise InputError(
            f"of {n_replay} replay frames {trained} were trained in an epoch: the replay did not happen"
        )
    return {"frames_per_epoch": dict(frames_per_epoch)}


def energy_residuals(calculator: Calculator, frames: Sequence[Atoms]) -> NDArray[np.float64]:
    """Return E_label - E_model of each frame in eV."""
    return np.array(
        [
            labels_of(atoms).energy_eV - float(calculator.get_property("energy", atoms))
            for atoms in progress(until_stopped(frames), total=len(frames), label="energies", unit="frames")
        ]
    )


def predict(
    calculator: Calculator, frames: Sequence[Atoms], *, shifts_eV: Mapping[str, float] | None = None
) -> list[Prediction]:
    """Return a calculator's predictions, with an energy (eV) for each atom of an element added where that is given."""
    found = [
        Prediction(
            float(calculator.get_property("energy", atoms)),
            np.asarray(calculator.get_property("forces", atoms), dtype=float),
        )
        for atoms in frames
    ]
    return shifted(found, frames, shifts_eV or {})


def shifted(
    predictions: Sequence[Prediction], frames: Sequence[Atoms], shifts_eV: Mapping[str, float]
) -> list[Prediction]:
    """Return predictions for frames with an energy (eV) added for each atom of an element."""
    return [
        replace(found, energy_eV=found.energy_eV + sum(shifts_eV.get(one, 0.0) for one in atoms.symbols))
        for found, atoms in zip(predictions, frames, strict=True)
    ]


def spread(frames: Sequence[Atoms], n_wanted: int = N_COMPARED) -> list[Atoms]:
    """Return up to ``n_wanted`` frames, evenly from first to last."""
    rows = np.unique(np.linspace(0, len(frames) - 1, n_wanted).round().astype(int))
    return [frames[row] for row in rows]
