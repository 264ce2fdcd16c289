"""Equilibrate the volume of structures at temperatures and a pressure (NpT with a fixed cell shape)."""

import argparse

import md_flags as flags
from hopline import console, frames, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    flags.add_run(parser)
    flags.add_thermostat(parser)
    flags.add_barostat(parser)
    flags.add_limits(parser)
    return parser.parse_args(argv)


def main() -> None:
    """Draw momenta and run."""
    args = parse()
    record = provenance.start(vars(args), [*args.start, args.potential])
    asked = flags.asked(args, "npt")
    from hopline.dynamics import protocol, runs
    from hopline.dynamics.replica import Replica

    replicas = [
        Replica(protocol.with_momenta(frames.read_frames(start)[0], stage), stage, trajectory)
        for start, stage, trajectory in asked
    ]
    runs.run(replicas, **flags.settings(args), record=record.record)


if __name__ == "__main__":
    console.run(main)
