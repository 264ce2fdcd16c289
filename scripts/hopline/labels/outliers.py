"""Labels that cannot be right beside the others of their set: an energy off by a unit, a stress of the wrong sign."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import ArrayLike, NDArray

from hopline import units
from hopline.frames import STRESS, stress_matrix

Floats = NDArray[np.float64]

SPREADS = 10.0
"""Robust standard deviations that a frame may lie off. A Gaussian reaches them once in 1e22 frames. The value was
chosen on 1000 MPtrj frames, whose tails are heavier: none is lost there (one that is right reaches 9.9), in random
parts of them one of several thousand is."""
BEND_EV = 10.0
"""Energy by which a compound may leave the straight line between other compositions, per replaced atom: formation
energies reach 5 eV/atom where every second atom is replaced (oxides and fluorides of the early metals)."""
MIN_GROUP = 3
"""The median of this many frames is not moved by one of them."""
MIN_FREEDOM = 10
"""Fewer values beyond what a fit uses up say nothing on how well it should fit."""
GAUSSIAN_MAD = 1.4826
"""Standard deviation of a Gaussian over the median of its absolute values."""
ALONE = 0.99
"""Leverage above which one row alone decides a part of the fit."""
FIT_STEPS, RANK_TOLERANCE = 30, 1e-8

FITTED = "a fit of the other frames to their compositions"
CONTRADICTED = "a compromise with the few frames that could tell, which contradict it"

MIN_STRESSES, MIN_VOLUME_RANGE, MAX_VOLUME_CHANGE = 6, 0.02, 0.2
MIN_CORRELATION, MIN_SIGNIFICANCE = 0.5, 5.0
BULK_MODULI_GPA = (0.1, 2000.0)
"""Solid noble gases have about 1 GPa, diamond 440."""


def energy_outliers(
    structures: Sequence[Atoms], energies_eV: ArrayLike, *, max_deviation_eV_per_atom: float
) -> list[tuple[int, str]]:
    """Return the rows whose energy cannot belong to their structure, each with a sentence that says why.

    A frame with at least two others of its composition (as a reduced formula) is compared with their median. Other
    frames, and each composition as a whole, are compared with a robust fit of one energy per element to the others:
    least absolute deviations, then least squares on what lies near. It may lie ``max_deviation_eV_per_atom`` off, or
    `SPREADS` robust standard deviations, or what compounds differ by that are as far apart in composition
    (`BEND_EV`), the last two more where the fit is extrapolated. A frame that alone decides an element's energy
    cannot be judged. Where a frame contradicts the only other one that could be asked, both are returned.

    Parameters
    ----------
    structures, energies_eV
        Frames and their total energies, (n_frames).
    max_deviation_eV_per_atom
        What no physics of the set exceeds: 0.15 eV/atom is the thermal spread at 1200 K, 0.3 that of strained cells.
    """
    if not structures:
        return []
    counts = _counts(structures)
    n_atoms = counts.sum(axis=1)
    energies = np.asarray(energies_eV, dtype=float) / n_atoms
    reduced = counts // np.gcd.reduce(counts, axis=1)[:, None]
    _, first, group = np.unique(reduced, axis=0, return_index=True, return_inverse=True)
    medians, judged_by_median = _group_medians(energies, group)

    off = np.where(judged_by_median, energies - medians, 0.0)
    spread = _spread(off[judged_by_median], lost=len(np.unique(group[judged_by_median])))
    bound = max(max_deviation_eV_per_atom, SPREADS * spread)
    found = {
        int(row): _sentence(
            energies[row], medians[row], n_atoms[row], bound, "the other frames of its composition"
        )
        for row in np.flatnonzero(np.abs(off) > bound)
    }

    rows = np.where(judged_by_median, first[group], np.arange(len(energies)))
    rows, weights = np.unique(rows, return_counts=True)
    values = np.where(judged_by_median, medians, energies)[rows]
    fit = _Fit.of(counts[rows] / n_atoms[rows, None], values, weights, bound)
    for at, limit in fit.outliers(max_deviation_eV_per_atom, spread):
        others = FITTED if fit.known[at] else CONTRADICTED
        for row in np.flatnonzero(group == group[rows[at]]) if judged_by_median[rows[at]] else [rows[at]]:
            found.setdefault(
                int(row), _sentence(energies[row], fit.expected[at], n_atoms[row], limit, others)
            )
        for twin in fit.asked_alone(at):
            if not judged_by_median[rows[twin]]:
                found.setdefault(
                    int(rows[twin]),
                    f"its energy of {values[twin]:.3f} eV/atom and that of frame {rows[at]} of this set contradict "
                    "each other, and no third one can tell which is wrong",
                )
    return sorted(found.items())


def stress_sign(frames: Sequence[Atoms]) -> str:
    """Return what is wrong with the stresses of a set as a whole: sign or unit; empty where nothing is, or is known.

    Within one composition the mean stress (trace/3, ASE's sign) rises with the logarithm of the volume by the bulk
    modulus, whose size and sign are known well enough: Murnaghan, PNAS 30, 244 (1944). Judged are
    compositions with at least `MIN_STRESSES` frames whose volumes differ by more than 2 % and stay within 20 % of
    their median (far beyond, stresses fall again as the crystal comes apart), and only a clear trend: cells that follow
    a barostat at zero pressure show none.
    """
    groups: dict[str, list[tuple[float, float, int]]] = {}
    for frame in frames:
        if frame.info.get(STRESS) is not None and frame.cell.rank == 3:  # noqa: PLR2004
            mean_GPa = float(np.trace(stress_matrix(frame.info[STRESS]))) / 3 * units.GPA_PER_EV_PER_A3
            entry = (frame.get_volume(), mean_GPa, len(frame))
            groups.setdefault(frame.get_chemical_formula(empirical=True), []).append(entry)
    for formula, entries in sorted(groups.items()):
        volume, stress, n_atoms = np.array(entries).T
        complaint = _wrong_modulus(volume / n_atoms, stress)
        if complaint:
            return f"the stresses have the wrong {complaint} ({len(entries)} frames of {formula})"
    return ""


def _counts(structures: Sequence[Atoms]) -> NDArray[np.int64]:
    """Return how many atoms of each element that occurs each frame holds, (n_frames, n_elements)."""
    counts = np.array([np.bincount(frame.numbers, minlength=len(chemical_symbols)) for frame in structures])
    return counts[:, counts.any(axis=0)]


def _group_medians(energies: Floats, group: NDArray[np.int64]) -> tuple[Floats, NDArray[np.bool_]]:
    """Return each row's median over its group, and whether the group is large enough to ask."""
    ordered = energies[np.lexsort((energies, group))]
    sizes = np.bincount(group)
    start = np.cumsum(sizes) - sizes
    medians = (ordered[start + (sizes - 1) // 2] + ordered[start + sizes // 2]) / 2
    return medians[group], (sizes >= MIN_GROUP)[group]


def _spread(residuals: Floats, *, lost: int) -> float:
    """Return a robust standard deviation; the ``lost`` smallest residuals are the fit's own doing.

    It is 0, so that other bounds count, where too few are left to tell.
    """
    left = np.sort(np.abs(residuals))[lost:]
    return GAUSSIAN_MAD * float(np.median(left)) if len(left) >= MIN_FREEDOM else 0.0


def _sentence(energy: float, expected: float, n_atoms: int, bound: float, others: str) -> str:
    side = "above" if energy > expected else "below"
    factors = {"in Ry": units.RYDBERG_EV, "in Ha": units.RYDBERG_EV * units.RYDBERG_PER_HARTREE}
    readings = {**factors, "in meV": 1 / units.MEV_PER_EV, "given per atom": float(n_atoms)}
    fitting = [name for name, factor in readings.items() if abs(energy * factor - expected) <= bound]
    hint = f"; it fits if it is {' or '.join(fitting)}" if fitting and n_atoms > 1 else ""
    return (
        f"energy of {energy:.3f} eV/atom is {abs(energy - expected):.3f} eV/atom {side} {others}, "
        f"{bound:.2f} eV/atom may be{hint}"
    )


@dataclass(frozen=True, eq=False)
class _Fit:
    """One energy per element, fitted to rows of compositions without those that lie far off.

    ``basis`` (n_rows, rank) spans the compositions; ``inverse`` is that of its normal matrix over the rows ``near``.
    Rows that are not ``known`` hold an element that no near row holds: they contradict each other, and what is
    ``expected`` of them is a compromise.
    """

    fractions: Floats
    values: Floats
    basis: Floats
    near: NDArray[np.bool_]
    inverse: Floats
    expected: Floats
    known: NDArray[np.bool_]
    spread: float

    @classmethod
    def of(cls, fractions: Floats, values: Floats, weights: NDArray[np.int64], bound: float) -> "_Fit":
        """Fit energies per atom (n_rows) to fractions of elements (n_rows, n_elements)."""
        basis, sizes, _ = np.linalg.svd(fractions, full_matrices=False)
        basis = basis[:, sizes > sizes[0] * RANK_TOLERANCE]
        residuals = values - basis @ _least_absolute(basis, values, weights)
        spread = _spread(residuals, lost=basis.shape[1])
        near = np.abs(residuals) <= max(bound, SPREADS * spread)
        normal = basis[near].T @ basis[near]
        inverse = np.linalg.pinv(normal, rcond=RANK_TOLERANCE, hermitian=True)
        expected = basis @ (inverse @ (basis[near].T @ values[near]))
        outside = np.linalg.norm(basis - basis @ (inverse @ normal), axis=1)
        known = outside < RANK_TOLERANCE**0.5
        expected = np.where(known, expected, values - residuals)
        return cls(fractions, values, basis, near, inverse, expected, known, spread)

    def outliers(self, max_deviation: float, spread_within: float) -> Iterator[tuple[int, float]]:
        """Yield rows that lie too far off, each with the bound it breaks."""
        size = np.sqrt(1 + self._leverages(self.basis))
        spreads = SPREADS * max(self.spread, spread_within)
        off = np.abs(self.values - self.expected)
        for row in np.flatnonzero(off > np.maximum(max_deviation, spreads * size)):
            distances = np.abs(self.fractions[self.near] - self.fractions[row]).sum(axis=1) / 2
            others = distances[distances > 0]
            bend = BEND_EV * others.min() if len(others) else 0.0
            limit = max(max_deviation, size[row] * max(spreads, bend))
            if off[row] > limit:
                yield int(row), float(limit)

    def asked_alone(self, row: int) -> list[int]:
        """Return the rows on which another's expected energy rests and that nothing else speaks for."""
        rows = np.flatnonzero(self.near)
        alone = self._leverages(self.basis[rows]) > ALONE
        influence = self.basis[rows] @ (self.inverse @ self.basis[row])
        return rows[alone & (np.abs(influence) > 1 - ALONE)].tolist()

    def _leverages(self, basis: Floats) -> Floats:
        return np.einsum("ij,ij->i", basis @ self.inverse, basis)


def _least_absolute(basis: Floats, values: Floats, weights: NDArray[np.int64]) -> Floats:
    """Return the coefficients that minimise the weighted sum of absolute residuals, by reweighted least squares."""
    residuals = np.asarray(values - np.median(values), dtype=float)
    floor = float(np.abs(residuals).max()) or 1.0
    coefficients = np.zeros(basis.shape[1])
    for _ in range(FIT_STEPS):
        weight = weights / np.maximum(np.abs(residuals), floor)
        weighted = basis * weight[:, None]
        coefficients = np.linalg.solve(weighted.T @ basis, weighted.T @ values)
        residuals = values - basis @ coefficients
        floor = max(floor / 2, 1e-6)
    return coefficients


def _wrong_modulus(volume: Floats, stress_GPa: Floats) -> str:
    """Return what is wrong with the slope of stresses over volumes, and its figures; empty where nothing is."""
    near = np.abs(volume / np.median(volume) - 1) < MAX_VOLUME_CHANGE
    strain, stress = np.log(volume[near]), stress_GPa[near]
    n = len(strain)
    if n < MIN_STRESSES or np.ptp(strain) < MIN_VOLUME_RANGE or not np.ptp(stress):
        return ""
    correlation = float(np.corrcoef(strain, stress)[0, 1])
    modulus_GPa = correlation * float(np.std(stress) / np.std(strain))
    significance = abs(correlation) * np.sqrt((n - 2) / max(1 - correlation**2, 1e-12))
    if abs(correlation) < MIN_CORRELATION or significance < MIN_SIGNIFICANCE:
        return ""
    figures = f"they make a bulk modulus of {modulus_GPa:.3g} GPa"
    if modulus_GPa < 0:
        return f"sign: pressure must rise under compression, {figures}"
    lowest, highest = BULK_MODULI_GPA
    return "" if lowest <= modulus_GPa <= highest else f"unit: {figures}"
