"""Equilibrate at the mean volume of an NpT run (Langevin NVT), keeping velocities for the replicas' starts."""

import argparse
from pathlib import Path

import flags
from hopline import console, frames, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", type=Path, required=True, help="structure to start from (extended XYZ)")
    parser.add_argument(
        "--npt", type=Path, required=True, help="NpT trajectory (.h5) that gives the mean volume"
    )
    parser.add_argument(
        "--discard-fraction", type=float, required=True, help="share of it left out as equilibration"
    )
    flags.add_run(parser)
    flags.add_thermostat(parser)
    flags.add_limits(parser)
    return parser.parse_args(argv)


def main() -> None:
    """Scale the structure to the NpT run's mean volume, draw momenta and run."""
    args = parse()
    run = provenance.start(
        vars(args), [args.start, args.npt, provenance.sidecar_of(args.npt), args.potential]
    )
    stage = flags.stage(args, "nvt")
    from hopline.dynamics import ase_engine, protocol
    from hopline.potentials.calculator import load_calculator
    from hopline.trajectories import read_trajectory

    npt = read_trajectory(args.npt)
    atoms = protocol.at_mean_volume(
        frames.read_frames(args.start)[0], npt, discard_fraction=args.discard_fraction
    )
    atoms.calc = load_calculator(args.potential)
    protocol.draw_momenta(atoms, stage.temperature_K, stage.seed)
    outcome = ase_engine.simulate(
        atoms,
        stage,
        flags.limits(args),
        args.trajectory,
        velocities=True,
        unfit=ase_engine.why_exploded(args.npt),
    )
    outcome.write_sidecar(args.trajectory, run.record())


if __name__ == "__main__":
    console.run(main)
