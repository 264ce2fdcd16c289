"""What fine-tuning strategies learn and what they forget: a small MACE trained on MPtrj frames, then fine-tuned on LiF.

Every step is a script of the workflow, run as the workflow runs it, so a run that was cut off goes on where it was.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ase.data import atomic_numbers, chemical_symbols

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from hopline import files  # noqa: E402

SHARED = ROOT.parent / "shared" / "data"
LABELS = {
    "own": [ROOT / "resources" / "lif" / "labels.extxyz"],
    "alghamdi-2026": [SHARED / "lif" / "step_0_train.xyz", SHARED / "lif" / "10-REF_train.xyz"],
}
"""17 atoms, Quantum ESPRESSO; and the published study's, 216 and 217 atoms, Quantum ESPRESSO at other settings."""
TRAIN_FRAMES = {"alghamdi-2026": 20}
"""Of large cells, so few that an epoch takes about as long as of the others."""
FOUNDATION = {
    "model": "MACE", "num_channels": 16, "max_L": 0, "r_max": 4.5, "max_ell": 2, "correlation": 2, "loss": "weighted",
    "energy_weight": 1, "forces_weight": 100, "stress_weight": 100, "compute_stress": True, "lr": 0.03, "batch_size": 3,
    "scheduler": "ExponentialLR", "lr_scheduler_gamma": 0.96, "clip_grad": 10, "ema_decay": 0.99,
    "default_dtype": "float32", "seed": 1, "patience": 1000, "eval_interval": 10, "device": "cpu",
    "energy_key": "REF_energy", "forces_key": "REF_forces", "stress_key": "REF_stress",
}  # fmt: skip
"""A small model of many elements is slow to leave its random weights: a strong loss, and energies against isolated
atoms, which push all weights one way, get it going (with estimated references it learned nothing in 900 steps)."""
ELEMENTS = ["Li", "F", "O", "Co", "Mn", "Ni", "Fe", "V", "Cr", "Ti", "P", "Mg", "Na"]
"""Of a thousand MPtrj frames some hundred have no other: as many as two cores train a small model on in minutes."""
FINETUNING = {
    "learning_rate": 0.005, "ema_decay": 0.99, "max_gradient_norm": 10, "dtype": "float32",
    "atom_energies": "estimated",
}  # fmt: skip
"""One learning rate for all, that of a small model, so that what differs is the strategy; else the presets."""
STRATEGIES = ("naive", "freeze", "lora", "replay")
NONE, FORCE_RMSE = "none", "force_rmse_meV_per_A"


def call(script: str, flags: Mapping[str, Any]) -> None:
    """Run a script of the workflow; what it says goes to stderr."""
    words = [sys.executable, str(ROOT / "scripts" / f"{script}.py")]
    for name, value in flags.items():
        values = value if isinstance(value, list | tuple) else [value]
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    subprocess.run(words, check=True)


def replay_set(folder: Path, n_frames: int) -> Path:
    """Split MPtrj frames by material: the foundation learns ``train`` and ``test``, only ``train`` is replayed.

    So ``test`` shows what is forgotten of what was known.
    """
    if not (folder / "learnt.extxyz").is_file():
        sets = {name: folder / f"{name}.extxyz" for name in ("train", "valid", "test")}
        call("select_replay", {
            "source": SHARED / "mptrj" / "mptrj-random-1k.xyz", "format": "auto", "stress": "required",
            "min_distance_A": 0.5, "max_force_eV_per_A": 10, "max_rejected_fraction": 0.5, "select": "random",
            "only": ELEMENTS, "frames": n_frames, "valid_fraction": 0.15, "test_fraction": 0.4, "seed": 1, **sets,
            "replay": folder / "replay.json",
        })  # fmt: skip
        (folder / "learnt.extxyz").write_text(sets["train"].read_text() + sets["test"].read_text())
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


def train_foundation(folder: Path, learnt: Path, n_epochs: int) -> float:
    """Train the foundation by ``mace_run_train`` and return the seconds that it took; one that is there is kept.

    A hundred frames teach nothing on other materials, so validation on those would keep the model of an early epoch,
    which has nothing to forget: it is validated on its own training frames, which Hopline's training refuses.
    """
    if not (folder / "card.json").is_file():
        started = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        numbers = {
            atomic_numbers[symbol]: energy
            for symbol, energy in isolated_atoms().items()
            if symbol in ELEMENTS
        }
        settings = {
            **FOUNDATION, "name": "upstream", "max_num_epochs": n_epochs, "E0s": numbers, "work_dir": folder,
            "train_file": learnt, "valid_file": learnt,
        }  # fmt: skip
        flags = [f"--{name}={value}" for name, value in settings.items()]
        subprocess.run([sys.executable, "-m", "mace.cli.run_train", "--ema", *flags], check=True)
        call("fetch_potential", {
            "name": "foundation", "family": "mace", "weights": "upstream", "foundation": folder / "upstream.model",
            "model": folder / "trained.pt", "card": folder / "card.json",
        })  # fmt: skip
        (folder / "seconds.json").write_text(json.dumps(time.monotonic() - started))
    return float(json.loads((folder / "seconds.json").read_text()))


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
    parser.add_argument("--epochs", type=int, default=40, help="epochs of each fine-tuning (40)")
    parser.add_argument(
        "--labels", nargs="+", default=[*LABELS], help="labels to fine-tune on (own alghamdi-2026)"
    )
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    mptrj = replay_set(args.folder / "mptrj", args.frames)
    foundation = args.folder / "foundation"
    train_foundation(foundation, mptrj / "learnt.extxyz", args.foundation_epochs)
    known = {"replayed": mptrj / "train.extxyz", "not_replayed": mptrj / "test.extxyz"}
    before = {name: errors(foundation, name, path)[FORCE_RMSE] for name, path in known.items()}
    rows: list[dict[str, Any]] = []
    for labels in args.labels:
        data = labelled_set(args.folder / labels / "data", LABELS[labels])
        for strategy in (NONE, *STRATEGIES):
            folder, seconds = foundation, 0.0
            if strategy != NONE:
                folder = args.folder / labels / strategy
                inputs: dict[str, Any] = {"parent": foundation / "card.json"}
                if strategy == "replay":
                    inputs |= {"replay": mptrj / "train.extxyz", "replay_valid": mptrj / "valid.extxyz"}
                if labels in TRAIN_FRAMES:
                    inputs["train_frames"] = TRAIN_FRAMES[labels]
                seconds = train(folder, strategy, data, FINETUNING | {"epochs": args.epochs}, **inputs)
            learnt = errors(folder, f"lif-{labels}", data / "test.extxyz")
            row = {
                "labels": labels, "strategy": strategy, "seconds": round(seconds),
                "lif_force_rmse_meV_per_A": round(learnt[FORCE_RMSE], 1),
                "lif_force_slope": round(learnt["force_slope"], 3),
            }  # fmt: skip
            for name, path in known.items():
                kept = errors(folder, name, path)[FORCE_RMSE]
                row |= {
                    f"mptrj_{name}_force_rmse_meV_per_A": round(kept, 1),
                    f"mptrj_{name}_over_foundation": round(kept / before[name], 2),
                }
            rows.append(row)
            print(row, flush=True)
            files.write_rows(args.strategies, list(row), rows)


if __name__ == "__main__":
    main()
