"""Collect all diffusivities (cm^2/s) and activation energies (eV) in one tidy table."""

import argparse
from pathlib import Path

from hopline import console, files, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=f"{__doc__} One row for each system, potential, composition and temperature."
    )
    place = ".../{system}/diffusion/{potential}/{composition}/"
    parser.add_argument(
        "--diffusivities", type=Path, nargs="*", default=[], help=f"{place}{{temperature}}K.json"
    )
    parser.add_argument("--arrhenius", type=Path, nargs="*", default=[], help=f"{place}arrhenius.json")
    parser.add_argument("--summary", type=Path, required=True, help="CSV to write")
    return parser.parse_args(argv)


def main() -> None:
    """Read, tabulate, write."""
    args = parse()
    run = provenance.start(vars(args), [*args.diffusivities, *args.arrhenius])
    from hopline.report.summary import summarise

    table = summarise(args.diffusivities, args.arrhenius)
    files.write_table(args.summary, table)
    run.write_beside(args.summary)
    console.say(f"{args.summary}: {len(table)} rows")


if __name__ == "__main__":
    console.run(main)
