"""Errors of a potential against labelled frames: energy, forces by element, stress, softening; and where they are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from ase.calculators.calculator import Calculator

from hopline.console import InputError, progress
from hopline.frames import Labels, labels_of, stress_matrix
from hopline.likeness import found_in
from hopline.units import GPA_PER_EV_PER_A3, MEV_PER_EV

PAIRS = ("kind", "frame_id", "element", "composition", "temperature_K", "reference", "predicted")

MAX_TOLD = 3
NO_NUMBER = "no finite number"
"""Why a frame is left out for which a potential gives an energy, force or stress that cannot be compared."""


@dataclass(frozen=True)
class Evaluation:
    """Figures of a potential on a set, and every (reference, predicted) pair behind them.

    ``pairs`` has the columns ``PAIRS``, kind being energy, force or stress: energies in eV/atom with each
    composition's mean difference removed (as they are where a composition has one frame), forces in eV/A, stresses in
    GPa. ``temperature_K`` is NaN where a frame does not say it.
    """

    figures: dict[str, Any]
    pairs: pd.DataFrame


def evaluate(
    calculator: Calculator,
    frames: Sequence[Atoms],
    *,
    mobile: str,
    trained_on: Mapping[str, Sequence[Atoms]] | None = None,
) -> Evaluation:
    """Compare a calculator with the labels of frames.

    Energies are compared as they are and with the mean difference of each composition removed, since potentials and
    codes count energies from different zeros (Angeletti et al. 2025); a composition with a single frame has no
    difference left after that and is counted, not compared. The force slope is the least-squares slope of predicted
    against labelled forces through the origin; below one the potential is too soft. R2 is one less the share of the
    labels' variance (of the energies: within compositions) that the errors make up. Errors over no value, and slopes
    and R2 of labels that are all alike, are None. Frames that the potential
    refuses (an element it does not know, an isolated atom) are left out and counted with its reason, and so are those
    for which it gives ``NO_NUMBER`` (NaN would fall out of every mean unseen), and those that are the same structure as
    one of ``trained_on``: the frames, by the name of their set, that the potential or one of its parents was trained or
    validated on.

    Raises
    ------
    InputError
        If a frame has no labels, or none is left.
    """
    tables, kept, left_out = _tables(calculator, frames, found_in(frames, trained_on or {}))
    energy, force, stress = tables["energy"], tables["force"], tables["stress"]
    raw = energy["error"].copy()
    groups = raw.groupby(energy["composition"])
    shifted = groups.transform("size") > 1
    shift = groups.transform("mean").where(shifted, 0.0)
    energy["predicted"] -= shift
    energy["error"] -= shift
    within = energy[shifted]
    centred = within["reference"] - within.groupby("composition")["reference"].transform("mean")
    by_element = {str(name): part for name, part in force.groupby("element")}
    worst = force.iloc[int(force["error"].abs().to_numpy().argmax())]
    figures: dict[str, Any] = {
        "n_frames": len(kept),
        "n_frames_left_out": len(frames) - len(kept),
        "left_out_because": left_out,
        "energy_rmse_meV_per_atom": _rmse(raw, MEV_PER_EV),
        "energy_mae_meV_per_atom": _mae(raw, MEV_PER_EV),
        "energy_rmse_shift_removed_meV_per_atom": _rmse(within["error"], MEV_PER_EV),
        "energy_mae_shift_removed_meV_per_atom": _mae(within["error"], MEV_PER_EV),
        "n_frames_without_shift": int((~shifted).sum()),
        "energy_r2": _r2(within["error"], centred),
        "force_rmse_meV_per_A": _rmse(force["error"], MEV_PER_EV),
        "force_mae_meV_per_A": _mae(force["error"], MEV_PER_EV),
        "force_rmse_by_element_meV_per_A": _each(by_element, _rmse),
        "force_mae_by_element_meV_per_A": _each(by_element, _mae),
        "force_rmse_by_composition_meV_per_A": {
            str(name): _rmse(part["error"], MEV_PER_EV) for name, part in force.groupby("composition")
        },
        "force_rmse_mobile_meV_per_A": _each(by_element, _rmse).get(mobile),
        "force_mae_mobile_meV_per_A": _each(by_element, _mae).get(mobile),
        "mobile": mobile,
        "force_slope": _slope(force),
        "force_slope_by_element": {name: _slope(part) for name, part in by_element.items()},
        "force_r2": _r2(force["error"], force["reference"] - force["reference"].mean()),
        "max_force_error_meV_per_A": float(abs(worst["error"]) * MEV_PER_EV),
        "max_force_error_frame": str(worst["frame_id"]),
        "stress_rmse_GPa": _rmse(stress["error"]),
        "stress_mae_GPa": _mae(stress["error"]),
        "by_composition": _by("composition", energy, force, shifted),
        "by_temperature_K": _by("temperature_K", energy, force, shifted),
        "test_sources": sorted({str(atoms.info.get("source", "unstated")) for atoms in kept}),
    }
    pairs = pd.concat([part.assign(kind=kind) for kind, part in tables.items()], ignore_index=True)
    return Evaluation(figures, pairs[list(PAIRS)])


def told_reasons(refused: Mapping[str, int]) -> str:
    """Say why frames were left out: the commonest reasons, and how many more there are."""
    common = sorted(refused.items(), key=lambda item: -item[1])
    told = [f"{reason} ({count} frame{'s' if count > 1 else ''})" for reason, count in common[:MAX_TOLD]]
    return "; ".join(
        [*told, *([f"{len(common) - MAX_TOLD} other reasons"] if len(common) > MAX_TOLD else [])]
    )


def _tables(
    calculator: Calculator, frames: Sequence[Atoms], seen_in: Sequence[str | None]
) -> tuple[dict[str, pd.DataFrame], list[Atoms], dict[str, int]]:
    """Return energies (eV/atom), force components (eV/A) and stresses (GPa), a row a number; frames kept; refusals."""
    parts: dict[str, list[pd.DataFrame]] = {"energy": [], "force": [], "stress": []}
    kept, refused = list[Atoms](), dict[str, int]()
    for row, atoms in enumerate(progress(frames, total=len(frames), label="evaluate", unit="frames")):
        labels = labels_of(atoms)
        name = str(atoms.info.get("frame_id", row))
        seen = seen_in[row]
        reason = f"seen in its training or a parent's: {seen}" if seen else _refusal(calculator, atoms, name)
        numbers = [] if reason else list(_numbers(atoms, labels, calculator.results))
        if not all(np.isfinite(predicted).all() for *_, predicted in numbers):
            reason = NO_NUMBER
        if reason:
            refused[reason] = refused.get(reason, 0) + 1
            continue
        kept.append(atoms)
        columns: dict[str, Any] = {
            "frame_id": name,
            "composition": str(atoms.info.get("composition", atoms.get_chemical_formula())),
            "temperature_K": float(atoms.info.get("temperature_K", np.nan)),
        }
        for kind, element, reference, predicted in numbers:
            table = pd.DataFrame({"element": element, "reference": reference, "predicted": predicted})
            parts[kind].append(table.assign(**columns))
    if not kept:
        told = told_reasons(refused) or "none was given"
        raise InputError(f"there is no frame left to evaluate on: {told}")
    empty = pd.DataFrame({name: pd.Series(dtype=float) for name in PAIRS[1:]})
    joined = {kind: pd.concat(found, ignore_index=True) if found else empty for kind, found in parts.items()}
    errors = {
        kind: table.assign(error=table["predicted"] - table["reference"]) for kind, table in joined.items()
    }
    return errors, kept, refused


def _refusal(calculator: Calculator, atoms: Atoms, name: str) -> str:
    """Compute a frame; return why the potential refuses it, empty where it does not."""
    try:
        # asked by name: not every calculator computes the stress unless it is wanted
        calculator.calculate(atoms, ["energy", "forces", "stress"])
    except InputError as error:
        return str(error).removeprefix(f"frame {name}: ")
    return ""


def _numbers(atoms: Atoms, labels: Labels, results: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any, Any]]:
    """Yield kind, elements, references and predictions of one frame."""
    yield "energy", [""], [labels.energy_eV / len(atoms)], [float(results["energy"]) / len(atoms)]
    elements = np.repeat(np.array(atoms.get_chemical_symbols()), 3)
    yield "force", elements, labels.forces_eV_per_A.ravel(), np.asarray(results["forces"]).ravel()
    if labels.stress_eV_per_A3 is not None:
        predicted = stress_matrix(results["stress"]).ravel() * GPA_PER_EV_PER_A3
        yield "stress", [""] * 9, labels.stress_eV_per_A3.ravel() * GPA_PER_EV_PER_A3, predicted


def _by(
    column: str, energy: pd.DataFrame, force: pd.DataFrame, shifted: pd.Series
) -> dict[str, dict[str, Any]]:
    """Return frames and errors for each value of a column; what carries no value is left out."""
    forces = force.groupby(column)["error"]
    return {
        f"{value:g}" if isinstance(value, float) else str(value): {
            "n_frames": len(part),
            "energy_rmse_meV_per_atom": _rmse(part["error"][shifted[part.index]], MEV_PER_EV),
            "force_rmse_meV_per_A": _rmse(forces.get_group(value), MEV_PER_EV),
        }
        for value, part in energy.groupby(column)
    }


def _each(parts: Mapping[str, pd.DataFrame], measure: Any) -> dict[str, float | None]:
    return {name: measure(part["error"], MEV_PER_EV) for name, part in parts.items()}


def _slope(force: pd.DataFrame) -> float | None:
    squares = float((force["reference"] ** 2).sum())
    return float((force["predicted"] * force["reference"]).sum()) / squares if squares > 0 else None


def _r2(errors: pd.Series, centred: pd.Series) -> float | None:
    variance = float((centred**2).sum())
    return 1.0 - float((errors**2).sum()) / variance if variance > 0 else None


def _rmse(errors: pd.Series, scale: float = 1.0) -> float | None:
    return float(np.sqrt((errors**2).mean()) * scale) if len(errors) else None


def _mae(errors: pd.Series, scale: float = 1.0) -> float | None:
    return float(errors.abs().mean() * scale) if len(errors) else None
