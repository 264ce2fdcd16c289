"""Pair correlations of a trajectory: radial distribution functions and running coordination numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from hopline.console import InputError
from hopline.trajectories import Trajectory

BLOCK_BYTES = 1 << 26
"""Pair vectors are made for blocks of atoms whose size stays below this."""


@dataclass(frozen=True, eq=False)
class PairCorrelations:
    """Radial distributions averaged over the frames of all replicas.

    ``r_A`` (n_bins,): bin centres; ``upper_edges_A`` (n_bins,): where the coordination number is counted up
    to; ``distribution`` and ``coordination`` map ordered pairs of symbols (centre, neighbour) to (n_bins,)
    arrays.
    """

    r_A: NDArray[np.float64]
    upper_edges_A: NDArray[np.float64]
    distribution: dict[tuple[str, str], NDArray[np.float64]]
    coordination: dict[tuple[str, str], NDArray[np.float64]]


def pair_correlations(trajectories: Sequence[Trajectory], *, bin_width_A: float) -> PairCorrelations:
    """Return g(r) and the running coordination number of every pair of species, averaged over replicas' frames.

    r reaches half the shortest distance between opposite faces of any frame's cell, within which the nearest
    image by rounded fractional coordinates is the only one. g counts distinct pairs, N_a N_b or N_a (N_a -
    1), against the exact volume of each shell, so that an ideal gas of any size has g = 1. A species with one
    atom has no pair with itself.

    Raises
    ------
    InputError
        If the bin width is not positive or wider than the reach, a cell is missing, or the atoms differ.
    """
    numbers = trajectories[0].numbers
    for trajectory in trajectories:
        if not trajectory.cells_A.any():
            raise InputError(f"{trajectory.source} has no cell, so its density is unknown: g(r) needs one")
        if not np.array_equal(trajectory.numbers, numbers):
            raise InputError(f"{trajectory.source} has other atoms than {trajectories[0].source}")
    frames = [
        frame
        for trajectory in trajectories
        for frame in zip(trajectory.positions_A, trajectory.cells_A, strict=True)
    ]
    reach_A = 0.5 * min(float(_widths(cell).min()) for _, cell in frames)
    if not 0 < bin_width_A <= reach_A:
        raise InputError(
            f"the bin width is {bin_width_A} A; it must be above 0 and up to {reach_A:.3f} A, half the cell"
        )
    n_bins = int(reach_A / bin_width_A + 1e-9)
    edges = np.arange(n_bins + 1, dtype=np.float64) * bin_width_A
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3)
    rows = {chemical_symbols[number]: np.flatnonzero(numbers == number) for number in np.unique(numbers)}
    distribution: dict[tuple[str, str], NDArray[np.float64]] = {}
    coordination: dict[tuple[str, str], NDArray[np.float64]] = {}
    for one, other in combinations_with_replacement(rows, 2):
        n_pairs = len(rows[one]) * (len(rows[other]) - (one == other))
        if n_pairs == 0:
            continue
        counts, density_weighted = np.zeros(n_bins), np.zeros(n_bins)
        for positions, cell in frames:
            found = _histogram(
                positions[rows[one]], positions[rows[other]], cell, bin_width_A, n_bins, same=one == other
            )
            counts += found
            density_weighted += found * abs(np.linalg.det(cell))
        g = density_weighted / (len(frames) * n_pairs * shells)
        for centre, neighbour in {(one, other), (other, one)}:
            distribution[centre, neighbour] = g
            coordination[centre, neighbour] = np.cumsum(counts) / (len(frames) * len(rows[centre]))
    return PairCorrelations((edges[:-1] + edges[1:]) / 2, edges[1:], distribution, coordination)


def _widths(cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distances between opposite faces of a cell, (3,) in A."""
    widths: NDArray[np.float64] = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    return widths


def _histogram(
    centres: NDArray[np.floating], neighbours: NDArray[np.floating], cell: NDArray[np.float64],
    bin_width_A: float, n_bins: int, *, same: bool,
) -> NDArray[np.float64]:  # fmt: skip
    """Count neighbours of all centres by distance; of the same atoms, each but itself."""
    inverse = np.linalg.inv(cell)
    from_centres, to_neighbours = centres @ inverse, neighbours @ inverse
    per_block = max(1, BLOCK_BYTES // (len(neighbours) * 24))
    counts = np.zeros(n_bins)
    for first in range(0, len(centres), per_block):
        between = to_neighbours[None] - from_centres[first : first + per_block, None]
        between -= np.round(between)
        distances = np.linalg.norm(between @ cell, axis=2)
        if same:
            block = np.arange(len(distances))
            distances[block, first + block] = np.inf
        near = distances[distances < n_bins * bin_width_A]
        counts += np.bincount((near / bin_width_A).astype(int), minlength=n_bins)[:n_bins]
    return counts
