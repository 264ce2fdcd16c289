"""Evaluate a potential on labelled frames that it has not seen; energies in meV/atom, forces in meV/A."""

import argparse
from pathlib import Path

from hopline import console, files, frames, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--potential", type=Path, required=True, help="card.json of the potential")
    parser.add_argument("--test", type=Path, required=True, help="labelled frames (extended XYZ)")
    parser.add_argument(
        "--trained-on", type=Path, nargs="*", default=[],
        help="frames it or a parent of it was trained, validated or replayed on: such frames are left out of the test",
    )  # fmt: skip
    parser.add_argument("--mobile", required=True, help="mobile species, reported on its own")
    parser.add_argument("--evaluation", type=Path, required=True, help="JSON of errors to write")
    parser.add_argument(
        "--predictions", type=Path, required=True, help="CSV of reference and predicted to write"
    )
    return parser.parse_args(argv)


def main() -> None:
    """Evaluate and write figures and pairs."""
    args = parse()
    run = provenance.start(vars(args), [args.potential, args.test, *args.trained_on])
    test = frames.read_labelled(args.test)
    trained_on = {str(path): frames.read_frames(path) for path in args.trained_on}
    from hopline.finetuning import replay, replay_pool
    from hopline.potentials.calculator import load_calculator
    from hopline.potentials.card import read_card
    from hopline.potentials.evaluation import evaluate, told_reasons

    if any(replay_pool.CORRECTED_ENERGY in frame.info for frame in test):
        test = replay.energies_for(test, read_card(args.potential)[0].family)
    calculator = load_calculator(args.potential)
    evaluation = evaluate(calculator, test, mobile=args.mobile, trained_on=trained_on)
    test_sha256 = run.inputs_sha256[str(args.test)]
    files.write_json(args.evaluation, {"test_sha256": test_sha256, **evaluation.figures})
    files.write_table(args.predictions, evaluation.pairs, digits=6)
    run.write_beside(args.evaluation)
    figures = evaluation.figures
    told = {
        name: "unknown" if figures[name] is None else f"{figures[name]:.4g}"
        for name in ("force_rmse_meV_per_A", "force_slope", "energy_rmse_shift_removed_meV_per_atom")
    }
    if figures["n_frames_left_out"]:
        reasons = told_reasons(figures["left_out_because"])
        console.say(f"{figures['n_frames_left_out']} of {len(test)} frames left out: {reasons}")
    console.say(f"{args.evaluation}: {', '.join(f'{name} {value}' for name, value in told.items())}")


if __name__ == "__main__":
    console.run(main)
