"""Run pw.x on a batch of frames, one after the other; a frame that gives no label is a row of the table too.

A batch that was killed, or stopped by SIGTERM, Ctrl-C or the end of its time, is taken up by the same command: finished
frames are kept, the one in hand goes on from its charge density. Exit status 75 says that the batch is not through.
"""

import argparse

import dft_flags
from hopline import console, provenance, stopping


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    dft_flags.add_batch(parser)
    parser.add_argument("--pools", type=int, default=1, help="k-point pools at most, pw.x -nk (default 1)")
    return parser.parse_args(argv)


def main() -> None:
    """Label frame by frame, write the table."""
    args = parse()
    from hopline.labels import batch, espresso_batch, espresso_run

    inputs = [args.inputs / index / espresso_run.INPUT for index in args.indices]
    run = provenance.start(vars(args), inputs)
    launch = espresso_run.Launch(
        launcher=args.launcher,
        pools=args.pools,
        timeout_s=args.timeout_s,
        stop_at_s=stopping.stop_at_s(args.max_seconds),
    )
    with stopping.stoppable():
        rows = espresso_batch.label(args.inputs, args.runs, args.indices, launch=launch)
    batch.write_table(args.table, rows)
    run.write_beside(args.table)
    console.say(f"{args.table}: {batch.summary(rows)}")


if __name__ == "__main__":
    console.run(main)
