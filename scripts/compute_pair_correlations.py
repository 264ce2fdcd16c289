"""Compute radial distribution functions and running coordination numbers of every pair of species, r in A."""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from hopline import console, files, provenance


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--trajectory",
        type=Path,
        nargs="+",
        required=True,
        help="replicas to average over, exploded ones left out",
    )
    parser.add_argument(
        "--correlations", type=Path, required=True, help="CSV to write: one row per pair and bin"
    )
    parser.add_argument("--bin-width-A", type=float, required=True, help="width of the distance bins in A")
    parser.add_argument("--frame-interval-fs", type=float, help="for formats without time, e.g. extended XYZ")
    return parser.parse_args(argv)


def main() -> None:
    """Read the trajectory, correlate, write."""
    args = parse()
    run = provenance.start(vars(args), [*args.trajectory, *map(provenance.sidecar_of, args.trajectory)])
    from hopline.correlations import pair_correlations
    from hopline.trajectories import read_trajectory

    sound = [path for path in args.trajectory if provenance.read_sidecar(path).get("status") != "exploded"]
    if not sound:
        console.say("every replica exploded: the correlations are those of the frames before")
    replicas = [
        read_trajectory(path, frame_interval_fs=args.frame_interval_fs) for path in sound or args.trajectory
    ]
    found = pair_correlations(replicas, bin_width_A=args.bin_width_A)
    with files.whole(args.correlations) as temporary, temporary.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["centre", "neighbour", "r_A", "g", "upper_edge_A", "coordination"])
        for (centre, neighbour), g in sorted(found.distribution.items()):
            coordination = found.coordination[centre, neighbour]
            for row in zip(found.r_A, g, found.upper_edges_A, coordination, strict=True):
                out.writerow([centre, neighbour, *(f"{value:.6g}" for value in row)])
    run.write_beside(args.correlations)


if __name__ == "__main__":
    console.run(main)
