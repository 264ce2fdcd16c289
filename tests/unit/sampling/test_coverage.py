"""Coverage of sets whose overlap is known by construction."""

import numpy as np
import pytest

from hopline.console import InputError
from hopline.sampling import coverage


def line(values):
    """Return features that lie on a line: one component after scaling."""
    return np.outer(np.asarray(values, dtype=float), [1.0, 2.0, -1.0])


def test_a_set_covers_itself():
    features = np.random.default_rng(0).normal(size=(200, 6))
    found = coverage.cover(features, features, bins=10)
    assert found.score == 1.0
    np.testing.assert_array_equal(found.score_by_component, 1.0)
    np.testing.assert_array_equal(found.novelty, 0.0)
    assert found.novel_fraction == 0.0


def test_half_of_a_line_covers_half_of_the_bins():
    explored = line(np.linspace(0, 1, 1001))
    found = coverage.cover(explored, explored[:501], bins=10)
    # the frame in the middle lies on the edge between two bins and counts for one of them
    assert found.score in (0.5, 0.6)
    assert coverage.cover(explored, explored[:496], bins=10).score == 0.5
    assert coverage.cover(explored, explored[[0, 1000]], bins=10).score == 0.2


def test_bins_that_were_never_explored_do_not_count():
    explored = line([*np.linspace(0, 0.9, 101), *np.linspace(9.1, 10, 101)])
    assert coverage.cover(explored, explored[:101], bins=10).score == 0.5


def test_the_score_is_the_mean_over_components():
    """A square, of which the set covers the whole first axis and half of the second."""
    grid = np.array([[x, y] for x in np.linspace(0, 1, 40) for y in np.linspace(0, 1, 40)])
    rotated = np.column_stack([grid[:, 0], grid[:, 0], grid[:, 0], grid[:, 1], grid[:, 1]])
    found = coverage.cover(rotated, rotated[grid[:, 1] < 0.49], bins=10)
    np.testing.assert_allclose(found.score_by_component, [1.0, 0.5])
    assert found.score == 0.75
    assert found.explained == pytest.approx(1.0)


def test_novelty_is_distance_over_the_reach_of_the_set():
    covering = line(np.arange(11))
    found = coverage.cover(line([0, 10, 5.25, 12, 13.5]), covering, bins=5)
    np.testing.assert_allclose(found.novelty, [0, 0, 0.25, 2, 3.5], atol=1e-9)
    assert found.novel_fraction == pytest.approx(0.4)


def test_a_frame_picked_twice_does_not_shorten_the_reach():
    once, explored = line(np.arange(11)), line([0, 12])
    twice = np.vstack([once, once])
    known = coverage.cover(explored, once, bins=5)
    found = coverage.cover(explored, twice, bins=5)
    np.testing.assert_allclose(found.novelty, known.novelty, atol=1e-9)
    assert len(found.covering_points) == 22


def test_the_frames_worth_labelling_are_the_farthest_first():
    explored = line([0.1, 3.0, 2.9, 10.0, 9.9, 6.0])
    found = coverage.cover(explored, line([0.0, 0.5]), bins=5)
    # 10 first; then 6 (4 from 10), since 3 is 2.5 from 0.5; then 3
    np.testing.assert_array_equal(coverage.worth_labelling(found, 1), [3])
    np.testing.assert_array_equal(coverage.worth_labelling(found, 2), [3, 5])
    np.testing.assert_array_equal(coverage.worth_labelling(found, 3), [1, 3, 5])
    np.testing.assert_array_equal(coverage.worth_labelling(found, 99), np.arange(6))
    assert len(coverage.worth_labelling(found, 0)) == 0


@pytest.mark.parametrize(
    ("covering", "bins"),
    [
        (np.zeros((3, 2)), 5),
        (np.zeros((1, 3)), 5),
        (np.zeros((4, 3)), 5),
        (line([1, 2, np.nan]), 5),
        (line([1, 2]), 0),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(covering, bins):
    with pytest.raises(InputError):
        coverage.cover(line(np.arange(10)), covering, bins=bins)
