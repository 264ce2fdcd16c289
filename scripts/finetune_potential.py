"""Train a potential, from a parent or from scratch; what is written is one proven model with one head."""

import argparse
from pathlib import Path

import training_flags as flags
from hopline import console, files, provenance, stopping, work_folder
from hopline.finetuning.recipe import as_dict
from hopline.potentials.card import Card, refuse_apart, write_card


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--name", required=True, help="name of the potential in the config")
    add("--family", required=True, help="chgnet or mace")
    add("--strategy", required=True, help="what is trained, and on what (docs/potentials.md)")
    add("--parent", type=Path, help="card.json of the parent; none for scratch")
    add("--train", type=Path, required=True, help="training frames (extended XYZ)")
    add("--valid", type=Path, required=True, help="validation frames: they choose the best epoch")
    add("--test", type=Path, help="held-out frames: never trained on, a shared one is refused")
    add("--dataset", type=Path, required=True, help="dataset.json: atomic reference energies, eV")
    add("--train-frames", type=int, help="train on so many of the frames only")
    add("--replay", type=Path, help="pre-training frames to replay (extended XYZ)")
    add("--replay-valid", type=Path, help="those that show what is forgotten while it trains")
    add("--replay-frames", type=int, help="replay so many of them only")
    add("--seed", type=int, required=True, help="seed of weights and batches")
    flags.add_training(parser)
    add("--work", type=Path, required=True, help="folder a killed training goes on from; removed at the end")
    add("--model", type=Path, required=True, help="model file to write, in the card's folder")
    add("--card", type=Path, required=True, help="card.json to write")
    add("--training", type=Path, required=True, help="CSV of the learning curve to write")
    args = parser.parse_args(argv)
    refuse_apart(args.model, args.card)
    return args


def main() -> None:
    """Train, prove, export, describe."""
    args = parse()
    recipe = flags.recipe(args)
    roles = ("train", "valid", "test", "dataset", "parent", "replay", "replay_valid")
    inputs = {role: getattr(args, role) for role in roles if getattr(args, role)}
    run = provenance.start(vars(args), inputs.values())
    from hopline.finetuning import task

    sha256 = {role: run.inputs_sha256[str(path)] for role, path in inputs.items() if path.is_file()}
    made_of = as_dict(recipe) | {name: getattr(args, name) for name in ("strategy", "seed")}
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
    with stopping.stoppable(), work_folder.own_folder(args.work, outputs=[args.card, args.training]):
        outcome = task.trainer(args.family).run(job)
        proofs = {**outcome.proofs, **task.write_model(outcome, args.model, args.family)}
        files.write_table(args.training, outcome.history)
        card = Card(
            name=args.name, family=args.family, model_file=args.model.name, model_sha256=files.sha256(args.model),
            dtype=outcome.dtype, parent_card_sha256=sha256.get("parent"),
            dataset_sha256=sha256["dataset"], atom_energies_eV=outcome.atom_energies_eV,
            replay_sha256=sha256.get("replay"), frames=task.counts(job.sets),
            recipe=made_of | {"best_epoch": outcome.best_epoch}, proofs=proofs, versions=run.versions,
        )  # fmt: skip
        write_card(args.card, card)
        run.write_beside(args.card)
    best_meV_per_A = outcome.best("valid_force_rmse_meV_per_A")
    console.say(f"{args.card}: epoch {outcome.best_epoch}, force RMSE {best_meV_per_A:.1f} meV/A")


if __name__ == "__main__":
    console.run(main)
