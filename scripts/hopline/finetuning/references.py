"""Atomic reference energies: isolated atoms where one has them, else estimated from the frames."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from hopline.console import InputError
from hopline.frames import labels_of

BINDING_EV_PER_ATOM = (-15.0, 1.0)
"""What frames may have on average. No crystal is bound by more than 9 eV/atom (tungsten, carbides of hafnium and
tantalum; up to 13 against atoms without spin), the hottest melts lie 0.5 eV/atom above their crystals."""
ISOLATED, ESTIMATED = "isolated", "estimated"
CODES = ("pw.x", "VASP")
PSEUDOPOTENTIAL_KINDS = (r"[0-9a-f]{8}", r"md5 [0-9a-f]+")
"""Checksums of two kinds say nothing on each other, nor do a checksum and a name."""


def fit_atom_energies(frames: Sequence[Atoms], energies_eV: NDArray[np.float64]) -> dict[str, float]:
    """Fit one energy (eV) per element to total energies (n_frames) by least squares on the compositions.

    Where the compositions do not determine every element, the smallest solution is taken: any solution gives the
    same sum for the compositions that were fitted.
    """
    elements = sorted({number for atoms in frames for number in atoms.numbers})
    counts = np.array(
        [[np.count_nonzero(atoms.numbers == number) for number in elements] for atoms in frames]
    )
    solution = np.linalg.lstsq(counts.astype(float), np.asarray(energies_eV, dtype=float), rcond=None)[0]
    return {
        chemical_symbols[number]: float(energy) for number, energy in zip(elements, solution, strict=True)
    }


def choose_references(
    kind: str,
    dataset: Mapping[str, Any],
    frames: Sequence[Atoms],
    *,
    others: Sequence[Atoms] = (),
    before_eV: Mapping[str, float] | None = None,
    residual_eV: NDArray[np.float64] | None = None,
) -> dict[str, float]:
    """Return the reference energy (eV) of each element for a training on ``frames`` that ``others`` validate.

    Parameters
    ----------
    kind
        ``isolated``: the isolated atoms of ``dataset`` (see `describe`). ``estimated``: a fit to the frames'
        energies; of a fine-tuning, the parent's references moved by a fit to what it leaves of them.
    before_eV, residual_eV
        The parent's references, and E_label - E_parent of each frame (n_frames) in eV; None where there is no parent.

    Raises
    ------
    InputError
        If ``kind`` is not known, or the dataset has no isolated atoms.
    """
    if kind == ISOLATED:
        isolated = dataset.get("isolated_atom_energies_eV")
        if not isolated:
            raise InputError(
                "the dataset has no isolated atoms: give labels.atom_references, or training.atom_energies: estimated"
            )
        return choose_isolated(isolated, [*frames, *others])
    if kind != ESTIMATED:
        raise InputError(f"atom_energies is {ISOLATED} or {ESTIMATED}, not {kind}")
    if before_eV is None or residual_eV is None:
        return fit_atom_energies(frames, np.array([labels_of(frame).energy_eV for frame in frames]))
    return {
        symbol: before_eV[symbol] + shift_eV
        for symbol, shift_eV in fit_atom_energies(frames, residual_eV).items()
    }


def choose_isolated(energies_eV: Mapping[str, float], frames: Sequence[Atoms]) -> dict[str, float]:
    """Return the isolated-atom energies (eV) of the elements in ``frames``; a missing element is refused."""
    elements = sorted(
        {symbol for atoms in frames for symbol in atoms.symbols}, key=lambda name: atomic_numbers[name]
    )
    missing = [symbol for symbol in elements if symbol not in energies_eV]
    if missing:
        raise InputError(
            f"isolated-atom energies lack {', '.join(missing)}: compute them with the frames' settings"
        )
    return {symbol: float(energies_eV[symbol]) for symbol in elements}


def refuse_unfitted(train: Sequence[Atoms], others: Mapping[str, Sequence[Atoms]]) -> None:
    """Refuse frames (by what they are for) with an element that no training frame has: nothing fits its reference."""
    fitted = {symbol for atoms in train for symbol in atoms.symbols}
    for what, frames in others.items():
        strangers = {symbol for atoms in frames for symbol in atoms.symbols} - fitted
        if strangers:
            raise InputError(
                f"{what} frames hold {', '.join(sorted(strangers))}, which no training frame has: split anew"
            )


def sum_of_atoms(frames: Sequence[Atoms], atom_energies_eV: Mapping[str, float]) -> NDArray[np.float64]:
    """Return the sum of atomic reference energies of each frame, (n_frames) in eV."""
    return np.array([sum(atom_energies_eV[symbol] for symbol in atoms.symbols) for atoms in frames])


def describe(
    training: Sequence[Atoms], others: Sequence[Atoms], isolated: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return what a dataset says about its atomic references, isolated and estimated.

    Parameters
    ----------
    training, others
        Labelled frames of one level of theory. The estimate rests on ``training`` alone.
    isolated
        Content of the JSON of `compute_atom_references.py`: ``energies_eV`` by element and, where known,
        ``level_of_theory`` by element or for all; None where there is none.

    Raises
    ------
    InputError
        If isolated atoms lack an element, were computed at another level of theory, or leave the frames bound by
        an energy that no matter has.
    """
    frames = [*training, *others]
    energies_eV = np.array([labels_of(frame).energy_eV for frame in frames])
    estimated = fit_atom_energies(training, energies_eV[: len(training)])
    if isolated is None:
        return {
            "atom_energies_eV": estimated,
            "atom_energies_kind": "estimated from the training frames",
            "isolated_atom_energies_eV": None,
        }
    try:
        chosen = choose_isolated(isolated["energies_eV"], frames)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("isolated-atom energies must stand as eV by element under energies_eV") from error
    levels = isolated.get("level_of_theory", {})
    levels = {
        element: str(levels.get(element, "") if isinstance(levels, dict) else levels) for element in chosen
    }
    compared = {
        element: _compared(element, level, str(frames[0].info.get("level_of_theory", "")))
        for element, level in levels.items()
    }
    return {
        "atom_energies_eV": chosen,
        "atom_energies_kind": "isolated atoms",
        "isolated_atom_energies_eV": chosen,
        "isolated_atom_levels_of_theory": levels,
        "isolated_atoms_agree_with_the_frames_in": compared,
        "estimated_atom_energies_eV": estimated,
        "mean_binding_energy_eV_per_atom": _mean_binding(frames, energies_eV, chosen),
    }


