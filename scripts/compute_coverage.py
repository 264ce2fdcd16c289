"""Compute how much of an explored space a set of frames covers, and name the explored frames worth labelling next."""

import argparse
from pathlib import Path

from hopline import console, files, frames, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--explored", type=Path, required=True, help="features of the explored pool (.npy)")
    parser.add_argument("--explored-frames", type=Path, required=True, help="its frames (extended XYZ)")
    parser.add_argument(
        "--candidates", type=Path, required=True, help="features the selection was made from (.npy)"
    )
    parser.add_argument("--selection", type=Path, required=True, help="picks among the candidates (CSV)")
    parser.add_argument("--bins", type=int, required=True, help="bins along each principal component")
    parser.add_argument(
        "--next-frames", type=int, required=True, help="number of frames worth labelling to name"
    )
    parser.add_argument("--coverage", type=Path, required=True, help="JSON to write")
    parser.add_argument(
        "--map", type=Path, required=True, help="CSV of weighted components to write, for plots"
    )
    parser.add_argument("--next-selection", type=Path, required=True, help="CSV of explored rows to write")
    return parser.parse_args(argv)


def main() -> None:
    """Measure, and write the figures, the map and the next frames."""
    args = parse()
    run = provenance.start(vars(args), [args.explored, args.candidates, args.selection])
    import numpy as np
    import pandas as pd

    from hopline.sampling import coverage

    explored, candidates = files.read_array(args.explored), files.read_array(args.candidates)
    picks = files.read_table(args.selection, ["row"])["row"].to_numpy()
    pool = frames.read_frames(args.explored_frames)
    if len(pool) != len(explored):
        raise console.InputError(
            f"{args.explored_frames} has {len(pool)} frames, {args.explored} {len(explored)} rows"
        )
    if not set(picks) <= set(range(len(candidates))):
        raise console.InputError(f"{args.selection} picks rows that {args.candidates} does not have")
    found = coverage.cover(explored, candidates[picks], bins=args.bins)
    rows = coverage.worth_labelling(found, args.next_frames)
    files.write_json(
        args.coverage,
        {
            "coverage_score": found.score,
            "coverage_score_by_component": found.score_by_component,
            "novel_fraction": found.novel_fraction,
            "bins": args.bins,
            "components": len(found.score_by_component),
            "explained_variance": found.explained,
            "explained_variance_by_component": found.explained_by_component,
            "explored_frames": len(explored),
            "candidate_frames": len(candidates),
            "selected_frames": len(picks),
        },
    )
    sets = {"explored": found.explored_points, "selected": found.covering_points}
    # where one component is kept, the second is zero
    padded = {name: np.pad(points, [(0, 0), (0, 1)])[:, :2] for name, points in sets.items()}
    parts = [pd.DataFrame(points, columns=["pc1", "pc2"]).assign(set=name) for name, points in padded.items()]
    table = pd.concat(parts, ignore_index=True)
    table["composition"] = [atoms.info.get("composition", "") for atoms in pool] + [""] * len(picks)
    table["novelty"] = [*found.novelty, *np.zeros(len(picks))]
    following = pd.DataFrame({"row": rows, "frame_id": [frames.frame_id(pool[row]) for row in rows]})
    following = following.assign(cluster=-1, distance_to_centroid=found.novelty[rows])
    for path, frame in ((args.map, table), (args.next_selection, following)):
        files.write_table(path, frame)
    run.write_beside(args.coverage)
    console.say(
        f"coverage score {found.score:.3f}; {found.novel_fraction:.1%} of the explored frames lie beyond reach"
    )


if __name__ == "__main__":
    console.run(main)
