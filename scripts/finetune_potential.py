"""Train a potential, from a parent or from scratch; what is written is one proven model with one head."""

import argparse
from pathlib import Path

from hopline import console, files, provenance, stopping
from hopline.finetuning import recipe as recipes
from hopline.potentials.card import Card, refuse_apart, write_card


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; which settings a strategy has: resources/presets/training.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="name of the potential in the config")
    parser.add_argument("--family", required=True, help="chgnet or mace")
    parser.add_argument("--strategy", required=True, help="what is trained, and on what (docs/potentials.md)")
    parser.add_argument("--parent", type=Path, help="card.json of the parent; none for scratch")
    for name, what in (("train", "training"), ("valid", "validation"), ("test", "held-out")):
        help_text = f"{what} frames (extended XYZ)" + (
            "; never trained on: a shared frame is refused" * (name == "test")
        )
        parser.add_argument(f"--{name}", type=Path, required=name != "test", help=help_text)
    parser.add_argument("--dataset", type=Path, required=True, help="dataset.json: atomic reference energies")
    parser.add_argument("--train-frames", type=int, help="train on so many of the frames only")
    parser.add_argument("--replay", type=Path, help="pre-training frames to replay (extended XYZ)")
    parser.add_argument("--replay-valid", type=Path, help="those that show what is forgotten while it trains")
    parser.add_argument("--replay-frames", type=int, help="replay so many of them only")
    parser.add_argument("--seed", type=int, required=True, help="seed of weights and batches")
    group = parser.add_argument_group("training settings (all that the strategy has)")
    for name, kind in recipes.setting_types().items():
        group.add_argument("--" + name.replace("_", "-"), type=kind, help=name.replace("_", " "))
    parser.add_argument(
        "--work",
        type=Path,
        required=True,
        help="folder that a killed training goes on from; removed at the end",
    )
    parser.add_argument("--model", type=Path, required=True, help="model file to write, in the card's folder")
    parser.add_argument("--card", type=Path, required=True, help="card.json to write")
    parser.add_argument("--training", type=Path, required=True, help="CSV of the learning curve to write")
    args = parser.parse_args(argv)
    refuse_apart(args.model, args.card)
    return args


def main() -> None:
    """Train, prove, export, describe."""
    args = parse()
    settings = {
        name: getattr(args, name) for name in recipes.setting_types() if getattr(args, name) is not None
    }
    recipe = recipes.make_recipe(args.family, args.strategy, settings)
    roles = ("train", "valid", "test", "dataset", "parent", "replay", "replay_valid")
    inputs = {role: getattr(args, role) for role in roles if getattr(args, role)}
    run = provenance.start(vars(args), inputs.values())
    from hopline.finetuning import loop, task

    sha256 = {role: run.inputs_sha256[str(path)] for role, path in inputs.items() if path.is_file()}
    made_of = recipes.as_dict(recipe) | {name: getattr(args, name) for name in ("strategy", "seed")}
    job = task.Task(
        sets=task.read_sets(
            inputs, family=args.family, train_frames=args.train_frames, replay_frames=args.replay_frames
        ),
        recipe=recipe, strategy=args.strategy, parent=task.read_parent(args.parent, args.family),
        dataset=files.read_json(args.dataset), seed=args.seed, folder=args.work,
        identity=made_of | sha256 | run.versions
        | {name: getattr(args, name) for name in ("family", "train_frames", "replay_frames")},
    )  # fmt: skip
    task.check(job)
    with stopping.stoppable(), loop.own_folder(args.work):
        outcome = task.trainer(args.family).run(job)
        outcome.save(args.model)
        with files.whole(args.training) as temporary:
            outcome.history.to_csv(temporary, index=False)
        card = Card(
            name=args.name, family=args.family, model_file=args.model.name, model_sha256=files.sha256(args.model),
            dtype=outcome.dtype, parent_card_sha256=sha256.get("parent"),
            dataset_sha256=sha256["dataset"], atom_energies_eV=outcome.atom_energies_eV,
            replay_sha256=sha256.get("replay"), frames=task.counts(job.sets),
            recipe=made_of | {"best_epoch": outcome.best_epoch}, proofs=outcome.proofs, versions=run.versions,
        )  # fmt: skip
        write_card(args.card, card)
        run.write_beside(args.card)
    best = outcome.history.set_index("epoch").loc[outcome.best_epoch]
    console.say(
        f"{args.card}: epoch {outcome.best_epoch}, force RMSE {best['valid_force_rmse_meV_per_A']:.1f} meV/A"
    )


if __name__ == "__main__":
    console.run(main)
