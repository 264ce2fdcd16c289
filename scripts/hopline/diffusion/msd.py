"""Mean squared displacement of the mobile ions, seen from the host."""

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from hopline.console import InputError
from hopline.trajectories import Trajectory

BLOCK_BYTES = 1 << 28
"""Ions are transformed in blocks whose spectra stay below this, so that 1 ns of 27 ions fits any node."""


def mobile_positions(trajectory: Trajectory, species: str) -> NDArray[np.float64]:
    """Return the positions of one species with the host's drift taken out, (n_frames, n_mobile, 3) in A.

    The drift is the displacement, since the first frame, of the centre of mass of all other species; where
    there is no other species it is that of the whole system, which leaves out the factor (1 - 1/n_atoms) of
    its D.

    Raises
    ------
    InputError
        If the trajectory has no atom of ``species``.
    """
    mobile = trajectory.numbers == atomic_numbers.get(species, -1)
    if not mobile.any():
        there = ", ".join(chemical_symbols[number] for number in np.unique(trajectory.numbers))
        raise InputError(f"{trajectory.source} has no {species}: its species are {there}")
    carriers = mobile if mobile.all() else ~mobile
    masses = np.where(carriers, trajectory.masses_amu, 0.0)
    centre = np.einsum("fai,a->fi", trajectory.positions_A, masses / masses.sum())
    positions: NDArray[np.float64] = trajectory.positions_A[:, mobile] - (centre - centre[0])[:, None, :]
    return positions


def windowed_msd(positions_A: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean squared displacement at every lag, over all time origins and ions, (n_frames,) in A^2.

    Done by FFT in float64 (float32 errs by up to 1e-3), O(n_frames log n_frames), with the identity
    |r(t+n) - r(t)|^2 = r(t+n)^2 + r(t)^2 - 2 r(t+n) r(t); positions are (n_frames, n_ions, 3) in A.
    Source: Calandrini et al., Ecole thematique de la Societe Francaise de la Neutronique 12, 201 (2011).
    """
    n_frames, n_ions, _ = positions_A.shape
    size = _fast_length(2 * n_frames)
    per_block = max(1, BLOCK_BYTES // (size * 3 * 16))
    total = np.zeros(n_frames)
    for first in range(0, n_ions, per_block):
        block = np.asarray(positions_A[:, first : first + per_block], dtype=np.float64)
        block = (block - block.mean(axis=0)).reshape(n_frames, -1)  # smaller numbers, less cancellation
        spectrum = np.fft.rfft(block, n=size, axis=0)
        power = (spectrum.real**2 + spectrum.imag**2).sum(axis=1)
        products = np.fft.irfft(power, n=size)[:n_frames]
        squares = np.concatenate([[0.0], np.cumsum((block**2).sum(axis=1))])
        lags = np.arange(n_frames)
        total += squares[n_frames - lags] + squares[-1] - squares[lags] - 2 * products
    msd: NDArray[np.float64] = total / ((n_frames - np.arange(n_frames)) * n_ions)
    msd[0] = 0.0
    return np.maximum(msd, 0.0)


def log_spaced_lags(start: int, stop: int, count: int) -> NDArray[np.int64]:
    """Return up to ``count`` whole lags from ``start`` to ``stop``, both included, evenly in log."""
    return np.unique(np.geomspace(start, stop, count).round().astype(np.int64))


def local_exponent(msd_A2: NDArray[np.float64], lags: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return d ln MSD / d ln lag over each octave (lag to twice the lag); NaN where that leaves the data."""
    exponent = np.full(len(lags), np.nan)
    inside = (lags >= 1) & (2 * lags < len(msd_A2))
    short, long = msd_A2[lags[inside]], msd_A2[2 * lags[inside]]
    grows = (short > 0) & (long > 0)
    values = np.full(len(short), np.nan)
    values[grows] = np.log2(long[grows] / short[grows])
    exponent[inside] = values
    return exponent


def _fast_length(at_least: int) -> int:
    from scipy.fft import next_fast_len

    return int(next_fast_len(at_least, real=True))
