"""Run VASP on a batch of frames, one after the other; a frame that gives no label is a row of the table too.

A batch that was killed, or stopped by SIGTERM, Ctrl-C or the end of its time, is taken up by the same command: finished
frames are kept, one that was stopped goes on from its charge density. Exit status 75: the batch is not through.
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
    dft_flags.add_vasp_program(parser)
    return parser.parse_args(argv)


def main() -> None:
    """Label frame by frame, write the table."""
    args = parse()
    from hopline.labels import batch, vasp_run

    run = provenance.start(vars(args), [args.inputs / index / vasp_run.INCAR for index in args.indices])
    launch = vasp_run.Launch(
        launcher=args.launcher,
        executable=args.executable,
        timeout_s=args.timeout_s,
        stop_at_s=stopping.stop_at_s(args.max_seconds),
    )
    with stopping.stoppable():
        rows = vasp_run.label(args.inputs, args.runs, args.indices, potcar_folder=args.potcars, launch=launch)
    batch.write_table(args.table, rows)
    run.write_beside(args.table)
    console.say(f"{args.table}: {batch.summary(rows)}")


if __name__ == "__main__":
    console.run(main)
