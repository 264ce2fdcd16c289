"""Equilibrate at NpT runs' mean volumes or the starts' own (NVT), keeping velocities for the replicas' starts."""

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
        help="NpT trajectory (.h5) that gives the mean volume; one each (without: the start's own volume)",
    )
    parser.add_argument("--discard-fraction", type=float, help="share of it left out as equilibration")
    flags.add_thermostat(parser)
    flags.add_nvt(parser)
    flags.add_limits(parser)
    return parser.parse_args(argv)


def main() -> None:
    """Scale the structures to the NpT runs' mean volumes, draw momenta and run."""
    args = parse()
    npts = args.npt or []
    if bool(npts) != (args.discard_fraction is not None):
        raise console.InputError("--npt and --discard-fraction go together: how much of it is equilibration")
    sidecars = [provenance.sidecar_of(npt) for npt in npts]
    record = provenance.start(vars(args), [*args.start, *npts, *sidecars, args.potential])
    asked = flags.asked(args, "nvt")
    npt_of_each = flags.one_each("npt", npts or [None], len(asked))
    from hopline.dynamics import protocol, runs
    from hopline.dynamics.outcomes import why_exploded
    from hopline.dynamics.replica import Replica
    from hopline.trajectories import read_trajectory

    replicas = []
    for (start, stage, trajectory), npt in zip(asked, npt_of_each, strict=True):
        atoms, unfit = frames.read_frames(start)[0], None
        if npt is not None:
            atoms = protocol.at_mean_volume(
                atoms, read_trajectory(npt), discard_fraction=args.discard_fraction
            )
            unfit = why_exploded(npt)
        replicas.append(Replica(protocol.with_momenta(atoms, stage), stage, trajectory, unfit=unfit))
    runs.run(replicas, **flags.settings(args), velocities=True, record=record.record)


if __name__ == "__main__":
    console.run(main)
