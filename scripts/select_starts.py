"""Select frames of an NVT run, near its mean energy and well apart, as starts of NVE replicas."""

import argparse
import math
from pathlib import Path

from hopline import console, frames, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nvt", type=Path, required=True, help="NVT trajectory with velocities (.h5)")
    parser.add_argument(
        "--starts-apart-ps", type=float, required=True, help="least time between two starts, ps"
    )
    parser.add_argument(
        "--starts", type=Path, nargs="+", required=True, help="extended XYZ to write, one a replica"
    )
    return parser.parse_args(argv)


def main() -> None:
    """Select and write the starts, with momenta and zero total momentum."""
    args = parse()
    run = provenance.start(vars(args), [args.nvt, provenance.sidecar_of(args.nvt)])
    from hopline.dynamics import outcomes, protocol
    from hopline.trajectories import read_trajectory

    nvt = read_trajectory(args.nvt)
    if nvt.velocities_A_per_ps is None:
        raise console.InputError(f"{args.nvt} holds no velocities: make it with equilibrate_nvt.py")
    unfit = outcomes.why_exploded(args.nvt)
    if unfit:
        starts = [protocol.Start(nvt.n_frames - 1, math.nan)] * len(args.starts)
    else:
        starts = protocol.select_starts(nvt, replicas=len(args.starts), starts_apart_ps=args.starts_apart_ps)
    for (row, excess_K), path in zip(starts, args.starts, strict=True):
        atoms = nvt.atoms(row)
        protocol.remove_total_momentum(atoms)
        if unfit:
            atoms.info["unfit"] = unfit
        frames.write_frames(path, [atoms])
        told = f"{path}: at {nvt.time_ps[row]:g} ps of {args.nvt}"
        console.say(told if unfit else f"{told}, its run will be {excess_K:+.0f} K off the mean")
    run.write_beside(args.starts[0])


if __name__ == "__main__":
    console.run(main)
