"""What fine-tuning strategies learn and what they forget: a small MACE trained on MPtrj frames, then fine-tuned on LiF.

Every step is a script of the workflow, run as the workflow runs it, so a run that was cut off goes on where it was.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ase.data import chemical_symbols

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
LABELS = {
    "own": [ROOT / "resources" / "lif" / "labels.extxyz"],
    "alghamdi-2026": [SHARED / "lif" / "step_0_train.xyz", SHARED / "lif" / "10-REF_train.xyz"],
}
"""17 atoms, Quantum ESPRESSO; and the published study's, 216 and 217 atoms, Quantum ESPRESSO at other settings."""
TRAIN_FRAMES = {"alghamdi-2026": 20}
"""Of large cells, so few that an epoch takes about as long as of the others."""
FOUNDATION = {
    "learning_rate": 0.03, "final_learning_rate_ratio": 0.05, "batch_size": 3, "loss": "mse", "energy_weight": 1,
    "force_weight": 100, "stress_weight": 100, "patience_epochs": 1000, "atom_energies": "isolated", "channels": 16,
    "max_L": 0, "cutoff_A": 4.5, "max_ell": 2, "correlation": 2,
}  # fmt: skip
"""A small model of many elements is slow to leave its random weights: a strong loss, and energies against isolated
atoms, which push all weights one way, get it going (with estimated references it learned nothing in 900 steps)."""
ELEMENTS = ["Li", "F", "O", "Co", "Mn", "Ni", "Fe", "V", "Cr", "Ti", "P", "Mg", "Na"]
"""Of a thousand MPtrj frames some hundred have no other: as many as two cores train a small model on in minutes."""
STRATEGIES = ("naive", "freeze", "lora", "replay")


def call(script: str, flags: Mapping[str, Any]) -> None:
    """Run a script of the workflow; what it says goes to stderr."""
    words = [sys.executable, str(ROOT / "scripts" / f"{script}.py")]
    for name, value in flags.items():
        values = value if isinstance(value, list | tuple) else [value]
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    subprocess.run(words, check=True)


def replay_set(folder: Path, n_frames: int) -> Path:
    """Split MPtrj frames by material: the foundation learns ``train`` and ``test``, only ``train`` is replayed.

    So ``test`` shows what is forgotten of what was known. (So few frames teach nothing on those that are held out.)
    """
    if not (folder / "learnt" / "dataset.json").is_file():
        sets = {name: folder / f"{name}.extxyz" for name in ("train", "valid", "test")}
        call("select_replay", {
            "source": SHARED / "mptrj" / "mptrj-random-1k.xyz", "format": "auto", "stress": "required",
            "min_distance_A": 0.5, "max_force_eV_per_A": 10, "max_rejected_fraction": 0.5, "select": "random",
            "only": ELEMENTS, "frames": n_frames, "valid_fraction": 0.15, "test_fraction": 0.4, "seed": 1, **sets,
            "replay": folder / "replay.json",
        })  # fmt: skip
        learnt = folder / "learnt"
        learnt.mkdir(exist_ok=True)
        (learnt / "train.extxyz").write_text(sets["train"].read_text() + sets["test"].read_text())
        (learnt / "valid.extxyz").write_text(sets["valid"].read_text())
        (learnt / "dataset.json").write_text(json.dumps({"isolated_atom_energies_eV": isolated_atoms()}))
    return folder


def isolated_atoms() -> dict[str, float]:
    """Return the isolated-atom energies of the Materials Project's settings."""
    by_number = json.loads((SHARED / "mptrj" / "mp_vasp_e0.json").read_text())["pbe"]
    return {chemical_symbols[int(number)]: energy for number, energy in by_number.items()}


def labelled_set(
    folder: Path, sources: Sequence[Path], *, test_fraction: float = 0.2, valid_fraction: float = 0.15
) -> Path:
    """Ingest labels of LiF, hold out trajectories for the test, and split the rest."""
    if not (folder / "dataset.json").is_file():
        split = {"gap_frames": 2, "seed": 1}
        call("ingest_labels", {
            "source": list(sources), "system": "lif", "frames": folder / "accepted.extxyz",
            "rejected": folder / "rejected.csv",
        })  # fmt: skip
        held_out = {"candidates": folder / "candidates.extxyz", "held_out": folder / "held_out.extxyz"}
        call(
            "select_held_out",
            {"frames": folder / "accepted.extxyz", "test_fraction": test_fraction, **split, **held_out},
        )
        sets = {name: folder / f"{name}.extxyz" for name in ("train", "valid", "test")}
        call(
            "assemble_dataset",
            {
                **held_out,
                "valid_fraction": valid_fraction,
                **split,
                **sets,
                "dataset": folder / "dataset.json",
            },
        )
    return folder


