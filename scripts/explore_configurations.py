"""Explore a system's configuration space by Langevin dynamics (npt or nvt) with a universal potential."""

import argparse
from pathlib import Path

import flags
from hopline import console, frames, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", type=Path, required=True, help="structure to start from (extended XYZ)")
    parser.add_argument("--ensemble", choices=("npt", "nvt"), required=True, help="npt explores volumes too")
    parser.add_argument(
        "--scale-first",
        type=float,
        required=True,
        help="nvt: cell lengths at the first frame over the start's",
    )
    parser.add_argument("--scale-last", type=float, required=True, help="nvt: the same at the last frame")
    flags.add_run(parser)
    flags.add_thermostat(parser)
    flags.add_barostat(parser)
    flags.add_limits(parser)
    return parser.parse_args(argv)


def main() -> None:
    """Run the exploration; an exploded one keeps its frames up to then."""
    args = parse()
    run = provenance.start(vars(args), [args.start, args.potential])
    stage = flags.stage(args, args.ensemble)
    from hopline.dynamics import ase_engine, protocol
    from hopline.potentials.calculator import load_calculator

    atoms = frames.read_frames(args.start)[0]
    atoms.calc = load_calculator(args.potential)
    protocol.draw_momenta(atoms, stage.temperature_K, stage.seed)
    outcome = ase_engine.simulate(atoms, stage, flags.limits(args), args.trajectory)
    outcome.write_sidecar(args.trajectory, run.record())


if __name__ == "__main__":
    console.run(main)
