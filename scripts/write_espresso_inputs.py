"""Write one pw.x run folder (pw.in, frame.extxyz) for each selected frame; cutoffs in Ry."""

import argparse

import dft_flags
from hopline import console, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    dft_flags.add_selection(parser)
    parser.add_argument(
        "--allow-missing-pseudopotentials", action="store_true", help="write inputs to be run elsewhere"
    )
    dft_flags.add_settings(parser)
    return parser.parse_args(argv)


def main() -> None:
    """Read, write one folder for each frame."""
    args = parse()
    from hopline.labels import espresso, pseudopotentials, selection

    run = provenance.start(vars(args), [path for path in (args.frames, args.selection) if path])
    chosen = selection.selected(args.frames, args.selection)
    upfs = pseudopotentials.find_pseudopotentials(
        args.pseudopotentials,
        {symbol for frame in chosen for symbol in frame.symbols},
        allow_missing=args.allow_missing_pseudopotentials,
    )
    settings = espresso.settings_from(vars(args), upfs)
    defaults = {"system": args.system, "composition": args.composition}
    for index, frame in enumerate(chosen):
        espresso.write_job(args.inputs / f"{index:04d}", frame, settings, upfs, defaults=defaults)
    run.write_beside(args.inputs)
    console.say(f"{len(chosen)} inputs in {args.inputs}: {espresso.level_of_theory(settings, upfs)}")


if __name__ == "__main__":
    console.run(main)
