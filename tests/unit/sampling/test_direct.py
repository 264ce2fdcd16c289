"""DIRECT picks what the published code picks, the same whatever the pool's order, and exactly as many as asked."""

import resource
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hopline.console import InputError
from hopline.sampling import direct


def blobs(n_frames, n_features=16, seed=0):
    """Return features in ten clouds of unequal size."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(scale=5.0, size=(10, n_features))
    return centres[rng.integers(0, 10, n_frames) ** 2 // 9] + rng.normal(size=(n_frames, n_features))


def select(features, clusters=8, per_cluster=2, threshold=0.5):
    return direct.select(features, clusters=clusters, per_cluster=per_cluster, threshold=threshold)


def test_reduction_and_picks_are_those_of_the_published_code(shared_data):
    known = np.load(shared_data / "direct" / "small_known_answer.npz")
    points = direct.fit_reduction(known["features"]).apply(known["features"])
    assert points.shape == known["pc_weighted"].shape
    signs = np.sign((points * known["pc_weighted"]).sum(axis=0))
    np.testing.assert_allclose(points * signs, known["pc_weighted"], atol=1e-6)
    picks = select(known["features"], clusters=None, per_cluster=1, threshold=0.5)
    np.testing.assert_array_equal(picks.rows, np.sort(known["expected_threshold_05"]))


def test_components_are_standardised_principal_components_times_their_share():
    features = blobs(300)
    reduction = direct.fit_reduction(features)
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    values, vectors = np.linalg.eigh(np.cov(scaled.T))
    kept = values[::-1] > 1.0
    shares = values[::-1] / values.sum()
    assert reduction.weights == pytest.approx(shares[kept])
    assert reduction.explained == pytest.approx(shares[kept].sum())
    expected = scaled @ vectors[:, ::-1][:, kept] * shares[kept]
    np.testing.assert_allclose(np.abs(reduction.apply(features)), np.abs(expected), atol=1e-9)


def test_a_reduction_of_equal_features_keeps_one_component():
    features = np.column_stack([np.arange(6.0), np.full(6, 3.0)])
    reduction = direct.fit_reduction(features)
    assert reduction.axes.shape == (1, 2)
    assert np.isfinite(reduction.apply(features)).all()


@pytest.mark.parametrize("clusters", [None, 8])
@pytest.mark.parametrize("seed", range(3))
def test_the_same_frames_are_picked_whatever_the_order_of_the_pool(clusters, seed):
    features = blobs(400, seed=seed)
    picks = select(features, clusters=clusters)
    order = np.random.default_rng(seed + 10).permutation(len(features))
    again = select(features[order], clusters=clusters)
    np.testing.assert_array_equal(np.sort(order[again.rows]), picks.rows)
    assert again.threshold == picks.threshold


@settings(max_examples=40, deadline=None)
@given(
    n_frames=st.integers(2, 60),
    clusters=st.integers(1, 12),
    per_cluster=st.integers(1, 6),
    seed=st.integers(0, 9),
)
def test_as_many_frames_are_picked_as_asked_for(n_frames, clusters, per_cluster, seed):
    features = blobs(n_frames, n_features=5, seed=seed)
    if clusters * per_cluster > n_frames:
        with pytest.raises(
            InputError, match=f"{n_frames} distinct frames, {clusters * per_cluster} were asked"
        ):
            select(features, clusters, per_cluster)
        return
    picks = select(features, clusters, per_cluster)
    assert len(set(picks.rows)) == len(picks.rows) == clusters * per_cluster
    assert (np.diff(picks.rows) > 0).all()
    assert len(set(picks.clusters)) == clusters
    assert (picks.distances >= 0).all()


def test_small_clusters_are_topped_up_by_the_farthest_frames():
    cloud = np.random.default_rng(0).normal(scale=0.01, size=(50, 2))
    features = np.vstack([cloud, [[10.0, 0.0]], [[0.0, 10.0]]])
    picks = select(features, clusters=3, per_cluster=4)
    assert picks.topped_up == 6
    assert len(picks.rows) == 12
    assert {50, 51} <= set(picks.rows)


def test_clusters_that_are_plain_to_see_are_found():
    rng = np.random.default_rng(1)
    centres = rng.normal(scale=50.0, size=(6, 4))
    features = np.repeat(centres, 30, axis=0) + rng.normal(scale=0.1, size=(180, 4))
    picks = select(features, clusters=6, per_cluster=1)
    np.testing.assert_array_equal(np.sort(picks.rows // 30), np.arange(6))
    points = direct.fit_reduction(features).apply(features)
    for row in picks.rows:
        members = np.arange(30) + row // 30 * 30
        far = np.linalg.norm(points[members] - points[members].mean(axis=0), axis=1)
        assert row == members[far.argmin()]


def test_frames_that_are_there_twice_count_once():
    distinct = blobs(30, seed=2)
    doubled = np.vstack([distinct, distinct, distinct[:7]])
    picks = select(doubled, clusters=6, per_cluster=3)
    assert len(np.unique(doubled[picks.rows], axis=0)) == 18
    with pytest.raises(InputError, match="30 distinct frames, 32 were asked for"):
        select(doubled, clusters=8, per_cluster=4)


@pytest.mark.parametrize("noise", [1e-8, 1e-11, 1e-14])
def test_frames_that_differ_by_rounding_are_no_clusters_of_their_own(noise):
    rng = np.random.default_rng(0)
    once = rng.normal(size=(30, 8))
    again = once[:20] * (1 + noise * rng.normal(size=(20, 8)))
    with pytest.raises(InputError, match="fewer than 45 distinct frames"):
        select(np.vstack([once, again]), clusters=45, per_cluster=1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_feature_that_is_no_number_is_refused_by_row(bad):
    features = blobs(40)
    features[17, 3] = bad
    with pytest.raises(InputError, match="row 17"):
        select(features)


@pytest.mark.parametrize("shape", [(1, 4), (0, 4), (12,), (4, 2, 2)])
def test_what_is_no_pool_is_refused(shape):
    with pytest.raises(InputError, match="no pool"):
        select(np.zeros(shape))


def test_a_threshold_too_wide_for_the_clusters_is_halved_until_it_fits():
    features = blobs(200)
    picks = select(features, clusters=20, per_cluster=1, threshold=64.0)
    assert np.log2(64.0 / picks.threshold) == pytest.approx(round(np.log2(64.0 / picks.threshold)))
    assert picks.threshold < 64.0


def test_farthest_first_on_a_line():
    points = np.array([[0.0], [1.0], [4.0], [10.0], [7.5]])
    # 10 is farthest from 0; then 4 (4 from 0) beats 7.5 (2.5 from 10); then 7.5; then 1
    np.testing.assert_array_equal(direct.farthest_first(points, np.array([[0.0]]), 4), [3, 2, 4, 1])


@pytest.mark.slow
def test_two_hundred_thousand_frames_take_little_memory_and_time():
    """Measured: 9.9 s of CPU and 0.8 GB; the bounds only catch another order of growth."""
    features = blobs(200_000, n_features=64, seed=3)
    started = time.process_time()
    picks = direct.select(features, clusters=300, per_cluster=3, threshold=0.5)
    spent_s = time.process_time() - started
    peak_GB = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(
        f"200,000 x 64 -> {len(picks.rows)}: {spent_s:.1f} s CPU, peak {peak_GB:.2f} GB, {picks.threshold=}"
    )
    assert len(picks.rows) == 900
    assert spent_s < 120
    assert peak_GB < 6
