"""Estimate the tracer diffusivity (cm^2/s) of one species from replica trajectories, with a verdict on it."""

import argparse
import csv
from collections.abc import Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path

from hopline import console, files, provenance


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; the thresholds are the fields of ``VerdictThresholds``."""
    from hopline.diffusion.verdict import VerdictThresholds

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trajectory", nargs="+", type=Path, required=True, help="one file per replica")
    parser.add_argument(
        "--species", required=True, help="symbol of the mobile species; the host is all others"
    )
    parser.add_argument("--diffusivity", type=Path, required=True, help="JSON result to write")
    parser.add_argument("--frame-interval-fs", type=float, help="for formats without time, e.g. extended XYZ")
    parser.add_argument(
        "--fit-start-ps", type=float, help="lag window's start (default: where the MSD turns linear)"
    )
    parser.add_argument(
        "--fit-stop-ps", type=float, help="lag window's end (default: 0.3 of the shortest replica)"
    )
    parser.add_argument(
        "--hop-length-A", type=float, help="settled move that is a hop (default: half the bond)"
    )
    parser.add_argument(
        "--temperature-K", type=float, help="temperature to state (default: the measured mean)"
    )
    parser.add_argument(
        "--curve", type=Path, help="CSV of the MSD to write: lag_ps, msd_A2 per replica, mean, exponent"
    )
    for field in fields(VerdictThresholds):
        text = f"{field.metadata['help']} (default: {field.default})"
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default, help=text
        )
    return parser.parse_args(argv)


def main() -> None:
    """Read replicas and their sidecars, estimate, write."""
    args = parse()
    run = provenance.start(
        vars(args), [*args.trajectory, *(provenance.sidecar_of(path) for path in args.trajectory)]
    )
    from hopline.diffusion.estimate import estimate_diffusivity
    from hopline.diffusion.replicas import ReplicaSource
    from hopline.diffusion.verdict import VerdictThresholds
    from hopline.trajectories import read_trajectory

    sources = []
    for path in args.trajectory:
        told = provenance.read_sidecar(path)
        load = partial(read_trajectory, path, frame_interval_fs=args.frame_interval_fs)
        sources.append(ReplicaSource(str(path), load, told.get("status"), told.get("reason")))
    given = vars(args)
    result, curve = estimate_diffusivity(
        sources,
        species=args.species,
        fit_start_ps=args.fit_start_ps,
        fit_stop_ps=args.fit_stop_ps,
        hop_length_A=args.hop_length_A,
        temperature_K=args.temperature_K,
        thresholds=VerdictThresholds(
            **{field.name: given[field.name] for field in fields(VerdictThresholds)}
        ),
    )
    files.write_json(args.diffusivity, asdict(result))
    run.write_beside(args.diffusivity)
    if args.curve:
        with files.whole(args.curve) as temporary, temporary.open("w", newline="") as file:
            csv.writer(file).writerows(
                curve.table() if curve else [["lag_ps", "mean_msd_A2", "local_exponent"]]
            )
        run.write_beside(args.curve)


if __name__ == "__main__":
    console.run(main)
