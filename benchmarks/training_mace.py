"""Time of MACE training as Hopline runs it, against ``mace_run_train``'s own epochs on the same objects.

By model, precision and batch size, with the time of a force call of what comes out.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import yaml  # noqa: E402
from ase import Atoms  # noqa: E402

from hopline import files, frames  # noqa: E402
from hopline.finetuning import mace_upstream, recipe  # noqa: E402
from hopline.finetuning.loop import run_epochs  # noqa: E402
from hopline.finetuning.mace import exported  # noqa: E402
from hopline.finetuning.references import choose_references  # noqa: E402
from hopline.potentials.mace import MaceCalculator  # noqa: E402

MODELS = {
    "16 channels, L=0": {"channels": 16, "max_L": 0, "max_ell": 3, "correlation": 3, "cutoff_A": 4.5},
    "64 channels, L=1": {"channels": 64, "max_L": 1, "max_ell": 3, "correlation": 3, "cutoff_A": 4.5},
}
CASES = [
    *(("16 channels, L=0", "float32", batch_size) for batch_size in (1, 2, 5, 10, 25)),
    ("16 channels, L=0", "float64", 5),
    ("64 channels, L=1", "float32", 5),
    ("64 channels, L=1", "float64", 5),
]
"""Model, precision, batch size."""
EPOCHS = 2
"""Timed at a time: short turns share what else the machine does."""
N_TRAIN, N_VALID, N_CALLS = 50, 10, 20


@dataclass(frozen=True)
class Seconds:
    """Of an epoch: by the clock, and of that outside upstream's own steps and validation, which both have alike."""

    epoch: float
    around: float


class Stopwatch:
    """Sums the time that a function takes, wherever it is called from."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Call the function."""
        started = time.perf_counter()
        try:
            return self.function(*args, **named)
        finally:
            self.seconds += time.perf_counter() - started


def timed(epochs: Callable[[int], object]) -> Seconds:
    """Return the seconds of an epoch of `EPOCHS`."""
    # by name: the package has a function of the same name in front of it
    upstreams = import_module("mace.tools.train")
    modules, names = (upstreams, mace_upstream), ("train_one_epoch", "evaluate")
    watches = {name: Stopwatch(getattr(upstreams, name)) for name in names}
    for module, name in product(modules, names):
        setattr(module, name, watches[name])
    started = time.perf_counter()
    try:
        epochs(EPOCHS)
    finally:
        seconds = time.perf_counter() - started
        for module, name in product(modules, names):
            setattr(module, name, watches[name].function)
    inside = sum(watch.seconds for watch in watches.values())
    return Seconds(seconds / EPOCHS, (seconds - inside) / EPOCHS)


def ours(built: Mapping[str, Any], n_epochs: int, folder: Path) -> None:
    """Train under `run_epochs`, checkpoints and curve included."""
    run_epochs(mace_upstream.Learner(built), folder, epochs=n_epochs, patience_epochs=10**6, identity={})


def bare(built: Mapping[str, Any], n_epochs: int) -> None:
    """Train under upstream's own loop, checkpoints and log included."""
    from mace.tools.train import train

    train(**{**built, "start_epoch": 0, "max_num_epochs": n_epochs, "patience": 10**6})


def force_call_ms(learner: mace_upstream.Learner, dtype: str, atoms: Atoms) -> float:
    """Return the milliseconds of a force call of the exported model, without stress, as in dynamics."""
    calculator = MaceCalculator(exported(learner.model), dtype=dtype, head=None)
    times = []
    for _ in range(N_CALLS):
        started = time.perf_counter()
        calculator.calculate(atoms, ["energy", "forces"])
        times.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times)


def main() -> None:
    """Time both in turns and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--training", type=Path, required=True, help="CSV to write")
    parser.add_argument("--rounds", type=int, default=15, help="times that both are run in turns (15)")
    args = parser.parse_args()
    presets = yaml.safe_load((ROOT / "resources" / "presets" / "training.yaml").read_text())
    labels = frames.read_labelled(ROOT / "resources" / "lif" / "labels.extxyz")
    train, valid = labels[:N_TRAIN], labels[N_TRAIN : N_TRAIN + N_VALID]
    rows = []
    for name, dtype, batch_size in CASES:
        settings = {
            **presets["mace"]["scratch"], **MODELS[name], "dtype": dtype, "batch_size": batch_size, "epochs": 1000,
            "atom_energies": "estimated",
        }  # fmt: skip
        with tempfile.TemporaryDirectory() as folder, mace_upstream.upstream(dtype, Path(folder)):
            built = mace_upstream.built(
                mace_upstream.Data(train, valid), recipe.make_recipe("mace", "scratch", settings), parent_file=None,
                atom_energies_eV=choose_references("estimated", {}, train), seed=1, folder=Path(folder),
            )  # fmt: skip
            # the first steps of a model compile its kernels
            bare(built, 1)
            pairs = []
            for number in range(args.rounds):
                run = partial(ours, built, folder=Path(folder, f"run-{number}"))
                pairs.append((timed(run), timed(partial(bare, built))))
            call_ms = force_call_ms(mace_upstream.Learner(built), dtype, valid[0])
        ratios = sorted(one.epoch / other.epoch for one, other in pairs)
        epochs_ms, around_ms = (
            [
                1e3 * statistics.median(getattr(turn, name) for turn in turns)
                for turns in zip(*pairs, strict=True)
            ]
            for name in ("epoch", "around")
        )
        rows.append(
            {
                "model": name, "dtype": dtype, "batch_size": batch_size,
                "threads": os.environ.get("OMP_NUM_THREADS", "all"),
                "hopline_ms_per_frame": round(epochs_ms[0] / N_TRAIN, 1),
                "mace_run_train_ms_per_frame": round(epochs_ms[1] / N_TRAIN, 1),
                "ratio": round(statistics.median(ratios), 3),
                "ratio_lower_quartile": round(ratios[len(ratios) // 4], 3),
                "ratio_upper_quartile": round(ratios[-1 - len(ratios) // 4], 3),
                "hopline_around_ms_per_epoch": round(around_ms[0], 1),
                "mace_run_train_around_ms_per_epoch": round(around_ms[1], 1),
                "overhead_percent": round(100 * (around_ms[0] - around_ms[1]) / epochs_ms[1], 2),
                "force_call_ms": round(call_ms, 1),
            }
        )  # fmt: skip
        print(rows[-1], file=sys.stderr)
        files.write_rows(args.training, list(rows[0]), rows)


if __name__ == "__main__":
    main()
