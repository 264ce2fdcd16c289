"""Compute energies (eV) of isolated atoms with VASP: spin-polarised, in a box with three different sides.

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
    dft_flags.add_vasp_settings(parser)
    dft_flags.add_vasp_program(parser)
    return parser.parse_args(argv)


def main() -> None:
    """Run each atom, write the energies."""
    args = parse()
    from hopline.labels import isolated_atoms, selection, vasp, vasp_run

    run = provenance.start(vars(args), [*args.frames, args.presets])
    elements = args.elements or selection.elements_of(args.frames)
    preset = vasp.with_tags(vasp.read_preset(args.presets, args.preset), args.incar)
    runs = args.runs or args.references.with_suffix(".runs")
    launch = vasp_run.Launch(
        launcher=args.launcher,
        executable=args.executable,
        stop_at_s=stopping.stop_at_s(args.max_seconds),
    )
    with stopping.stoppable():
        content = isolated_atoms.vasp_references(elements, preset, args.potcars, runs, launch=launch)
    files.write_json(args.references, content)
    run.write_beside(args.references)


if __name__ == "__main__":
    console.run(main)
