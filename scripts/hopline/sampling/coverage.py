"""How much of an explored space a set of frames covers, and which explored frames it misses."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from hopline.console import InputError
from hopline.sampling.direct import Points, farthest_first, fit_reduction


@dataclass(frozen=True)
class Coverage:
    """Coverage of an explored pool by a set of frames.

    ``score`` is the mean over components of the share of occupied bins that the set occupies too (Qi et al. 2024,
    eq. 1); ``score_by_component`` (n_components). ``novelty`` (n_explored) is each explored frame's distance to the
    nearest covering frame over ``reach``, the 95th percentile of the covering frames' own nearest-neighbour
    distances: above 1 a frame is farther from the set than the set's members are from each other.
    ``explored_points`` and ``covering_points`` are weighted principal components, fitted to the explored pool.
    """

    score: float
    score_by_component: Points
    novelty: Points
    reach: float
    explained: float
    explained_by_component: Points
    explored_points: Points
    covering_points: Points

    @property
    def novel_fraction(self) -> float:
        """Share of explored frames that lie beyond the reach of the covering set."""
        return float((self.novelty > 1.0).mean())


def cover(explored: Points, covering: Points, *, bins: int) -> Coverage:
    """Measure how much of the explored features (n, f) the covering features (m, f) cover, with ``bins`` a component.

    Raises
    ------
    InputError
        If the features differ in width, the covering set has no two distinct frames, or there is no bin.
    """
    if bins < 1:
        raise InputError(f"bins must be 1 or more, got {bins}")
    reduction = fit_reduction(explored)
    if covering.ndim != 2 or covering.shape[1] != explored.shape[1]:  # noqa: PLR2004
        raise InputError(
            f"explored and covering features of shapes {explored.shape} and {covering.shape} cannot be compared: "
            "encode both with one encoder"
        )
    if not np.isfinite(covering).all():
        raise InputError("the covering features hold a value that is not a finite number")
    explored_points, covering_points = reduction.apply(explored), reduction.apply(covering)
    # a frame that is there twice has no distance to its nearest neighbour
    distinct = np.unique(covering_points, axis=0)
    if len(distinct) < 2:  # noqa: PLR2004
        raise InputError("the covering set has fewer than two distinct frames: its reach cannot be told")
    scores = np.array(
        [
            _shared_bins(column, cover_column, bins)
            for column, cover_column in zip(explored_points.T, covering_points.T, strict=True)
        ]
    )
    reach = float(np.percentile(cKDTree(distinct).query(distinct, k=2)[0][:, 1], 95))
    return Coverage(
        score=float(scores.mean()),
        score_by_component=scores,
        novelty=cKDTree(covering_points).query(explored_points)[0] / reach,
        reach=reach,
        explained=reduction.explained,
        explained_by_component=reduction.weights,
        explored_points=explored_points,
        covering_points=covering_points,
    )


def worth_labelling(coverage: Coverage, count: int) -> NDArray[np.int64]:
    """Return ``count`` explored rows (ascending) that extend the covered space most, farthest first."""
    count = min(count, len(coverage.explored_points))
    return np.sort(farthest_first(coverage.explored_points, coverage.covering_points, count))


def _shared_bins(explored: Points, covering: Points, bins: int) -> float:
    edges = np.linspace(explored.min(), explored.max(), bins + 1)
    occupied = np.histogram(explored, edges)[0] > 0
    shared = occupied & (np.histogram(covering, edges)[0] > 0)
    return float(shared.sum() / occupied.sum())
