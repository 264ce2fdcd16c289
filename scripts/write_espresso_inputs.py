"""Write one pw.x run folder (pw.in, frame.extxyz) for each selected frame; cutoffs in Ry."""

import argparse
import csv
from pathlib import Path

from hopline import console, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=Path, required=True, help="pool of frames, extended XYZ")
    parser.add_argument(
        "--selection", type=Path, help="selection.csv with rows of the pool; without it: every frame"
    )
    parser.add_argument("--pseudopotentials", type=Path, required=True, help="folder of {element}.upf")
    parser.add_argument(
        "--allow-missing-pseudopotentials", action="store_true", help="write inputs to be run elsewhere"
    )
    add_settings(parser)
    parser.add_argument("--system", help="system of frames that do not say theirs")
    parser.add_argument("--composition", help="composition of frames that do not say theirs")
    parser.add_argument("--inputs", type=Path, required=True, help="folder of run folders 0000, 0001, ...")
    return parser.parse_args(argv)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a pw.x single point."""
    parser.add_argument("--functional", default="PBE", help="what the pseudopotentials were made with (PBE)")
    parser.add_argument("--wavefunction-cutoff-Ry", dest="wavefunction_cutoff_Ry", type=float, required=True)
    parser.add_argument("--density-cutoff-Ry", dest="density_cutoff_Ry", type=float, required=True)
    parser.add_argument("--kpoints", type=int, nargs=3, required=True, metavar="N")
    parser.add_argument("--kpoints-shift", type=int, nargs=3, required=True, metavar="0|1")
    parser.add_argument(
        "--smearing", required=True, help="none, gaussian, cold, methfessel-paxton or fermi-dirac"
    )
    parser.add_argument("--smearing-width-Ry", dest="smearing_width_Ry", type=float, required=True)
    parser.add_argument("--scf-threshold-Ry", dest="scf_threshold_Ry", type=float, required=True)
    parser.add_argument("--mixing-beta", type=float, required=True)
    parser.add_argument("--max-scf-steps", type=int, required=True)


def read_selection(path: Path) -> tuple[list[int], list[str]]:
    """Read rows and frame ids (empty where unknown) of a selection."""
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    if not table or "row" not in table[0]:
        raise console.InputError(f"{path} has no rows or no column named row: make it with select_direct.py")
    try:
        return [int(line["row"]) for line in table], [line.get("frame_id") or "" for line in table]
    except (ValueError, TypeError) as error:
        raise console.InputError(f"{path}: the column row must hold whole numbers ({error})") from error


def main() -> None:
    """Read, write one folder for each frame."""
    args = parse()
    from hopline import frames
    from hopline.labels import espresso

    inputs = [args.frames, *([args.selection] if args.selection else [])]
    run = provenance.start(vars(args), inputs)
    settings = espresso.settings_from(vars(args))
    chosen = frames.read_frames(args.frames)
    if args.selection:
        rows, ids = read_selection(args.selection)
        chosen = espresso.pick(chosen, rows, ids, where=str(args.selection))
    upfs = espresso.find_pseudopotentials(
        args.pseudopotentials,
        {symbol for frame in chosen for symbol in frame.symbols},
        allow_missing=args.allow_missing_pseudopotentials,
    )
    defaults = {"system": args.system, "composition": args.composition}
    for index, frame in enumerate(chosen):
        espresso.write_job(args.inputs / f"{index:04d}", frame, settings, upfs, defaults=defaults)
    run.write_beside(args.inputs)
    console.say(f"{len(chosen)} inputs in {args.inputs}: {espresso.level_of_theory(settings, upfs)}")


if __name__ == "__main__":
    console.run(main)
