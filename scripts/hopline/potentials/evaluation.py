"""Errors of a potential against labelled frames: energy, forces by element, stress, softening."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from ase.calculators.calculator import Calculator

from hopline.console import progress
from hopline.frames import labels_of, stress_matrix
from hopline.units import GPA_PER_EV_PER_A3, MEV_PER_EV


@dataclass(frozen=True)
class Evaluation:
    """Figures of a potential on a set, and every (reference, predicted) pair behind them.

    ``pairs`` has columns kind (energy | force | stress), element, composition, reference, predicted: energies in
    eV/atom with each composition's mean difference removed, forces in eV/A, stresses in GPa.
    """

    figures: dict[str, Any]
    pairs: pd.DataFrame


def evaluate(calculator: Calculator, frames: Sequence[Atoms], *, mobile: str) -> Evaluation:
    """Compare a calculator with the labels of frames.

    Energies are compared as they are and with the mean difference of each composition removed, since potentials and
    codes count energies from different zeros (Angeletti et al. 2025). The force slope is the least-squares slope of
    predicted against labelled forces through the origin; below one the potential is too soft.
    """
    energies, forces, stresses = [], [], []
    for atoms in progress(frames, total=len(frames), label="evaluate", unit="frames"):
        labels = labels_of(atoms)
        composition = str(atoms.info.get("composition", atoms.get_chemical_formula()))
        calculator.calculate(atoms)
        results = calculator.results
        energies.append((composition, labels.energy_eV / len(atoms), results["energy"] / len(atoms)))
        forces.append(_force_table(atoms, composition, labels.forces_eV_per_A, np.asarray(results["forces"])))
        if labels.stress_eV_per_A3 is not None:
            predicted = stress_matrix(results["stress"]).ravel() * GPA_PER_EV_PER_A3
            reference = labels.stress_eV_per_A3.ravel() * GPA_PER_EV_PER_A3
            stresses.append(
                pd.DataFrame({"composition": composition, "reference": reference, "predicted": predicted})
            )
    energy = pd.DataFrame(energies, columns=["composition", "reference", "predicted"])
    raw = energy["predicted"] - energy["reference"]
    shift = raw.groupby(energy["composition"]).transform("mean")
    energy["predicted"] -= shift
    force = pd.concat(forces, ignore_index=True)
    stress = pd.concat(stresses, ignore_index=True) if stresses else None
    error = force["predicted"] - force["reference"]
    figures: dict[str, Any] = {
        "n_frames": len(frames),
        "energy_rmse_meV_per_atom": _rmse(raw) * MEV_PER_EV,
        "energy_mae_meV_per_atom": float(raw.abs().mean() * MEV_PER_EV),
        "energy_rmse_shift_removed_meV_per_atom": _rmse(raw - shift) * MEV_PER_EV,
        "force_rmse_meV_per_A": _rmse(error) * MEV_PER_EV,
        "force_mae_meV_per_A": float(error.abs().mean() * MEV_PER_EV),
        "force_rmse_by_element_meV_per_A": {
            str(element): _rmse(part) * MEV_PER_EV for element, part in error.groupby(force["element"])
        },
        "force_rmse_by_composition_meV_per_A": {
            str(name): _rmse(part) * MEV_PER_EV for name, part in error.groupby(force["composition"])
        },
        "force_rmse_mobile_meV_per_A": _rmse(error[force["element"] == mobile]) * MEV_PER_EV,
        "mobile": mobile,
        "force_slope": float(
            (force["predicted"] * force["reference"]).sum() / (force["reference"] ** 2).sum()
        ),
        "force_r2": float(
            1.0 - (error**2).sum() / ((force["reference"] - force["reference"].mean()) ** 2).sum()
        ),
        "stress_rmse_GPa": None if stress is None else _rmse(stress["predicted"] - stress["reference"]),
        "test_sources": sorted({str(atoms.info.get("source", "unstated")) for atoms in frames}),
    }
    parts = {"energy": energy, "force": force, **({} if stress is None else {"stress": stress})}
    pairs = pd.concat([part.assign(kind=kind) for kind, part in parts.items()], ignore_index=True)
    return Evaluation(figures, pairs[["kind", "element", "composition", "reference", "predicted"]])


def _force_table(atoms: Atoms, composition: str, reference: Any, predicted: Any) -> pd.DataFrame:
    elements = np.repeat(np.array(atoms.get_chemical_symbols()), 3)
    return pd.DataFrame(
        {
            "element": elements,
            "composition": composition,
            "reference": reference.ravel(),
            "predicted": predicted.ravel(),
        }
    )


def _rmse(errors: Any) -> float:
    return float(np.sqrt(np.mean(np.square(errors))))
