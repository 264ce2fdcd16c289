"""DIRECT sampling: scale, reduce, cluster, pick (Qi et al., npj Comput. Mater. 10, 43, 2024).

StandardScaler -> PCA, components of variance > 1 -> weighted by their explained-variance ratio -> BIRCH -> from
each cluster the members nearest to their mean. (The reference code keeps a stale sub-cluster centre as a cluster's
centroid when a cluster number is asked for; here the centroid is the mean of the members.)
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from hopline.console import InputError

Points = NDArray[np.float64]
MAX_SUBCLUSTERS = 40_000
"""Ward linkage of n sub-clusters holds n^2 / 2 distances: 40,000 of them are 6.4 GB."""
ROUNDING = 1e-9
"""Frames closer than about this share of their distance from the mean are one to BIRCH, whatever its threshold."""

LARGER_POOL = "take a larger pool or ask for fewer"


@dataclass(frozen=True)
class Reduction:
    """Scaling and weighted principal components, fitted on one pool and applicable to any other.

    ``mean`` and ``scale`` (n_features), ``axes`` (n_components, n_features), ``weights`` (n_components):
    the explained-variance ratios.
    """

    mean: Points
    scale: Points
    axes: Points
    weights: Points

    @property
    def explained(self) -> float:
        """Share of the total variance that the kept components explain."""
        return float(self.weights.sum())

    def apply(self, features: Points) -> Points:
        """Return the weighted components of features, shape (n_frames, n_components)."""
        scaled = (features - self.mean) / self.scale
        reduced: Points = scaled @ self.axes.T * self.weights
        return reduced


@dataclass(frozen=True)
class Selection:
    """Picked rows of a pool, ascending, with the cluster of each and its distance to the members' mean."""

    rows: NDArray[np.int64]
    clusters: NDArray[np.int64]
    distances: Points
    threshold: float
    n_components: int
    explained: float
    topped_up: int


def fit_reduction(features: Points) -> Reduction:
    """Fit scaling and PCA to features (n_frames, n_features); components of variance above 1 are kept.

    At least one component is kept. Features that do not vary are scaled by one.
    """
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    _refuse_bad(features)
    scaler = StandardScaler().fit(features)
    pca = PCA(svd_solver="full").fit(scaler.transform(features))
    kept = max(1, int((pca.explained_variance_ > 1.0).sum()))
    return Reduction(
        # PCA centres once more; the scaled features' mean is zero up to rounding, and that rounding belongs here
        mean=scaler.mean_ + pca.mean_ * scaler.scale_,
        scale=scaler.scale_,
        axes=pca.components_[:kept],
        weights=pca.explained_variance_ratio_[:kept],
    )


def select(
    features: Points, *, clusters: int | None, per_cluster: int, threshold: float, remedy: str = LARGER_POOL
) -> Selection:
    """Pick ``clusters * per_cluster`` frames of a pool, the same ones whatever the pool's order.

    Frames of equal features count once.

    Parameters
    ----------
    features
        Encoded pool, (n_frames, n_features).
    clusters
        Number of BIRCH clusters; None leaves BIRCH's sub-clusters as they are, however many.
    per_cluster
        Picks a cluster: the member nearest to the members' mean, then evenly through the members ranked by
        distance. Where clusters are too small, the frames farthest from all picks top the selection up.
    threshold
        BIRCH radius in weighted components; halved until there are at least ``clusters`` sub-clusters.
    remedy
        What to do about a pool that is too small, which depends on where it comes from.

    Raises
    ------
    InputError
        If the pool has fewer distinct frames than the selection or than ``clusters``, or holds NaN.
    """
    _refuse_bad(features)
    wanted = None if clusters is None else clusters * per_cluster
    # a CF tree and every sum depend on the order of their input: give them one order, that of the content
    order = np.lexsort(features.T[::-1])
    order = order[np.append([True], (features[order[1:]] != features[order[:-1]]).any(axis=1))]
    if wanted is not None and len(order) < wanted:
        raise InputError(f"the pool has {len(order)} distinct frames, {wanted} were asked for: {remedy}")
    reduction = fit_reduction(features[order])
    points = reduction.apply(features[order])
    labels, threshold = _cluster(points, clusters, threshold, remedy)
    distances = _distance_to_mean(points, labels)
    picked = _pick(labels, distances, per_cluster)
    missing = 0 if wanted is None else wanted - len(picked)
    if missing:
        rest = np.setdiff1d(np.arange(len(points)), picked)
        picked = np.concatenate([picked, rest[farthest_first(points[rest], points[picked], missing)]])
    rows = order[picked]
    ascending = np.argsort(rows)
    return Selection(
        rows=rows[ascending],
        clusters=labels[picked][ascending],
        distances=distances[picked][ascending],
        threshold=threshold,
        n_components=points.shape[1],
        explained=reduction.explained,
        topped_up=missing,
    )


