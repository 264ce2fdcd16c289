"""Measure NVE on a GPU: milliseconds a step and microseconds an atom and step, from 65 to 2,001 atoms, in batches.

Mg with one H in MACE (random weights, the size of MACE-MP-0's medium: 128x0e + 128x1o, cutoff 6 A) and in CHGNet as
shipped, frames, checks and files included; beside it ASE's velocity Verlet with the stock calculators, which writes
nothing. Candidates run in turns. A machine without a GPU is told so and measures nothing, unless `--on-cpu` is given.
"""

import argparse
import contextlib
import importlib.util
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import numpy as np
from dynamics_engines import Turns, ase_step_ms, magnesium_hydride, random_mace, step_ms, write

from hopline import console

REPEATS = {
    65: (4, 4, 2),
    129: (4, 4, 4),
    251: (5, 5, 5),
    505: (6, 6, 7),
    1025: (8, 8, 8),
    2001: (10, 10, 10),
}
"""Atoms by repeats of the hcp cell of two, the hydrogen among them."""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atoms", type=int, nargs="+", default=list(REPEATS), choices=list(REPEATS))
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[1, 4, 16, 64], help="replicas (%(default)s)"
    )
    parser.add_argument("--most-atoms", type=int, default=40_000, help="of a whole batch (%(default)s)")
    parser.add_argument("--models", nargs="+", default=["mace", "chgnet"], choices=["mace", "chgnet"])
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (%(default)s)")
    parser.add_argument("--steps", type=int, default=40, help="steps a turn, ten at least (%(default)s)")
    parser.add_argument("--on-cpu", action="store_true", help="measure though there is no GPU")
    parser.add_argument("--dynamics", type=Path, help="CSV to write; without it: stdout only")
    return parser.parse_args(argv)


def calculators(model: str, folder: Path) -> tuple[dict[str, Any], Any]:
    """Return our calculators of a model by their acceleration, those that the machine has, and the stock one."""
    with contextlib.redirect_stdout(sys.stderr):
        if model == "chgnet":
            from chgnet.model.dynamics import CHGNetCalculator

            from hopline.potentials import chgnet

            shipped = partial(chgnet.load_shipped, "0.3.0")
            device = chgnet.best_device()
            return {"none": chgnet.ChgnetCalculator(shipped())}, CHGNetCalculator(
                shipped(), use_device=device
            )
        from mace.calculators import MACECalculator

        from hopline.potentials import mace

        path = folder / "medium.model"
        random_mace(path, hidden="128x0e + 128x1o", cutoff_A=6.0)
        ours = {"none": mace.load_calculator(path, dtype="float32", head=None)}
        if importlib.util.find_spec("cuequivariance_torch"):
            ours["cuequivariance"] = mace.load_calculator(
                path, dtype="float32", head=None, accelerate="cuequivariance"
            )
        theirs = MACECalculator(
            model_paths=str(path), device=str(ours["none"].device), default_dtype="float32"
        )
    return ours, theirs


def with_peak(measure: Callable[[], float], peaks_MB: list[float]) -> float:
    """Measure, and note the card's memory that it took besides the models (without a card 0)."""
    import torch

    on_card = torch.cuda.is_available()
    if on_card:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if on_card else 0
    found = measure()
    peaks_MB.append(((torch.cuda.max_memory_allocated() if on_card else 0) - before) / 2**20)
    return found


def sizes(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Return a line a model, size and batch: ours, per replica, and ASE's."""
    lines = []
    for model in args.models:
        ours, theirs = calculators(model, folder)
        for n_atoms in args.atoms:
            atoms = magnesium_hydride(REPEATS[n_atoms])
            batches = [n for n in args.batches if n * n_atoms <= args.most_atoms]
            cases = [(accelerate, n) for accelerate in ours for n in batches]
            peaks_MB: dict[Any, list[float]] = {case: [] for case in cases}
            candidates: dict[Any, Callable[[], float]] = {
                case: partial(
                    with_peak, partial(step_ms, atoms, ours[case[0]], case[1], args.steps), peaks_MB[case]
                )
                for case in cases
            }
            found = Turns(args.rounds).ms(
                candidates | {"ase": partial(ase_step_ms, atoms, theirs, args.steps)}
            )
            for accelerate, n in cases:
                each_ms, ase_ms = found[accelerate, n], found["ase"]
                line = {
                    "model": model, "accelerate": accelerate, "n_atoms": n_atoms, "batch": n,
                    "ms_per_step": f"{n * np.median(each_ms):.3f}",
                    "us_per_atom_and_step": f"{1e3 * np.median(each_ms) / n_atoms:.3f}",
                    "ase_ms_per_step": f"{np.median(ase_ms):.3f}",
                    "ratio_per_replica": f"{np.median(each_ms / ase_ms):.3f}",
                    "gpu_memory_MB": f"{max(peaks_MB[accelerate, n]):.0f}",
                }  # fmt: skip
                console.say(", ".join(f"{name} {value}" for name, value in line.items()))
                lines.append(line)
    return lines


def main() -> None:
    """Measure and write the table."""
    args = parse()
    import torch

    if not (torch.cuda.is_available() or args.on_cpu):
        console.say("torch sees no GPU here: nothing was measured")
        return
    with tempfile.TemporaryDirectory() as folder:
        lines = sizes(args, Path(folder))
    if args.dynamics:
        write(args.dynamics, lines)


if __name__ == "__main__":
    console.run(main)
