"""Select frames of an NVT run, near its mean energy and well apart, as starts of NVE replicas."""

import argparse
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
        rows = [nvt.n_frames - 1] * len(args.starts)
    else:
        rows = protocol.select_starts(nvt, replicas=len(args.starts), starts_apart_ps=args.starts_apart_ps)
    for row, path in zip(rows, args.starts, strict=True):
        atoms = nvt.atoms(row)
        protocol.remove_total_momentum(atoms)
        if unfit:
            atoms.info["unfit"] = unfit
        frames.write_frames(path, [atoms])
    run.write_beside(args.starts[0])
    console.say(f"starts at {', '.join(f'{nvt.time_ps[row]:g}' for row in rows)} ps of {args.nvt}")


if __name__ == "__main__":
    console.run(main)
