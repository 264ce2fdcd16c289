"""Equilibrate at the mean volume of NpT runs (NVT), keeping velocities for the replicas' starts."""

import argparse
from pathlib import Path

import md_flags as flags
from hopline import console, frames, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    flags.add_run(parser)
    parser.add_argument(
        "--npt",
        type=Path,
        nargs="+",
        required=True,
        help="NpT trajectory (.h5) that gives the mean volume; one each",
    )
    parser.add_argument(
        "--discard-fraction", type=float, required=True, help="share of it left out as equilibration"
    )
    flags.add_thermostat(parser)
    flags.add_nvt(parser)
    flags.add_limits(parser)
    return parser.parse_args(argv)


def main() -> None:
    """Scale the structures to the NpT runs' mean volumes, draw momenta and run."""
    args = parse()
    sidecars = [provenance.sidecar_of(npt) for npt in args.npt]
    record = provenance.start(vars(args), [*args.start, *args.npt, *sidecars, args.potential])
    stages = flags.stages(args, "nvt")
    from hopline.dynamics import protocol, runs
    from hopline.dynamics.outcomes import why_exploded
    from hopline.dynamics.replica import Replica
    from hopline.trajectories import read_trajectory

    npts = flags.one_each("npt", args.npt, len(args.trajectory))
    replicas = []
    for start, npt, stage, trajectory in zip(flags.starts(args), npts, stages, args.trajectory, strict=True):
        atoms = protocol.at_mean_volume(
            frames.read_frames(start)[0], read_trajectory(npt), discard_fraction=args.discard_fraction
        )
        moving = protocol.with_momenta(atoms, stage)
        replicas.append(Replica(moving, stage, trajectory, unfit=why_exploded(npt)))
    runs.run(replicas, **flags.settings(args), velocities=True, record=record.record)


if __name__ == "__main__":
    console.run(main)
