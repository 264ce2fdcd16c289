"""What CHGNet learns of LiF from few or many labels, and what it forgets, with and without replay frames.

Every step is a script of the workflow, run as the workflow runs it, so a run that was cut off goes on where it was.
"""

import argparse
import csv
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from strategies_mace import LABELS, ROOT, SHARED, call, errors, labelled_set, train

sys.path.insert(0, str(ROOT / "scripts"))

from hopline import files, frames

RUNS = (
    ("naive", 10, 10),
    ("naive", 30, 10),
    ("naive", None, 10),
    ("mixed-replay", None, 10),
    ("naive", 10, 40),
    ("naive", 30, 20),
    ("mixed-replay", 30, 10),
    ("mixed-replay", 10, 10),
)
"""Strategy, training frames (None: all) and epochs. Ten passes over the labels everywhere, so that replay and none
differ in nothing else; and more for the small sets without replay, to about as many steps as the replay takes."""
TEST_FRACTION, VALID_FRACTION = 0.10, 0.06
"""Of twelve trajectories two each: a hundred frames are left to train on."""
REPLAY_HELD_OUT = 0.05
FORGETTING_FRAMES, MOST_ATOMS = 60, 40
PUBLISHED_FRAMES, INTERSTITIAL_ATOMS = 15, 217
BEFORE = "zero-shot"


def shipped(folder: Path) -> Path:
    """Write CHGNet 0.3.0 as it ships, and return its folder."""
    if not (folder / "card.json").is_file():
        call("fetch_potential", {
            "name": "chgnet", "family": "chgnet", "weights": "0.3.0", "model": folder / "model.pt",
            "card": folder / "card.json",
        })  # fmt: skip
    return folder


def replay_set(folder: Path) -> Path:
    """Split the 100 MPtrj frames that carry corrected energies, most of them for training."""
    if not (folder / "replay.json").is_file():
        call("select_replay", {
            "source": SHARED / "mptrj" / "replay_100.xyz", "format": "auto", "stress": "required",
            "min_distance_A": 0.5, "max_force_eV_per_A": 50, "max_rejected_fraction": 0.2, "select": "random",
            "frames": 100, "valid_fraction": REPLAY_HELD_OUT, "test_fraction": REPLAY_HELD_OUT, "seed": 1,
            **{name: folder / f"{name}.extxyz" for name in ("train", "valid", "test")},
            "replay": folder / "replay.json",
        })  # fmt: skip
    return folder


def forgetting_set(path: Path, replay: Path) -> Path:
    """Write random MPtrj frames of few atoms, of no material or formula that the replay set has."""
    from hopline.finetuning.replay import material_of
    from hopline.finetuning.replay_pool import Elements, gather
    from hopline.labels.ingest import Limits

    if not path.is_file():
        pool = gather(
            [SHARED / "mptrj" / "mptrj-random-1k.xyz"], file_format="auto", elements=Elements(), most=1000, seed=1,
            limits=Limits(0.5, 50, float("inf"), require_stress=True), max_rejected_fraction=0.2,
        ).frames  # fmt: skip
        # MPtrj files name a frame by its material or by its calculation: the formula tells in any case
        used = [
            atoms
            for name in ("train", "valid", "test")
            for atoms in frames.read_labelled(replay / f"{name}.extxyz")
        ]
        names = {material_of(atoms) for atoms in used} | {_formula(atoms) for atoms in used}
        others = [
            atoms
            for atoms in pool
            if len(atoms) <= MOST_ATOMS and not {material_of(atoms), _formula(atoms)} & names
        ]
        frames.write_frames(path, others[:FORGETTING_FRAMES])
    return path


def published_set(path: Path) -> Path:
    """Write interstitial LiF frames of the published study, evenly over its file."""
    if not path.is_file():
        call("ingest_labels", {
            "source": SHARED / "lif" / "step_0_train.xyz", "system": "lif",
            "frames": path.with_name("published_accepted.extxyz"),
            "rejected": path.with_name("published_rejected.csv"),
        })  # fmt: skip
        accepted = frames.read_labelled(path.with_name("published_accepted.extxyz"))
        interstitial = [atoms for atoms in accepted if len(atoms) == INTERSTITIAL_ATOMS]
        rows = np.linspace(0, len(interstitial) - 1, PUBLISHED_FRAMES).round().astype(int)
        frames.write_frames(path, [interstitial[row] for row in rows])
    return path


