"""Fetch a potential as shipped: write its model file and its card."""

import argparse
from pathlib import Path

from hopline import console, files, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="name of the potential in the config")
    parser.add_argument("--family", required=True, help="family: chgnet")
    parser.add_argument("--weights", required=True, help="shipped weights, e.g. 0.3.0")
    parser.add_argument("--model", type=Path, required=True, help="model file to write, in the card's folder")
    parser.add_argument("--card", type=Path, required=True, help="card.json to write")
    return parser.parse_args(argv)


def main() -> None:
    """Export the weights and describe them."""
    args = parse()
    run = provenance.start(vars(args), [])
    if args.family != "chgnet":
        raise console.InputError(
            f"family {args.family} ships no weights here; give a strategy and a dataset to train it"
        )
    if args.model.parent.resolve() != args.card.parent.resolve():
        raise console.InputError(
            f"--model and --card must be in one folder, got {args.model} and {args.card}"
        )
    from hopline.potentials import chgnet
    from hopline.potentials.card import Card, write_card

    with files.whole(args.model) as temporary:
        chgnet.export_shipped(args.weights, temporary)
    card = Card(
        name=args.name,
        family=args.family,
        model_file=args.model.name,
        model_sha256=files.sha256(args.model),
        dtype=chgnet.DTYPE,
        recipe={"weights": args.weights},
        versions=run.record()["versions"],
    )
    write_card(args.card, card)
    run.write_beside(args.card)
    console.say(f"{args.card}: {args.family} {args.weights}, as shipped")


if __name__ == "__main__":
    console.run(main)
