"""Evaluate a potential on labelled frames of trajectories it has not seen; energies in meV/atom, forces in meV/A."""

import argparse
from pathlib import Path

from hopline import console, files, frames, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--potential", type=Path, required=True, help="card.json of the potential")
    parser.add_argument("--test", type=Path, required=True, help="labelled frames (extended XYZ)")
    parser.add_argument("--mobile", required=True, help="mobile species, reported on its own")
    parser.add_argument("--evaluation", type=Path, required=True, help="JSON of errors to write")
    parser.add_argument(
        "--predictions", type=Path, required=True, help="CSV of reference and predicted to write"
    )
    return parser.parse_args(argv)


def main() -> None:
    """Evaluate and write figures and pairs."""
    args = parse()
    run = provenance.start(vars(args), [args.potential, args.test])
    test = frames.read_labelled(args.test)
    from hopline.potentials.calculator import load_calculator
    from hopline.potentials.evaluation import evaluate

    evaluation = evaluate(load_calculator(args.potential), test, mobile=args.mobile)
    files.write_json(args.evaluation, evaluation.figures)
    with files.whole(args.predictions) as temporary:
        evaluation.pairs.to_csv(temporary, index=False, float_format="%.6g")
    run.write_beside(args.evaluation)
    figures = evaluation.figures
    console.say(
        f"{args.evaluation}: force RMSE {figures['force_rmse_meV_per_A']:.1f} meV/A, "
        f"slope {figures['force_slope']:.3f}, "
        f"energy RMSE {figures['energy_rmse_shift_removed_meV_per_atom']:.2f} meV/atom (shift removed)"
    )


if __name__ == "__main__":
    console.run(main)