def _mean_binding(
    frames: Sequence[Atoms], energies_eV: NDArray[np.float64], atom_energies_eV: Mapping[str, float]
) -> float:
    """Return the mean energy per atom (eV) against isolated atoms; one that no matter has is refused."""
    sizes = np.array([len(frame) for frame in frames])
    mean = float(((energies_eV - sum_of_atoms(frames, atom_energies_eV)) / sizes).mean())
    lowest, highest = BINDING_EV_PER_ATOM
    if not lowest <= mean <= highest:
        raise InputError(
            f"against the isolated atoms the frames are bound by {mean:.2f} eV/atom on average, matter by "
            f"{lowest:g} to {highest:g}: the atoms' energies are in another unit or of another code or pseudopotential"
        )
    return mean


def _compared(element: str, atom_level: str, frame_level: str) -> list[str]:
    """Return what an isolated atom and the frames both state and share; what they state differently is refused."""
    atom, frame = _statements(element, atom_level), _statements(element, frame_level)
    both = [name for name in atom if name in frame]
    for name in both:
        if atom[name] != frame[name]:
            raise InputError(
                f"the isolated {element} atom has another {name} than the frames: {atom[name]}, not {frame[name]} "
                f"({atom_level} | {frame_level}): compute it with the frames' settings"
            )
    return both


def _statements(element: str, level: str) -> dict[str, str]:
    """Return what a level of theory (see `espresso.level_of_theory`) says about an element's energy, by name."""
    parts = [part.strip() for part in level.split(";")]
    known: dict[str, str] = {}
    code = next((code for code in CODES if code in parts[0].split()), None)
    if code is not None:
        known["functional"] = parts[0].replace(code, "").strip()
        known["code"] = code
    cutoffs = [part for part in parts if re.fullmatch(r"[\d.]+(/[\d.]+ Ry| eV)", part)]
    if cutoffs:
        known["cutoff"] = cutoffs[0]
    for part in parts:
        symbol, _, name = part.partition(" ")
        if symbol == element and name:
            kinds = [at for at, pattern in enumerate(PSEUDOPOTENTIAL_KINDS) if re.fullmatch(pattern, name)]
            known[f"pseudopotential{' (md5)' if kinds == [1] else '' if kinds else ' (by name)'}"] = name
    return known
