"""Time of MACE training as Hopline runs it, against ``mace_run_train``'s own epochs on the same objects.

By model, precision and batch size, with the time of a force call of what comes out.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
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
    *(("16 channels, L=0", "float32", batch_size, 3) for batch_size in (1, 2, 5, 10, 25)),
    ("16 channels, L=0", "float64", 5, 3),
    ("64 channels, L=1", "float32", 5, 1),
    ("64 channels, L=1", "float64", 5, 1),
]
"""Model, precision, batch size, and the epochs that are timed at a time."""
N_TRAIN, N_VALID, N_CALLS = 50, 10, 20


def ours(built: Mapping[str, Any], n_epochs: int, folder: Path) -> float:
    """Return the seconds of an epoch under `run_epochs`, checkpoints and curve included."""
    started = time.perf_counter()
    run_epochs(mace_upstream.Learner(built), folder, epochs=n_epochs, patience_epochs=10**6, identity={})
    return (time.perf_counter() - started) / n_epochs


def bare(built: Mapping[str, Any], n_epochs: int) -> float:
    """Return the seconds of an epoch under upstream's own loop, checkpoints and log included."""
    from mace.tools.train import train

    started = time.perf_counter()
    train(**{**built, "start_epoch": 0, "max_num_epochs": n_epochs, "patience": 10**6})
    return (time.perf_counter() - started) / n_epochs


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
    parser.add_argument("--rounds", type=int, default=5, help="times that both are run in turns (5)")
    args = parser.parse_args()
    presets = yaml.safe_load((ROOT / "resources" / "presets" / "training.yaml").read_text())
    labels = frames.read_labelled(ROOT / "resources" / "lif" / "labels.extxyz")
    train, valid = labels[:N_TRAIN], labels[N_TRAIN : N_TRAIN + N_VALID]
    rows = []
    for name, dtype, batch_size, n_epochs in CASES:
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
            pairs = [
                (ours(built, n_epochs, Path(folder, f"run-{number}")), bare(built, n_epochs))
                for number in range(args.rounds)
            ]
            call_ms = force_call_ms(mace_upstream.Learner(built), dtype, valid[0])
        ratios = [one / other for one, other in pairs]
        rows.append(
            {
                "model": name,
                "dtype": dtype,
                "batch_size": batch_size,
                "threads": os.environ.get("OMP_NUM_THREADS", "all"),
                "hopline_ms_per_frame": round(1e3 * statistics.median(one for one, _ in pairs) / N_TRAIN, 1),
                "mace_run_train_ms_per_frame": round(
                    1e3 * statistics.median(two for _, two in pairs) / N_TRAIN, 1
                ),
                "ratio": round(statistics.median(ratios), 3),
                "ratio_lowest": round(min(ratios), 3),
                "ratio_highest": round(max(ratios), 3),
                "force_call_ms": round(call_ms, 1),
            }
        )
        print(rows[-1], file=sys.stderr)
    files.write_rows(args.training, list(rows[0]), rows)


if __name__ == "__main__":
    main()
