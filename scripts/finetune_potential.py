"""Train a potential on a dataset: a fine-tune of a parent or a model from scratch; export its best epoch."""

import argparse
import tempfile
from pathlib import Path

from hopline import console, files, frames, provenance
from hopline.finetuning import recipe as recipes


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; training settings that are not given take the preset of family and strategy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="name of the potential in the config")
    parser.add_argument("--family", required=True, help="chgnet or mace")
    parser.add_argument("--strategy", required=True, help="naive (all weights of the parent) or scratch")
    parser.add_argument("--parent", type=Path, help="card.json of the parent (naive)")
    parser.add_argument("--train", type=Path, required=True, help="training frames (extended XYZ)")
    parser.add_argument(
        "--valid", type=Path, required=True, help="validation frames: they choose the best epoch"
    )
    parser.add_argument("--dataset", type=Path, required=True, help="dataset.json: atomic reference energies")
    parser.add_argument("--seed", type=int, required=True, help="seed of weights and batches")
    group = parser.add_argument_group("training settings (preset: see hopline/finetuning/recipe.py)")
    for name, kind in recipes.Recipe.__annotations__.items():
        group.add_argument("--" + name.replace("_", "-"), type=kind, help=name.replace("_", " "))
    parser.add_argument("--model", type=Path, required=True, help="model file to write, in the card's folder")
    parser.add_argument("--card", type=Path, required=True, help="card.json to write")
    parser.add_argument("--training", type=Path, required=True, help="CSV of the learning curve to write")
    return parser.parse_args(argv)


def main() -> None:
    """Train, export, describe."""
    args = parse()
    given = {
        name: getattr(args, name)
        for name in recipes.Recipe.__annotations__
        if getattr(args, name) is not None
    }
    recipe = recipes.make_recipe(args.family, args.strategy, given)
    run = provenance.start(
        vars(args), [path for path in (args.train, args.valid, args.dataset, args.parent) if path]
    )
    from hopline.potentials.card import Card, read_card, write_card

    dataset = files.read_json(args.dataset)
    if "atom_energies_eV" not in dataset:
        raise console.InputError(f"{args.dataset} has no atom_energies_eV: make it with assemble_dataset.py")
    if args.model.parent.resolve() != args.card.parent.resolve():
        raise console.InputError(
            f"--model and --card must be in one folder, got {args.model} and {args.card}"
        )
    args.model.parent.mkdir(parents=True, exist_ok=True)
    if args.family == "chgnet":
        from hopline.finetuning import chgnet as family
        from hopline.potentials import chgnet

        if not args.parent:
            raise console.InputError("strategy naive needs --parent")
        model, dtype = chgnet.load_model(read_card(args.parent)[1]), chgnet.DTYPE
        sets = [frames.read_labelled(path) for path in (args.train, args.valid)]
        trained, energies = family.train(model, *sets, recipe, args.seed), dataset["atom_energies_eV"]
        family.export(trained, args.model)
    else:
        from hopline.finetuning import mace as family

        dtype = family.DTYPE
        with tempfile.TemporaryDirectory(dir=args.model.parent) as folder:
            references_eV = dataset["atom_energies_eV"]
            trained = family.train(
                args.train, args.valid, references_eV, recipe, seed=args.seed, work_folder=folder
            )
            energies = trained.atom_energies_eV
            family.export(trained, args.model)
    with files.whole(args.training) as temporary:
        trained.history.to_csv(temporary, index=False)
    card = Card(
        name=args.name, family=args.family, model_file=args.model.name, model_sha256=files.sha256(args.model),
        dtype=dtype, parent_card_sha256=files.sha256(args.parent) if args.parent else None,
        dataset_sha256=files.sha256(args.dataset), atom_energies_eV=energies,
        recipe=recipes.as_dict(recipe)
        | {"strategy": args.strategy, "seed": args.seed, "best_epoch": trained.best_epoch},
        versions=run.record()["versions"],
    )  # fmt: skip
    write_card(args.card, card)
    run.write_beside(args.card)
    best = trained.history.set_index("epoch").loc[trained.best_epoch]
    console.say(
        f"{args.card}: epoch {trained.best_epoch}, force RMSE {best['valid_force_rmse_meV_per_A']:.1f} meV/A"
    )


if __name__ == "__main__":
    console.run(main)
