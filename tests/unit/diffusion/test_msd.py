"""The MSD equals its definition, and the host's drift leaves no trace."""

import numpy as np
import pytest
from random_walks import gaussian_walk, trajectory_of

from hopline.console import InputError
from hopline.diffusion import msd
from hopline.diffusion.msd import local_exponent, log_spaced_lags, mobile_positions, windowed_msd

ROUNDING = 1e-10


def direct_msd(positions):
    """The definition, summed lag by lag."""
    frames = len(positions)
    result = np.zeros(frames)
    for lag in range(1, frames):
        result[lag] = ((positions[lag:] - positions[:-lag]) ** 2).sum(axis=2).mean()
    return result


@pytest.mark.parametrize("walkers", [1, 5])
def test_fft_equals_direct_sum(walkers):
    walk = gaussian_walk(diffusivity_A2_per_ps=3.0, frames=701, walkers=walkers, seed=2) + 1000.0
    expected = direct_msd(walk)
    np.testing.assert_allclose(windowed_msd(walk), expected, rtol=0, atol=ROUNDING * expected.max())


def test_blocks_of_ions_change_nothing(monkeypatch):
    walk = gaussian_walk(diffusivity_A2_per_ps=1.0, frames=64, walkers=7, seed=3)
    at_once = windowed_msd(walk)
    monkeypatch.setattr(msd, "BLOCK_BYTES", 1)
    np.testing.assert_allclose(windowed_msd(walk), at_once, atol=ROUNDING)


def test_agrees_with_a_peer():
    mda = pytest.importorskip("MDAnalysis")
    from MDAnalysis.analysis.msd import EinsteinMSD

    walk = gaussian_walk(diffusivity_A2_per_ps=1.0, frames=120, walkers=3, seed=4)
    universe = mda.Universe.empty(3, trajectory=True)
    universe.load_new(walk.astype(np.float32), order="fac")
    peer = EinsteinMSD(universe, msd_type="xyz", fft=False).run().results.timeseries
    float32 = 1e-3
    np.testing.assert_allclose(windowed_msd(walk), peer, atol=float32)


@pytest.mark.parametrize("walkers", [1, 4])
def test_drift_is_removed_exactly(walkers):
    walk = gaussian_walk(diffusivity_A2_per_ps=1.0, frames=200, walkers=walkers, seed=5)
    common = np.cumsum(np.random.default_rng(6).normal(size=(200, 1, 3)) + 0.3, axis=0)
    still = mobile_positions(trajectory_of(walk), "Li")
    drifting = mobile_positions(trajectory_of(walk, common=common), "Li")
    np.testing.assert_allclose(drifting - drifting[0], still - still[0], atol=ROUNDING)
    np.testing.assert_allclose(windowed_msd(still), direct_msd(walk), atol=ROUNDING * 1e3)


def test_drift_is_weighted_by_mass():
    host = np.zeros((2, 2, 3))
    host[1, 0] = [3.0, 0, 0]
    trajectory = trajectory_of(np.zeros((2, 1, 3)), host)
    trajectory.masses_amu[1:] = [1.0, 2.0]
    np.testing.assert_allclose(mobile_positions(trajectory, "Li")[1, 0], [-1.0, 0, 0])


def test_without_a_host_the_centre_of_mass_stands_still():
    walk = gaussian_walk(diffusivity_A2_per_ps=1.0, frames=50, walkers=4, seed=7)
    seen = mobile_positions(trajectory_of(walk, np.empty((0, 3))), "Li")
    np.testing.assert_allclose(
        seen.mean(axis=1), np.broadcast_to(seen[0].mean(axis=0), (50, 3)), atol=ROUNDING
    )


def test_absent_species_is_refused():
    trajectory = trajectory_of(np.zeros((3, 1, 3)))
    for species in ("Na", "Xx"):
        with pytest.raises(InputError, match=f"no {species}: its species are Li, F"):
            mobile_positions(trajectory, species)


def test_local_exponent_of_powers():
    lags = log_spaced_lags(1, 400, 20)
    time = np.arange(1000.0)
    for power in (0.5, 1.0, 2.0):
        np.testing.assert_allclose(local_exponent(time**power, lags), power)
    assert np.isnan(local_exponent(time, np.array([600]))).all()
