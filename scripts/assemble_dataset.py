"""Assemble training, validation and test sets from labelled frames, with no frame or test trajectory shared."""

import argparse
from pathlib import Path

from hopline import console, files, frames, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--candidates", type=Path, required=True, help="labelled frames to train on (extended XYZ)"
    )
    parser.add_argument(
        "--selection", type=Path, help="CSV of the candidates' frame ids to use; without it all are"
    )
    parser.add_argument(
        "--held-out", type=Path, required=True, help="labelled frames of the test trajectories"
    )
    parser.add_argument(
        "--valid-fraction", type=float, required=True, help="share of each composition for validation"
    )
    parser.add_argument(
        "--atom-references", type=Path, help="JSON of isolated-atom energies; without it: estimated"
    )
    parser.add_argument("--seed", type=int, required=True, help="seed of the validation draw")
    parser.add_argument("--train", type=Path, required=True, help="extended XYZ to write")
    parser.add_argument("--valid", type=Path, required=True, help="extended XYZ to write")
    parser.add_argument("--test", type=Path, required=True, help="extended XYZ to write")
    parser.add_argument("--dataset", type=Path, required=True, help="JSON that describes the sets, to write")
    return parser.parse_args(argv)


def main() -> None:
    """Choose, split, check for leakage, and write."""
    args = parse()
    inputs = [path for path in (args.candidates, args.held_out, args.selection, args.atom_references) if path]
    run = provenance.start(vars(args), inputs)
    from hopline.finetuning import references

    chosen, test = frames.read_labelled(args.candidates), frames.read_labelled(args.held_out)
    if args.selection:
        wanted = set(files.read_table(args.selection, ["frame_id"])["frame_id"])
        chosen = [atoms for atoms in chosen if frames.frame_id(atoms) in wanted]
        if not chosen:
            raise console.InputError(f"{args.selection} names no frame of {args.candidates}")
    kept, validating = frames.hold_out_trajectories(chosen, fraction=args.valid_fraction, seed=args.seed)
    sets = {
        "train": [chosen[row] for row in kept],
        "valid": [chosen[row] for row in validating],
        "test": test,
    }
    frames.refuse_leakage(sets)
    level = frames.level_of_theory(chosen + test)
    if args.atom_references:
        isolated = files.read_json(args.atom_references).get("energies_eV", {})
        atom_energies = references.choose_isolated(isolated, chosen)
    else:
        energies = [frames.labels_of(atoms).energy_eV for atoms in sets["train"]]
        atom_energies = references.fit_atom_energies(sets["train"], energies)
    for name, path in (("train", args.train), ("valid", args.valid), ("test", args.test)):
        frames.write_frames(path, sets[name])
    description = {
        "frames": {name: len(part) for name, part in sets.items()},
        "sources": {
            name: sorted({str(atoms.info.get("source")) for atoms in part}) for name, part in sets.items()
        },
        "level_of_theory": level,
        "energy_kind": test[0].info.get("energy_kind", frames.UNSTATED),
        "atom_energies_eV": atom_energies,
        "atom_energies_kind": "isolated atoms"
        if args.atom_references
        else "estimated from the training frames",
        "sha256": {name: files.sha256(getattr(args, name)) for name in sets},
    }
    files.write_json(args.dataset, description)
    run.write_beside(args.dataset)
    console.say(f"{args.dataset}: " + ", ".join(f"{len(part)} {name}" for name, part in sets.items()))


if __name__ == "__main__":
    console.run(main)
