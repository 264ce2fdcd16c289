"""Simulate NVE replicas (velocity Verlet) from starts with momenta; temperatures in K, times in fs and ps."""

import argparse

import md_flags as flags
from hopline import console, frames, provenance
from hopline.dynamics.stage import default_frame_interval_fs


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    flags.add_run(parser)
    parser.add_argument(
        "--frame-interval-fs",
        type=float,
        help="time between frames, fs (default: the whole timesteps nearest 10)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        nargs="+",
        default=[0],
        help=f"of momenta where a start has none; {flags.OF_SEEDS} (default 0)",
    )
    flags.add_limits(parser)
    return parser.parse_args(argv)


def main() -> None:
    """Run the replicas; an exploded one keeps its frames, says why, and saves the offending one."""
    args = parse()
    if args.frame_interval_fs is None:
        args.frame_interval_fs = default_frame_interval_fs(args.timestep_fs, args.duration_ps)
    record = provenance.start(vars(args), [*args.start, args.potential])
    asked = flags.asked(args, "nve")
    from hopline.dynamics import protocol, runs
    from hopline.dynamics.replica import Replica

    replicas = []
    for start, stage, trajectory in asked:
        atoms = frames.read_frames(start)[0]
        if not atoms.has("momenta"):
            console.say(f"{start} has no momenta: drawn at {stage.temperature_K:g} K with seed {stage.seed}")
        moving = protocol.with_momenta(atoms, stage)
        replicas.append(Replica(moving, stage, trajectory, unfit=atoms.info.get("unfit")))
    runs.run(replicas, **flags.settings(args), record=record.record)


if __name__ == "__main__":
    console.run(main)
