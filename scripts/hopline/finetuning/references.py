"""Atomic reference energies: isolated atoms where one has them, else estimated from the frames."""

from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from hopline.console import InputError


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


def sum_of_atoms(frames: Sequence[Atoms], atom_energies_eV: Mapping[str, float]) -> NDArray[np.float64]:
    """Return the sum of atomic reference energies of each frame, (n_frames) in eV."""
    return np.array([sum(atom_energies_eV[symbol] for symbol in atoms.symbols) for atoms in frames])