def _formula(atoms: Any) -> str:
    return str(atoms.get_chemical_formula(empirical=True))


def row_of(folder: Path, tests: dict[str, Path], strategy: str, seconds: float) -> dict[str, Any]:
    """Return a row of the table, but for what is relative to the zero-shot."""
    card = json.loads((folder / "card.json").read_text())
    used = card["frames"] or {"train": 0, "replay": 0}
    curve = pd.read_csv(folder / "training.csv") if strategy != BEFORE else pd.DataFrame({"epoch": [0]})
    lif, kept = errors(folder, "lif", tests["lif"]), errors(folder, "forgetting", tests["forgetting"])
    row = {
        "strategy": strategy, "train_frames": used["train"], "replay_frames": used["replay"],
        "epochs": int(curve["epoch"].iloc[-1]), "best_epoch": card["recipe"].get("best_epoch", 0),
        "seconds": round(seconds),
        "lif_force_rmse_meV_per_A": round(lif["force_rmse_meV_per_A"], 1),
        "lif_force_mae_meV_per_A": round(lif["force_mae_meV_per_A"], 1),
        "lif_force_slope": round(lif["force_slope"], 3),
        "lif_energy_rmse_shift_removed_meV_per_atom": round(lif["energy_rmse_shift_removed_meV_per_atom"], 2),
        "lif_stress_rmse_GPa": round(lif["stress_rmse_GPa"], 3),
        "forgetting_frames": kept["n_frames"],
        "forgetting_force_rmse_meV_per_A": round(kept["force_rmse_meV_per_A"], 1),
        "forgetting_force_mae_meV_per_A": round(kept["force_mae_meV_per_A"], 1),
        "forgetting_over_zero_shot": None,
        "published_force_mae_meV_per_A": None, "published_force_slope": None,
    }  # fmt: skip
    # 217 atoms a frame: only the shipped model and those of all labels are asked
    if "published" in tests:
        far = errors(folder, "published", tests["published"])
        row["published_force_mae_meV_per_A"] = round(far["force_mae_meV_per_A"], 1)
        row["published_force_slope"] = round(far["force_slope"], 3)
    return row


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows so far."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.whole(path) as temporary, temporary.open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def main() -> None:
    """Train, evaluate, and write the table, a row at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strategies", type=Path, required=True, help="CSV to write")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "results" / "benchmarks" / "strategies_chgnet", help="models"
    )
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parent = shipped(args.folder / BEFORE)
    replay = replay_set(args.folder / "replay")
    data = labelled_set(
        args.folder / "data", LABELS["own"], test_fraction=TEST_FRACTION, valid_fraction=VALID_FRACTION
    )
    tests = {
        "lif": data / "test.extxyz",
        "forgetting": forgetting_set(args.folder / "forgetting.extxyz", replay),
        "published": published_set(args.folder / "published.extxyz"),
    }
    rows = [row_of(parent, tests, BEFORE, 0.0)]
    for strategy, n_train, epochs in RUNS:
        folder = args.folder / f"{strategy}-{n_train or 'all'}-{epochs}"
        inputs: dict[str, Any] = {"parent": parent / "card.json"}
        if n_train:
            inputs["train_frames"] = n_train
        if strategy != "naive":
            inputs |= {"replay": replay / "train.extxyz", "replay_valid": replay / "valid.extxyz"}
        seconds = train(folder, strategy, data, {"epochs": epochs}, family="chgnet", **inputs)
        asked = {name: path for name, path in tests.items() if n_train is None or name != "published"}
        rows.append(row_of(folder, asked, strategy, seconds))
        before = rows[0]["forgetting_force_rmse_meV_per_A"]
        rows[0]["forgetting_over_zero_shot"] = 1.0
        rows[-1]["forgetting_over_zero_shot"] = round(rows[-1]["forgetting_force_rmse_meV_per_A"] / before, 2)
        print(rows[-1], flush=True)
        write(args.strategies, rows)


if __name__ == "__main__":
    main()
