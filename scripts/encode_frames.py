"""Encode a pool of frames (trajectories or labelled sets) as one feature vector a frame."""

import argparse
import re
from pathlib import Path

from hopline import console, files, frames, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--pool", type=Path, nargs="+", required=True, help="trajectories (.h5) or frames (.extxyz)"
    )
    parser.add_argument("--encoder", required=True, help="name of the encoder, e.g. chgnet")
    parser.add_argument("--system", required=True, help="name of the system, kept with each frame")
    parser.add_argument(
        "--features", type=Path, required=True, help="NumPy array (n_frames, n_features) to write"
    )
    parser.add_argument(
        "--frames", type=Path, required=True, help="extended XYZ of the pool, a frame a row, to write"
    )
    return parser.parse_args(argv)


def read_pool(paths: list[Path], system: str) -> list:
    """Read every frame of the pool once; a trajectory's frames learn their source from its path."""
    pool = {}
    for path in paths:
        if path.suffix == ".h5":
            from hopline.trajectories import read_trajectory

            trajectory = read_trajectory(path)
            composition, temperature = path.parent.name, path.stem
            if not re.fullmatch(r"[0-9.]+K", temperature):
                raise console.InputError(f"{path} must be named COMPOSITION/TEMPERATURE.h5, e.g. Li1/300K.h5")
            found = [trajectory.atoms(row) for row in range(trajectory.n_frames)]
            for row, atoms in enumerate(found):
                atoms.arrays.pop("momenta", None)
                atoms.info |= {
                    "system": system,
                    "composition": composition,
                    "source": f"{composition}/{temperature}",
                    "source_frame": row,
                    "temperature_K": float(temperature.removesuffix("K")),
                }
        else:
            found = frames.read_frames(path)
        pool.update({frames.frame_id(atoms): atoms for atoms in found})
    # one order for every way of naming the files, so that float32 batches give the same features
    return [pool[frame_id] for frame_id in sorted(pool)]


def main() -> None:
    """Encode the pool and write features and frames, row for row."""
    args = parse()
    run = provenance.start(vars(args), args.pool)
    import numpy as np

    from hopline.sampling.encoders import encode

    pool = read_pool(args.pool, args.system)
    features = encode(pool, args.encoder)
    frames.write_frames(args.frames, pool)
    with files.whole(args.features) as temporary:
        np.save(temporary, features)
    run.write_beside(args.features)
    console.say(f"{args.features}: {features.shape[0]} frames x {features.shape[1]} features")


if __name__ == "__main__":
    console.run(main)
