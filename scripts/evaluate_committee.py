"""Ask several potentials for the forces of the same frames; their deviations in meV/A, and the errors they foretell."""

import argparse
from pathlib import Path

from hopline import console, files, frames, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--potential", type=Path, nargs="+", required=True, help="card.json of each member, two or more"
    )
    parser.add_argument("--frames", type=Path, required=True, help="frames, labelled or not (extended XYZ)")
    parser.add_argument("--committee", type=Path, required=True, help="JSON of figures to write")
    parser.add_argument("--deviations", type=Path, required=True, help="CSV to write, one row a frame")
    return parser.parse_args(argv)


def main() -> None:
    """Ask and write."""
    args = parse()
    run = provenance.start(vars(args), [*args.potential, args.frames])
    if len({path.resolve() for path in args.potential}) < max(2, len(args.potential)):
        raise console.InputError("--potential: a committee needs two or more different members")
    asked = frames.read_frames(args.frames)
    from hopline.finetuning import committee
    from hopline.potentials.calculator import load_calculator
    from hopline.potentials.card import read_card

    cards = [read_card(path)[0] for path in args.potential]
    if differ_in := committee.differences(cards):
        console.say(
            f"the members differ in more than their seed ({', '.join(differ_in)}): what they disagree about is not "
            "the spread of one training alone"
        )
    members = [card.name for card in cards]
    found = committee.judge([load_calculator(path) for path in args.potential], asked, names=members)
    files.write_table(args.deviations, found.deviations, digits=6)
    files.write_json(args.committee, {"members": members, "differ_in": differ_in, **found.figures})
    run.write_beside(args.committee)
    console.say(
        f"{args.committee}: mean deviation {found.figures['mean_deviation_meV_per_A']:.1f} meV/A, "
        f"at most {found.figures['max_deviation_meV_per_A']:.1f} meV/A"
    )


if __name__ == "__main__":
    console.run(main)
