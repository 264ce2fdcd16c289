"""Write one VASP run folder (INCAR, KPOINTS, POSCAR, POTCAR.spec, frame.extxyz) for each selected frame.

Single points with forces and stress; settings come from a preset, single INCAR tags from --incar. No POTCAR is written:
bring yours when VASP runs, with label_vasp.py or the script run_vasp.sh in the folder.
"""

import argparse
from pathlib import Path

import dft_flags
from hopline import console, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    dft_flags.add_selection(parser)
    dft_flags.add_vasp_settings(parser)
    parser.add_argument(
        "--potcars", type=Path, help="folder of your POTCARs, to check them now (default: later)"
    )
    return parser.parse_args(argv)


def main() -> None:
    """Read, write one folder for each frame."""
    args = parse()
    from hopline.labels import selection, vasp

    inputs = [path for path in (args.frames, args.presets, args.selection) if path]
    run = provenance.start(vars(args), inputs)
    chosen = selection.selected(args.frames, args.selection)
    preset = vasp.with_tags(vasp.read_preset(args.presets, args.preset), args.incar)
    defaults = {"system": args.system, "composition": args.composition}
    level = vasp.write_jobs(args.inputs, chosen, preset, potcar_folder=args.potcars, defaults=defaults)
    run.write_beside(args.inputs)
    console.say(f"{len(chosen)} inputs in {args.inputs}: {level}")


if __name__ == "__main__":
    console.run(main)
