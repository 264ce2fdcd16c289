"""Explore a system's configuration space by Langevin dynamics (npt or nvt) with a universal potential."""

import argparse

import md_flags as flags
from hopline import console, frames, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--ensemble", choices=("npt", "nvt"), required=True, help="npt explores volumes too")
    add("--temperature-last-K", type=float, help="heat or cool evenly to here (default: stay)")
    add(
        "--scale-first",
        type=float,
        required=True,
        help="nvt: cell lengths at the first frame over the start's",
    )
    add("--scale-last", type=float, required=True, help="nvt: the same at the last frame")
    flags.add_run(parser)
    flags.add_thermostat(parser)
    flags.add_barostat(parser)
    flags.add_limits(parser)
    return parser.parse_args(argv)


def main() -> None:
    """Run the exploration; an exploded one keeps its frames up to then."""
    args = parse()
    record = provenance.start(vars(args), [*args.start, args.potential])
    asked = flags.asked(args, args.ensemble)
    from hopline.dynamics import protocol, runs
    from hopline.dynamics.replica import Replica

    replicas = [
        Replica(protocol.with_momenta(frames.read_frames(start)[0], stage), stage, trajectory)
        for start, stage, trajectory in asked
    ]
    runs.run(replicas, **flags.settings(args), record=record.record)


if __name__ == "__main__":
    console.run(main)