def farthest_first(points: Points, covered: Points, count: int) -> NDArray[np.int64]:
    """Return ``count`` rows of ``points``, each the one farthest from ``covered`` and from those before it."""
    nearest = cKDTree(covered).query(points)[0]
    rows = np.empty(count, dtype=np.int64)
    for index in range(count):
        rows[index] = nearest.argmax()
        nearest = np.minimum(nearest, np.linalg.norm(points - points[rows[index]], axis=1))
        nearest[rows[index]] = -np.inf
    return rows


def _cluster(
    points: Points, clusters: int | None, threshold: float, remedy: str
) -> tuple[NDArray[np.int64], float]:
    """Return each point's cluster and the BIRCH threshold that gave enough sub-clusters."""
    from sklearn.cluster import AgglomerativeClustering, Birch

    least = ROUNDING * np.abs(points).max()
    while True:
        # labels come from the k-d tree below: exact, and far faster than BIRCH's own pass over all points
        birch = Birch(n_clusters=None, threshold=threshold, compute_labels=False).fit(points)
        centres = birch.subcluster_centers_
        if clusters is None or len(centres) >= clusters:
            break
        threshold /= 2.0
        if not threshold > least:
            raise InputError(f"the pool has fewer than {clusters} distinct frames: {remedy}")
    if len(centres) > MAX_SUBCLUSTERS and clusters is not None:
        raise InputError(
            f"BIRCH gave {len(centres)} sub-clusters at threshold {threshold:g}; more than {MAX_SUBCLUSTERS} do not "
            "fit in memory: raise the threshold"
        )
    labels: NDArray[np.int64] = cKDTree(centres).query(points)[1]
    if clusters is not None and len(centres) > clusters:
        labels = AgglomerativeClustering(n_clusters=clusters).fit(centres).labels_[labels]
    return np.unique(labels, return_inverse=True)[1], threshold


def _distance_to_mean(points: Points, labels: NDArray[np.int64]) -> Points:
    """Return each point's distance to the mean of its cluster's members."""
    sizes = np.bincount(labels)
    means = np.stack([np.bincount(labels, weights=column) for column in points.T], axis=1) / sizes[:, None]
    distances: Points = np.linalg.norm(points - means[labels], axis=1)
    return distances


def _pick(labels: NDArray[np.int64], distances: Points, per_cluster: int) -> NDArray[np.int64]:
    """Return rows picked evenly by rank of distance from each cluster, the nearest always among them."""
    ranked = np.lexsort((distances, labels))
    sizes = np.bincount(labels)
    begins = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    picks = [
        begin + np.unique(np.linspace(0, size - 1, min(per_cluster, size)).astype(int))
        for begin, size in zip(begins, sizes, strict=True)
    ]
    return ranked[np.concatenate(picks)]


def _refuse_bad(features: Points) -> None:
    if features.ndim != 2 or len(features) < 2:  # noqa: PLR2004
        raise InputError(
            f"features of shape {features.shape} are no pool: (n_frames, n_features), 2 frames or more"
        )
    if not np.isfinite(features).all():
        row = int(np.argwhere(~np.isfinite(features))[0, 0])
        raise InputError(f"row {row} of the features holds a value that is not a finite number")
