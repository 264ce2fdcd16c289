"""Compute energies (eV) of isolated atoms with pw.x: spin-polarised, in a box with three different sides.

A job that was killed or stopped is taken up by the same command: finished atoms are not run again. Exit status 75 says
that it was stopped before its end.
"""

import argparse

import dft_flags
from hopline import console, files, provenance, stopping


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    dft_flags.add_atoms(parser)
    dft_flags.add_cutoffs(parser)
    return parser.parse_args(argv)


def main() -> None:
    """Run each atom, write the energies."""
    args = parse()
    from hopline.labels import espresso_run, isolated_atoms, pseudopotentials, selection

    run = provenance.start(vars(args), args.frames)
    elements = args.elements or selection.elements_of(args.frames)
    upfs = pseudopotentials.find_pseudopotentials(args.pseudopotentials, elements)
    runs = args.runs or args.references.with_suffix(".runs")
    launch = espresso_run.Launch(launcher=args.launcher, stop_at_s=stopping.stop_at_s(args.max_seconds))
    with stopping.stoppable():
        content = isolated_atoms.references(elements, vars(args), upfs, runs, launch=launch)
    files.write_json(args.references, content)
    run.write_beside(args.references)


if __name__ == "__main__":
    console.run(main)
