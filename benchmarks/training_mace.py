"""Time of an epoch of MACE training as Hopline runs it, against ``mace_run_train``'s own epochs on the same objects."""

import argparse
import csv
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

from hopline import frames  # noqa: E402
from hopline.finetuning import mace_upstream, recipe  # noqa: E402
from hopline.finetuning.loop import run_epochs  # noqa: E402
from hopline.finetuning.references import choose_references  # noqa: E402

MODELS = {
    "16 channels, L=0": {"channels": 16, "max_L": 0, "max_ell": 3, "correlation": 3, "cutoff_A": 4.5},
    "64 channels, L=1": {"channels": 64, "max_L": 1, "max_ell": 3, "correlation": 3, "cutoff_A": 4.5},
}
EPOCHS = {"16 channels, L=0": 6, "64 channels, L=1": 2}
N_TRAIN, N_VALID = 50, 10


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


def main() -> None:
    """Time both in turns and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--training", type=Path, required=True, help="CSV to write")
    parser.add_argument("--rounds", type=int, default=7, help="times that both are run in turns (7)")
    args = parser.parse_args()
    presets = yaml.safe_load((ROOT / "resources" / "presets" / "training.yaml").read_text())
    labels = frames.read_labelled(ROOT / "resources" / "lif" / "labels.extxyz")
    train, valid = labels[:N_TRAIN], labels[N_TRAIN : N_TRAIN + N_VALID]
    rows = []
    for name, model in MODELS.items():
        settings = {**presets["mace"]["scratch"], **model, "epochs": 1000, "atom_energies": "estimated"}
        with tempfile.TemporaryDirectory() as folder, mace_upstream.upstream("float32", Path(folder)):
            built = mace_upstream.built(
                mace_upstream.Data(train, valid), recipe.make_recipe("mace", "scratch", settings), parent_file=None,
                atom_energies_eV=choose_references("estimated", {}, train), seed=1, folder=Path(folder),
            )  # fmt: skip
            # the first steps of a model compile its kernels
            bare(built, 2)
            pairs = [
                (ours(built, EPOCHS[name], Path(folder, f"run-{number}")), bare(built, EPOCHS[name]))
                for number in range(args.rounds)
            ]
        ratios = [one / other for one, other in pairs]
        rows.append(
            {
                "model": name,
                "threads": os.environ.get("OMP_NUM_THREADS", "all"),
                "hopline_s_per_epoch": round(statistics.median(one for one, _ in pairs), 3),
                "mace_run_train_s_per_epoch": round(statistics.median(other for _, other in pairs), 3),
                "ratio": round(statistics.median(ratios), 3),
                "ratio_lowest": round(min(ratios), 3),
                "ratio_highest": round(max(ratios), 3),
            }
        )
        print(rows[-1], file=sys.stderr)
    with args.training.open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
