"""Collect the errors of all potentials on all test sets in one tidy table: energies in meV/atom, forces in meV/A."""

import argparse
from pathlib import Path

from hopline import console, files, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=f"{__doc__} One row for each system, potential and test set."
    )
    place = ".../{system}/potentials/{potential}"
    parser.add_argument("--cards", type=Path, nargs="*", default=[], help=f"{place}/card.json")
    parser.add_argument(
        "--evaluations", type=Path, nargs="*", default=[],
        help=f"{place}/evaluation.json and {place}/evaluations/{{test_set}}.json",
    )  # fmt: skip
    parser.add_argument("--table", type=Path, required=True, help="CSV to write")
    return parser.parse_args(argv)


def main() -> None:
    """Read, tabulate, write."""
    args = parse()
    run = provenance.start(vars(args), [*args.cards, *args.evaluations])
    from hopline.report.evaluations import compare

    table = compare(args.cards, args.evaluations)
    files.write_table(args.table, table, digits=6)
    run.write_beside(args.table)
    console.say(f"{args.table}: {len(table)} rows")


if __name__ == "__main__":
    console.run(main)
