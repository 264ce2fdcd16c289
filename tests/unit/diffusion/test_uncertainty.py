"""The analytic covariance is that of simulated walks, and intervals cover at their stated rate."""

import numpy as np
import pytest
from random_walks import FRAME_INTERVAL_PS, gaussian_walk

from hopline.diffusion import uncertainty
from hopline.diffusion.msd import log_spaced_lags, windowed_msd

D_PER_FRAME = 1.0
FRAMES, WALKS = 200, 1500


@pytest.fixture(scope="module")
def walks_msd():
    """MSDs (walks, frames) of independent one-ion walks with D = 1 A^2/frame."""
    walk = gaussian_walk(
        diffusivity_A2_per_ps=D_PER_FRAME / FRAME_INTERVAL_PS, frames=FRAMES, walkers=WALKS, seed=11
    )
    return np.array([windowed_msd(walk[:, [row]]) for row in range(WALKS)])


def test_covariance_is_that_of_walks(walks_msd):
    """Sample variances of 1500 walks err by about 5 %; 25 % is beyond five of those (false alarm < 1e-4)."""
    lags = log_spaced_lags(1, 60, 12)
    expected = uncertainty.msd_covariance(FRAMES, lags)
    sampled = np.cov(walks_msd[:, lags].T)
    np.testing.assert_allclose(np.diag(sampled), np.diag(expected), rtol=0.25)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose(sampled / scale, expected / scale, atol=0.15)


def test_strided_sums_equal_full_ones(monkeypatch):
    lags = log_spaced_lags(2, 6000, 30)
    strided = uncertainty.msd_covariance(20000, lags)
    uncertainty._msd_covariance.cache_clear()
    monkeypatch.setattr(uncertainty, "MAX_SHIFTS", 10**9)
    np.testing.assert_allclose(strided, uncertainty.msd_covariance(20000, lags), rtol=0.02)
    uncertainty._msd_covariance.cache_clear()


def test_slope_of_an_exact_line():
    line = uncertainty.fit_line(500, log_spaced_lags(5, 150, 60))
    assert line.slope @ (0.7 + 6 * 0.25 * line.lags) == pytest.approx(1.5, rel=1e-12)


def test_random_walk_interval_covers(walks_msd):
    """95 % of 1500 walks, standard error 0.6 %: outside 92.5 to 97.5 % is a false alarm below 1e-4."""
    line = uncertainty.fit_line(FRAMES, log_spaced_lags(3, 60, 30))
    slopes = walks_msd[:, line.lags] @ line.slope / 6
    intervals = np.array([uncertainty.random_walk_interval(one, line.relative_variance) for one in slopes])
    covered = ((intervals[:, 0] <= D_PER_FRAME) & (intervals[:, 1] >= D_PER_FRAME)).mean()
    assert 0.925 < covered < 0.975
    assert slopes.std() == pytest.approx(np.sqrt(line.relative_variance), rel=0.1)


def test_student_interval_of_three():
    low, high = uncertainty.student_interval(np.array([1.0, 2.0, 3.0]))
    assert (high - low) / 2 == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)


def test_upper_bound_of_no_event_is_the_rule_of_three():
    assert uncertainty.rate_upper_bound(0, 100.0) == pytest.approx(-np.log(0.05) / 100)
