"""Counting hops: an ion has hopped when its cage-averaged position has moved and stays moved."""

import numpy as np
from numpy.typing import NDArray

from hopline.trajectories import Trajectory

CAGE_AVERAGE_PS = 0.2
"""Positions are averaged over this before they are compared: one to a few periods of an ion in its cage."""
SITE_BLOCKS = 10
"""A site is the mean of the first ten blocks spent there: one block alone carries vibration of its own."""
SHORTEST_HOP_A, LONGEST_HOP_A = 0.8, 1.5
"""Bounds of the default hop length: above what vibrations of a crystal reach, below the spacing of sites."""


def default_hop_length(trajectory: Trajectory, species: str) -> float:
    """Return half the median distance from a mobile ion to its nearest atom in the first frame, in A.

    Half a bond is beyond Lindemann's bound of thermal vibration (0.1 to 0.15 of it) and on the far side of
    the saddle between two sites. It is kept between 0.8 and 1.5 A, and is 1 A for a lone atom.
    """
    first = trajectory.atoms(0)
    mobile = [row for row, symbol in enumerate(first.symbols) if symbol == species]
    if len(first) == 1:
        return 1.0
    nearest = []
    for row in mobile:
        others = [other for other in range(len(first)) if other != row]
        nearest.append(first.get_distances(row, others, mic=True).min())
    return float(np.clip(0.5 * np.median(nearest), SHORTEST_HOP_A, LONGEST_HOP_A))


def count_hops(
    positions_A: NDArray[np.float64], *, frame_interval_ps: float, hop_length_A: float
) -> NDArray[np.int64]:
    """Return the number of hops of each ion, (n_ions,).

    Positions (n_frames, n_ions, 3) in A are averaged over blocks of 0.2 ps. An ion's site is the mean of the
    first ten blocks it spends there. When two consecutive blocks both lie farther than ``hop_length_A`` from
    the site, one hop is counted and a new site starts with the second block: an excursion shorter than a
    block, and vibration across the boundary, do not count, and a jump is not counted twice while it is under
    way.
    """
    per_block = max(1, round(CAGE_AVERAGE_PS / frame_interval_ps))
    n_blocks = max(1, len(positions_A) // per_block)
    blocks = positions_A[: n_blocks * per_block].reshape(n_blocks, -1, *positions_A.shape[1:]).mean(axis=1)
    site = blocks[0].copy()
    stayed = np.ones(positions_A.shape[1])
    hops = np.zeros(positions_A.shape[1], dtype=np.int64)
    was_away = np.zeros(positions_A.shape[1], dtype=bool)
    for block in blocks[1:]:
        away = ((block - site) ** 2).sum(axis=1) > hop_length_A**2
        hopped = away & was_away
        hops += hopped
        site[hopped], stayed[hopped] = block[hopped], 1
        settling = ~away & (stayed < SITE_BLOCKS)
        stayed[settling] += 1
        site[settling] += (block - site)[settling] / stayed[settling, None]
        was_away = away & ~hopped
    return hops
