"""Measure how often a diffusivity's stated 95 % interval covers the truth, on random walks of known D."""

import argparse
import csv
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from hopline import console
from hopline.diffusion.estimate import estimate_diffusivity
from hopline.diffusion.replicas import ReplicaSource
from hopline.trajectories import Trajectory

LITHIUM, FLUORINE = 3, 9
N_HOST = 8
FRAME_INTERVAL_PS = 0.1
CELL_A = 12.0
STEP_A = 0.3
"""Gaussian walk: standard deviation of a step in each direction."""
JUMP_A, JUMPS_PER_FRAME, VIBRATION_A = 2.0, 0.02, 0.2
DRIFT_A_PER_FRAME = 0.05


def true_diffusivity_cm2_per_s(walk: str) -> float:
    """Return the D that ``make_walk`` was built with."""
    per_frame_A2 = STEP_A**2 / 2 if walk == "gaussian" else JUMPS_PER_FRAME * JUMP_A**2 / 6
    return per_frame_A2 / FRAME_INTERVAL_PS * 1e-4


def make_walk(*, walk: str, walkers: int, drift: bool, frames: int, seed: int) -> Trajectory:
    """Make walkers among vibrating host atoms; ``caged`` walkers jump on a lattice and vibrate on its sites.

    With ``drift`` host and walkers share a steady velocity and a random walk of their own.
    """
    rng = np.random.default_rng(seed)
    steps = rng.normal(scale=STEP_A, size=(frames, walkers, 3))
    if walk == "caged":
        jumps = rng.random((frames, walkers, 1)) < JUMPS_PER_FRAME
        axes = np.eye(3)[rng.integers(3, size=(frames, walkers))] * rng.choice(
            [-1, 1], size=(frames, walkers, 1)
        )
        steps = JUMP_A * jumps * axes
    mobile = np.cumsum(steps, axis=0) + rng.uniform(0, CELL_A, size=(walkers, 3))
    if walk == "caged":
        mobile += rng.normal(scale=VIBRATION_A, size=mobile.shape)
    sites = CELL_A / 2 * np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    host = np.broadcast_to(sites, (frames, N_HOST, 3))
    positions = np.concatenate([mobile, host], axis=1)
    if drift:
        common = np.cumsum(rng.normal(scale=STEP_A, size=(frames, 1, 3)) + DRIFT_A_PER_FRAME, axis=0)
        positions = positions + common
    return Trajectory(
        numbers=np.array([LITHIUM] * walkers + [FLUORINE] * N_HOST),
        masses_amu=np.array([6.94] * walkers + [18.998] * N_HOST),
        positions_A=positions.astype(np.float32),
        cells_A=np.broadcast_to(CELL_A * np.eye(3), (frames, 3, 3)),
        time_ps=np.arange(frames) * FRAME_INTERVAL_PS,
        observables={},
    )


def measure(*, walk: str, walkers: int, drift: bool, frames: int, replicas: int, seeds: int) -> list[object]:
    """Return one row of the table: covered seeds and widths relative to the true D."""
    truth = true_diffusivity_cm2_per_s(walk)
    covered, widths, values = 0, [], []
    for seed in range(seeds):
        sources = [
            ReplicaSource(
                f"replica-{row}",
                partial(
                    make_walk, walk=walk, walkers=walkers, drift=drift, frames=frames, seed=1000 * seed + row
                ),
            )
            for row in range(replicas)
        ]
        result, _ = estimate_diffusivity(sources, species="Li")
        low, high = result.interval_95_cm2_per_s or (0.0, 0.0)
        covered += low <= truth <= high
        widths.append((high - low) / truth)
        values.append((result.diffusivity_cm2_per_s or 0.0) / truth)
    shape = [walk, walkers, drift, frames, replicas, seeds]
    return [
        *shape,
        covered,
        *(f"{x:.4f}" for x in (covered / seeds, np.mean(widths), np.mean(values), np.std(values))),
    ]


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--coverage", type=Path, help="CSV to write (default: print)")
    parser.add_argument("--seeds", type=int, default=100, help="random walks per row (default: 100)")
    parser.add_argument("--frames", type=int, default=1000, help="frames per replica (default: 1000)")
    parser.add_argument(
        "--replicas", type=int, nargs="+", default=[3], help="replicas per estimate (default: 3)"
    )
    return parser.parse_args(argv)


def main() -> None:
    """Measure every kind of walk and write the table."""
    args = parse()
    header = ["walk", "walkers", "drift", "frames", "replicas", "seeds", "covered", "coverage"]
    header += ["mean_relative_width", "mean_relative_D", "standard_deviation_relative_D"]
    with args.coverage.open("w", newline="") if args.coverage else sys.stdout as file:
        out = csv.writer(file)
        out.writerow(header)
        for walk in ("gaussian", "caged"):
            for walkers in (1, 27):
                for drift in (False, True):
                    for replicas in args.replicas:
                        row = measure(
                            walk=walk, walkers=walkers, drift=drift, frames=args.frames, replicas=replicas,
                            seeds=args.seeds,
                        )  # fmt: skip
                        out.writerow(row)
                        file.flush()


if __name__ == "__main__":
    console.run(main)
