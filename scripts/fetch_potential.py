"""Fetch a potential as it is: write its model file, with one head, and its card."""

import argparse
from pathlib import Path

from hopline import console, files, provenance
from hopline.potentials.card import Card, refuse_apart, write_card


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
    refuse_apart(args.model, args.card)
    if args.sha256 and not args.foundation:
        raise console.InputError("--sha256 is that of --foundation, and there is none")
    return args


def main() -> None:
    """Export the weights and describe them."""
    args = parse()
    run = provenance.start(vars(args), [args.foundation] if args.foundation else [])
    recipe = {"weights": args.weights}
    if args.foundation:
        recipe["source_sha256"] = files.sha256(args.foundation)
        if args.sha256 and args.sha256.lower() != recipe["source_sha256"]:
            raise console.InputError(
                f"{args.foundation} has the SHA-256 {recipe['source_sha256']}, not {args.sha256}: it was not opened; "
                "correct the hash, or get the right file"
            )
    from hopline.potentials.calculator import family_module

    with files.whole(args.model) as temporary:
        dtype, head = family_module(args.family).export_weights(
            args.weights, temporary, source=args.foundation, head=args.head
        )
    card = Card(
        name=args.name,
        family=args.family,
        model_file=args.model.name,
        model_sha256=files.sha256(args.model),
        dtype=dtype,
        head=head,
        recipe=recipe | ({"head": head} if head else {}),
        versions=run.versions,
    )
    write_card(args.card, card)
    run.write_beside(args.card)
    console.say(f"{args.card}: {args.family} {args.weights}, as shipped")


if __name__ == "__main__":
    console.run(main)
