"""Assemble training, validation and test sets from labelled frames, with no frame or test trajectory shared.

With --published it also tells what somebody's own split of the data would have leaked.
"""

import argparse
from pathlib import Path

from hopline import console, files, frames, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--candidates", type=Path, required=True, help="labelled frames to train on")
    parser.add_argument(
        "--selection", type=Path, help="CSV of the candidates' frame ids to use; default: all"
    )
    parser.add_argument("--held-out", type=Path, required=True, help="labelled frames to test on")
    parser.add_argument(
        "--published", type=Path, nargs="+", default=[], help="files of a published split, one a set"
    )
    parser.add_argument(
        "--published-format", default="auto", help="their format, as ingest_labels.py takes it"
    )
    parser.add_argument(
        "--valid-fraction", type=float, required=True, help="share of each composition for validation"
    )
    parser.add_argument(
        "--gap-frames", type=int, required=True, help="frames of one trajectory this close are neighbours"
    )
    parser.add_argument("--atom-references", type=Path, help="JSON of isolated atoms; default: estimated")
    parser.add_argument("--seed", type=int, required=True, help="seed of the validation draw")
    for name in ("train", "valid", "test"):
        parser.add_argument(f"--{name}", type=Path, required=True, help="extended XYZ to write")
    parser.add_argument("--dataset", type=Path, required=True, help="JSON that describes the sets, to write")
    return parser.parse_args(argv)


def main() -> None:
    """Choose, split, check for leakage, and write."""
    args = parse()
    optional = [path for path in (args.selection, args.atom_references) if path]
    run = provenance.start(vars(args), [args.candidates, args.held_out, *optional, *args.published])
    from hopline import splits
    from hopline.finetuning import references
    from hopline.labels import sources

    chosen, test = frames.read_labelled(args.candidates), frames.read_labelled(args.held_out)
    if args.selection:
        wanted = set(files.read_table(args.selection, ["frame_id"])["frame_id"])
        chosen = [atoms for atoms in chosen if frames.frame_id(atoms) in wanted]
        if not chosen:
            raise console.InputError(f"{args.selection} names no frame of {args.candidates}")
    split = splits.hold_out_trajectories(
        chosen, fraction=args.valid_fraction, seed=args.seed, gap_frames=args.gap_frames
    )
    train, valid, dropped = (
        [chosen[row] for row in rows] for rows in (split.kept, split.held_out, split.dropped)
    )
    sets = {"train": train, "valid": valid, "test": test}
    splits.refuse_leakage(sets, gap_frames=args.gap_frames)
    published = sources.structures(args.published, file_format=args.published_format)
    isolated = files.read_json(args.atom_references) if args.atom_references else None
    description = {
        "frames": {name: len(part) for name, part in sets.items()},
        "frames_dropped_between_train_and_valid": len(dropped),
        "sources": {
            name: sorted({str(atoms.info.get("source")) for atoms in part}) for name, part in sets.items()
        },
        "level_of_theory": frames.level_of_theory(chosen + test),
        "energy_kind": test[0].info.get("energy_kind", frames.UNSTATED),
        **references.describe(train, [*valid, *test], isolated),
        "published_split": splits.published_leakage(published),
    }
    for name, path in (("train", args.train), ("valid", args.valid), ("test", args.test)):
        frames.write_frames(path, sets[name])
    sha256 = {name: files.sha256(getattr(args, name)) for name in sets}
    files.write_json(args.dataset, description | {"sha256": sha256})
    run.write_beside(args.dataset)
    for sentence in description["published_split"]:
        console.say(f"published split: {sentence}")
    where = f"; {len(dropped)} in none: {splits.where_from(dropped)}" if dropped else ""
    console.say(f"{args.dataset}: " + ", ".join(f"{len(part)} {name}" for name, part in sets.items()) + where)


if __name__ == "__main__":
    console.run(main)
