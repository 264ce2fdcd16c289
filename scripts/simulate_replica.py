"""Simulate one NVE replica (velocity Verlet) from a start with momenta; temperatures in K, times in fs and ps."""

import argparse
from pathlib import Path

import flags
from hopline import console, frames, provenance

DEFAULT_FRAME_INTERVAL_FS = 10.0


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--start", type=Path, required=True, help="structure, with momenta or without (extended XYZ)"
    )
    flags.add_run(parser)
    interval = DEFAULT_FRAME_INTERVAL_FS
    parser.add_argument(
        "--frame-interval-fs", type=float, default=interval, help=f"fs (default {interval:g})"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of momenta where the start has none (default 0)"
    )
    flags.add_limits(parser)
    return parser.parse_args(argv)


def main() -> None:
    """Run the replica; an exploded one keeps its frames, says why, and saves the offending one."""
    args = parse()
    run = provenance.start(vars(args), [args.start, args.potential])
    stage = flags.stage(args, "nve")
    from hopline.dynamics import ase_engine, protocol
    from hopline.potentials.calculator import load_calculator

    atoms = frames.read_frames(args.start)[0]
    atoms.calc = load_calculator(args.potential)
    if not atoms.has("momenta"):
        console.say(f"{args.start} has no momenta: drawn at {args.temperature_K:g} K with seed {args.seed}")
        protocol.draw_momenta(atoms, stage.temperature_K, stage.seed)
    protocol.remove_total_momentum(atoms)
    unfit = atoms.info.get("unfit")
    outcome = ase_engine.simulate(atoms, stage, flags.limits(args), args.trajectory, unfit=unfit)
    outcome.write_sidecar(args.trajectory, run.record())
    if outcome.offending:
        frames.write_frames(args.trajectory.with_suffix(".offending.extxyz"), [outcome.offending])


if __name__ == "__main__":
    console.run(main)