def train(
    folder: Path,
    strategy: str,
    data: Path,
    settings: Mapping[str, Any],
    *,
    family: str = "mace",
    **inputs: Any,
) -> float:
    """Train a potential by a strategy and return the seconds that it took; a model that is there is kept."""
    presets = yaml.safe_load((ROOT / "resources" / "presets" / "training.yaml").read_text())
    if not (folder / "card.json").is_file():
        started = time.monotonic()
        call("finetune_potential", {
            "name": folder.name, "family": family, "strategy": strategy, "seed": 1,
            **{name: data / f"{name}.extxyz" for name in ("train", "valid")}, "dataset": data / "dataset.json",
            **presets[family][strategy], **settings, **inputs, "work": folder / "work", "model": folder / "trained.pt",
            "card": folder / "card.json", "training": folder / "training.csv",
        })  # fmt: skip
        (folder / "seconds.json").write_text(json.dumps(time.monotonic() - started))
    return float(json.loads((folder / "seconds.json").read_text()))


def errors(folder: Path, name: str, test: Path) -> dict[str, Any]:
    """Return the errors of a model on a test set."""
    path = folder / f"{name}.json"
    if not path.is_file():
        call("evaluate_potential", {
            "potential": folder / "card.json", "test": test, "mobile": "Li", "evaluation": path,
            "predictions": folder / f"{name}.csv",
        })  # fmt: skip
    return dict(json.loads(path.read_text()))


def main() -> None:
    """Train, fine-tune, evaluate, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strategies", type=Path, required=True, help="CSV to write")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "results" / "benchmarks" / "strategies_mace", help="models"
    )
    parser.add_argument("--frames", type=int, default=200, help="MPtrj frames at most (200)")
    parser.add_argument("--foundation-epochs", type=int, default=80, help="epochs of the foundation (80)")
    parser.add_argument("--epochs", type=int, default=30, help="epochs of each fine-tuning (30)")
    parser.add_argument("--dtype", default="float32", help="float32 (default) or float64")
    parser.add_argument(
        "--labels", nargs="+", default=[*LABELS], help="labels to fine-tune on (own alghamdi-2026)"
    )
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    mptrj = replay_set(args.folder / "mptrj", args.frames)
    foundation = args.folder / "foundation"
    train(
        foundation,
        "scratch",
        mptrj / "learnt",
        {**FOUNDATION, "epochs": args.foundation_epochs, "dtype": args.dtype},
    )
    before = errors(foundation, "mptrj", mptrj / "test.extxyz")["force_rmse_meV_per_A"]
    rows = []
    for labels in args.labels:
        data = labelled_set(args.folder / labels / "data", LABELS[labels])
        for strategy in ("none", *STRATEGIES):
            folder, seconds = foundation, 0.0
            if strategy != "none":
                folder = args.folder / labels / strategy
                replay = {
                    "replay": mptrj / "train.extxyz", "replay_valid": mptrj / "valid.extxyz",
                }  # fmt: skip
                settings = {"epochs": args.epochs, "dtype": args.dtype, "atom_energies": "estimated"}
                if labels in TRAIN_FRAMES:
                    settings["train_frames"] = TRAIN_FRAMES[labels]
                seconds = train(
                    folder, strategy, data, settings, parent=foundation / "card.json",
                    **(replay if strategy == "replay" else {}),
                )  # fmt: skip
            learnt = errors(folder, f"lif-{labels}", data / "test.extxyz")
            kept = errors(folder, "mptrj", mptrj / "test.extxyz")["force_rmse_meV_per_A"]
            rows.append(
                {
                    "labels": labels,
                    "strategy": strategy,
                    "seconds": round(seconds),
                    "lif_force_rmse_meV_per_A": round(learnt["force_rmse_meV_per_A"], 1),
                    "lif_force_slope": round(learnt["force_slope"], 3),
                    "mptrj_force_rmse_meV_per_A": round(kept, 1),
                    "mptrj_over_foundation": round(kept / before, 2),
                }
            )
            print(rows[-1])
    args.strategies.parent.mkdir(parents=True, exist_ok=True)
    with args.strategies.open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
