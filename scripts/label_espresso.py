"""Run pw.x on one input; its output is kept whether or not the run converged."""

import argparse
from dataclasses import replace
from pathlib import Path

from hopline import console, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, required=True, help="pw.in")
    parser.add_argument("--output", type=Path, required=True, help="pw.out; appears only when pw.x has ended")
    parser.add_argument(
        "--launcher",
        default="",
        help="what stands before pw.x, e.g. 'mpirun -np 4'; nothing: one process (default)",
    )
    parser.add_argument("--pools", type=int, default=1, help="k-point pools, pw.x -nk (default 1)")
    parser.add_argument(
        "--timeout-s", type=float, help="stop the run after this many seconds (default: never)"
    )
    return parser.parse_args(argv)


def main() -> None:
    """Run, say how it went."""
    args = parse()
    from hopline.labels import ladder

    run = provenance.start(vars(args), [args.input])
    result = ladder.run(
        args.input, args.output, launcher=args.launcher, pools=args.pools, timeout_s=args.timeout_s
    )
    second = ladder.insulator_input(args.output)
    if second.is_file():  # the kept output is of this input
        run = replace(run, inputs=(*run.inputs, second))
    run.write_beside(args.output)
    if result.converged:
        console.say(
            f"{args.output}: {result.energy_eV:.6f} eV, {result.scf_steps} SCF steps, {result.wall_time_s} s"
        )
    else:
        console.say(f"{args.output}: no label from this run: {result.reason}")


if __name__ == "__main__":
    console.run(main)
