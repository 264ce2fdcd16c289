"""Fetch a potential as it is: write its model file, with one head, and its card."""

import argparse
from pathlib import Path

from hopline import console, files, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="name of the potential in the config")
    parser.add_argument("--family", required=True, help="chgnet or mace")
    parser.add_argument("--weights", required=True, help="what the config calls them, e.g. 0.3.0")
    parser.add_argument("--foundation", type=Path, help="mace: model file to take them from")
    parser.add_argument("--head", help="mace: head to take of a model with several")
    parser.add_argument("--sha256", help="mace: SHA-256 of the model file; another one is refused")
    parser.add_argument("--model", type=Path, required=True, help="model file to write, in the card's folder")
    parser.add_argument("--card", type=Path, required=True, help="card.json to write")
    args = parser.parse_args(argv)
    if args.model.parent.resolve() != args.card.parent.resolve():
        raise console.InputError(
            f"--model and --card must be in one folder, got {args.model} and {args.card}"
        )
    if (args.family == "mace") != (args.foundation is not None):
        raise console.InputError("--foundation is the model file of a mace, and of no other family")
    return args


def main() -> None:
    """Export the weights and describe them."""
    args = parse()
    run = provenance.start(vars(args), [args.foundation] if args.foundation else [])
    from hopline.potentials import shipped
    from hopline.potentials.card import Card, write_card

    taken = shipped.take(
        args.family, args.weights, foundation=args.foundation, head=args.head, sha256=args.sha256
    )
    with files.whole(args.model) as temporary:
        taken.save(temporary)
    card = Card(
        name=args.name,
        family=args.family,
        model_file=args.model.name,
        model_sha256=files.sha256(args.model),
        dtype=taken.dtype,
        head=taken.head,
        recipe=taken.recipe,
        versions=run.versions,
    )
    write_card(args.card, card)
    run.write_beside(args.card)
    console.say(f"{args.card}: {args.family} {args.weights}, as shipped")


if __name__ == "__main__":
    console.run(main)
