"""Pick a diverse, fixed number of frames from encoded features by DIRECT sampling."""

import argparse
from pathlib import Path

from hopline import console, files, frames, provenance

DEFAULT_THRESHOLD = 0.5
"""BIRCH radius in weighted components to begin with; it is halved until there are enough clusters."""

REMEDIES = {
    True: "of labelled frames these are left beside the test set and its gaps: lower direct.frames, gap_frames or "
    "test_fraction of the dataset, or label more frames",
    False: "explore longer, or lower direct.frames of the dataset",
}
"""What to do about a pool that is too small, labelled or explored."""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=Path, required=True, help="NumPy array (n_frames, n_features)")
    parser.add_argument(
        "--frames", type=Path, help="extended XYZ of the pool, a frame a row: gives frame ids"
    )
    parser.add_argument("--clusters", type=int, required=True, help="number of clusters")
    parser.add_argument("--per-cluster", type=int, required=True, help="frames picked from each cluster")
    parser.add_argument(
        "--threshold", type=float, default=DEFAULT_THRESHOLD, help="initial BIRCH radius (%(default)s)"
    )
    parser.add_argument(
        "--selection", type=Path, required=True, help="CSV to write: row,frame_id,cluster,distance"
    )
    args = parser.parse_args(argv)
    for name in ("clusters", "per_cluster", "threshold"):
        if not getattr(args, name) > 0:
            raise console.InputError(
                f"--{name.replace('_', '-')} must be positive, got {getattr(args, name)}"
            )
    return args


def main() -> None:
    """Select and write the picks, sorted by row."""
    args = parse()
    run = provenance.start(vars(args), [args.features])
    import pandas as pd

    from hopline.sampling.direct import select

    features = files.read_array(args.features)
    pool = frames.read_frames(args.frames) if args.frames else None
    if pool is not None and len(pool) != len(features):
        raise console.InputError(
            f"{args.frames} has {len(pool)} frames, {args.features} {len(features)} rows"
        )
    labelled = pool is not None and all(frames.FORCES in atoms.arrays for atoms in pool)
    selection = select(
        features,
        clusters=args.clusters,
        per_cluster=args.per_cluster,
        threshold=args.threshold,
        remedy=REMEDIES[labelled],
    )
    ids = [frames.frame_id(pool[row]) if pool else "" for row in selection.rows]
    table = pd.DataFrame({"row": selection.rows, "frame_id": ids, "cluster": selection.clusters})
    table["distance_to_centroid"] = selection.distances
    files.write_table(args.selection, table)
    run.write_beside(args.selection)
    console.say(
        f"{args.selection}: {len(table)} of {len(features)} frames from {args.clusters} clusters, "
        f"{selection.n_components} components ({selection.explained:.1%} of the variance), "
        f"BIRCH threshold {selection.threshold:g}, {selection.topped_up} by farthest point"
    )


if __name__ == "__main__":
    console.run(main)
