"""Hold out trajectories of a labelled set for the test, or blocks of them; the rest are candidates for training."""

import argparse
from pathlib import Path

from hopline import console, frames, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=Path, required=True, help="accepted labelled frames (extended XYZ)")
    parser.add_argument(
        "--test-fraction", type=float, required=True, help="share of each composition to hold out"
    )
    parser.add_argument(
        "--gap-frames",
        type=int,
        required=True,
        help="frames to drop on each side of a cut trajectory's blocks",
    )
    parser.add_argument("--seed", type=int, required=True, help="seed of the draw")
    parser.add_argument("--candidates", type=Path, required=True, help="extended XYZ to write")
    parser.add_argument("--held-out", type=Path, required=True, help="extended XYZ to write")
    return parser.parse_args(argv)


def main() -> None:
    """Split by trajectory and write both parts."""
    args = parse()
    from hopline import splits

    run = provenance.start(vars(args), [args.frames])
    labelled = frames.read_labelled(args.frames)
    split = splits.hold_out_trajectories(
        labelled, fraction=args.test_fraction, seed=args.seed, gap_frames=args.gap_frames
    )
    held_out, dropped = ([labelled[row] for row in rows] for rows in (split.held_out, split.dropped))
    frames.write_frames(args.candidates, [labelled[row] for row in split.kept])
    frames.write_frames(args.held_out, held_out)
    run.write_beside(args.candidates, args.held_out)
    console.say(
        f"{len(split.kept)} candidates, {len(held_out)} frames held out: {splits.where_from(held_out)}"
    )
    if dropped:
        console.say(f"{len(dropped)} in neither, beside or like one held out: {splits.where_from(dropped)}")


if __name__ == "__main__":
    console.run(main)
