"""What a diffusivity from a random walk's MSD is worth: analytic covariance, least squares, intervals."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

DIMENSIONS = 3
LEVEL = 0.95
MAX_SHIFTS = 3000
EXACT_STRIDES = 20
"""Beyond 3000 frames of lag every n-th shift is summed, save for lags under 20 n, where it would show."""


@dataclass(frozen=True, eq=False)
class LineFit:
    """Weights of a straight line through the MSD at some lags of one walker's trajectory.

    ``lags`` (n_lags,) in frames; ``slope`` (n_lags,) so that ``slope @ msd[lags]`` is the slope per frame;
    ``relative_variance``: of that slope for ONE walker; ``log_covariance`` (n_lags, n_lags): of ln MSD, one
    walker.
    """

    lags: NDArray[np.int64]
    slope: NDArray[np.float64]
    relative_variance: float
    log_covariance: NDArray[np.float64]


def msd_covariance(n_frames: int, lags: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the covariance (n_lags, n_lags) of the windowed MSD of one 3-d Gaussian walk, D = 1 A^2/frame.

    cov(m, n) = 24 / ((N - m)(N - n)) sum over origins i, j of overlap([i, i + m], [j, j + n])^2, with N
    frames: displacements are Gaussian, so the covariance of their squares is twice the squared covariance, in
    each of three dimensions. Source: Qian, Sheetz and Elson, Biophys. J. 60, 910 (1991), there for equal
    lags.
    """
    return _msd_covariance(n_frames, tuple(np.asarray(lags).tolist()))


@lru_cache(maxsize=64)
def _msd_covariance(n_frames: int, lags: tuple[int, ...]) -> NDArray[np.float64]:
    stride = max(1, max(lags) // MAX_SHIFTS)
    longer = np.array(lags)
    covariance = np.zeros((len(lags), len(lags)))
    for row, m in enumerate(lags):
        for part, step in ((longer <= EXACT_STRIDES * stride, 1), (longer > EXACT_STRIDES * stride, stride)):
            if part.any():
                covariance[row, part] = _covariance_row(n_frames, m, longer[part], step)
    lower = longer[:, None] > longer[None, :]  # the longer lag of a pair decides the step
    return np.where(lower, covariance.T, covariance)


def _covariance_row(n_frames: int, m: int, lags: NDArray[np.int64], step: int) -> NDArray[np.float64]:
    n = lags[:, None]
    reach = -(-max(m, int(lags.max())) // step) * step
    shift = np.arange(-reach, reach + 1, step)[None, :]
    overlap = np.clip(np.minimum(m, shift + n) - np.maximum(0, shift), 0, None)
    pairs = np.clip(np.minimum(n_frames - m, n_frames - n - shift) - np.maximum(0, -shift), 0, None)
    sums = step * (pairs * overlap.astype(float) ** 2).sum(axis=1)
    row: NDArray[np.float64] = 8 * DIMENSIONS * sums / ((n_frames - m) * (n_frames - lags))
    return row


def fit_line(n_frames: int, lags: NDArray[np.int64]) -> LineFit:
    """Return the weighted least-squares line, with intercept, through the MSD at ``lags`` (frames).

    Weights are the inverse analytic variances; the slope's variance comes from the full covariance, since
    MSDs at different lags share their displacements. The intercept takes up the cage.
    """
    covariance = msd_covariance(n_frames, lags)
    scale = 2 * DIMENSIONS * lags.astype(float)
    weights = 1.0 / np.diag(covariance)
    centred = lags - (weights * lags).sum() / weights.sum()
    slope = weights * centred / (weights * centred**2).sum()
    variance = float(slope @ covariance @ slope) / (2 * DIMENSIONS) ** 2
    return LineFit(lags, slope, variance, covariance / np.outer(scale, scale))


def fit_exponent(msd_A2: NDArray[np.float64], line: LineFit, n_walkers: int) -> tuple[float, float]:
    """Return d ln MSD / d ln lag over the line's lags, weighted like the line, and its standard error."""
    weights = 1.0 / np.diag(line.log_covariance)
    log_lags = np.log(line.lags)
    centred = log_lags - (weights * log_lags).sum() / weights.sum()
    factors = weights * centred / (weights * centred**2).sum()
    exponent = float(factors @ np.log(msd_A2[line.lags]))
    return exponent, float(np.sqrt(factors @ line.log_covariance @ factors / n_walkers))


def octave_exponent_error(n_frames: int, lags: NDArray[np.int64], n_walkers: int) -> NDArray[np.float64]:
    """Return the standard error of ``msd.local_exponent`` at each lag for ``n_walkers`` random walks."""
    both = np.concatenate([lags, 2 * lags])
    scale = 2 * DIMENSIONS * both.astype(float)
    covariance = msd_covariance(n_frames, both) / np.outer(scale, scale)
    short, long = np.arange(len(lags)), np.arange(len(lags)) + len(lags)
    variance = covariance[short, short] + covariance[long, long] - 2 * covariance[short, long]
    error: NDArray[np.float64] = np.sqrt(variance / n_walkers) / np.log(2)
    return error


def random_walk_interval(value: float, relative_variance: float) -> tuple[float, float]:
    """Return the 95 % interval of a D whose estimate is a scaled chi-square, as a squared displacement is.

    Its degrees of freedom are those with the known relative variance, 2 / variance (Satterthwaite).
    """
    from scipy.stats import chi2

    freedom = 2.0 / relative_variance
    low, high = chi2.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2], freedom)
    return value * freedom / high, value * freedom / low


def student_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of two or more replicas by Student's t."""
    from scipy.stats import t

    half = t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def rate_upper_bound(events: int, exposure: float) -> float:
    """Return the one-sided 95 % upper bound of a Poisson rate: 3.0 / exposure where nothing was seen."""
    from scipy.stats import chi2

    return float(chi2.ppf(LEVEL, 2 * (events + 1)) / 2 / exposure)
