"""What CHGNet learns of LiF from few or many labels, and what it forgets, with and without replay frames.

Every step is a script of the workflow, run as the workflow runs it, so a run that was cut off goes on where it was.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from strategies_mace import LABELS, ROOT, SHARED, call, errors, labelled_set, train

sys.path.insert(0, str(ROOT / "scripts"))

from hopline import files, frames
from hopline.units import MEV_PER_EV

RUNS = (
    ("naive", 10, 10, 2e-3),
    ("naive", 30, 10, 2e-3),
    ("naive", None, 10, 2e-3),
    ("mixed-replay", None, 10, 2e-3),
    ("naive", 10, 40, 2e-3),
    ("mixed-replay", None, 10, 2e-4),
    ("naive", None, 10, 2e-4),
    ("naive", 30, 20, 2e-3),
    ("mixed-replay", 30, 10, 2e-3),
    ("mixed-replay", 10, 10, 2e-3),
)
"""Strategy, training frames (None: all), epochs and learning rate. Ten passes over the labels everywhere, so that
replay and none differ in nothing else; more for the small sets without replay, to about as many steps as the replay
takes; and a tenth of the published learning rate, as MACE's guidance has it for replay."""
TEST_FRACTION, VALID_FRACTION = 0.10, 0.06
"""Of twelve trajectories two each: a hundred frames are left to train on."""
REPLAY_HELD_OUT = {"valid_fraction": 0.08, "test_fraction": 0.05}
FORGETTING_FRAMES, MOST_ATOMS = 60, 40
PUBLISHED = {"step_0": ("step_0_train.xyz", 15), "10_ref": ("10-REF_train.xyz", 10)}
"""The published study's interstitial frames, at another DFT setting: hot ones, and some in cells 13 % smaller."""
INTERSTITIAL_ATOMS = 217
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
            "frames": 100, **REPLAY_HELD_OUT, "seed": 1,
            **{name: folder / f"{name}.extxyz" for name in ("train", "valid", "test")},
            "replay": folder / "replay.json",
        })  # fmt: skip
    return folder


def forgetting_set(path: Path, replay: Path) -> Path:
    """Write random MPtrj frames of few atoms, of no material or formula that the replay set has."""
    from hopline.finetuning.replay_pool import Elements, gather
    from hopline.finetuning.replay_split import material_of
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


def published_set(folder: Path, source: str, n_frames: int) -> Path:
    """Write interstitial LiF frames of the published study, evenly over one of its files."""
    if not (folder / "test.extxyz").is_file():
        call("ingest_labels", {
            "source": SHARED / "lif" / source, "system": "lif", "frames": folder / "accepted.extxyz",
            "rejected": folder / "rejected.csv",
        })  # fmt: skip
        accepted = frames.read_labelled(folder / "accepted.extxyz")
        interstitial = [atoms for atoms in accepted if len(atoms) == INTERSTITIAL_ATOMS]
        rows = np.linspace(0, len(interstitial) - 1, n_frames).round().astype(int)
        frames.write_frames(folder / "test.extxyz", [interstitial[row] for row in rows])
    return folder / "test.extxyz"


def _formula(atoms: Any) -> str:
    return str(atoms.get_chemical_formula(empirical=True))


def _median_over_frames(pairs: Path) -> float:
    """Return the median of the frames' force RMSE (meV/A): the RMSE of all is that of one or two strange frames."""
    forces = pd.read_csv(pairs).query("kind == 'force'")
    squares = (forces["predicted"] - forces["reference"]) ** 2
    return float(np.sqrt(squares.groupby(forces["frame_id"]).mean()).median() * MEV_PER_EV)


def row_of(folder: Path, tests: dict[str, Path], strategy: str) -> dict[str, Any]:
    """Return a row of the table, but for what is relative to the zero-shot."""
    card = json.loads((folder / "card.json").read_text())
    used = card["frames"] or {"train": 0, "replay": 0}
    # its clock goes on where a training that was cut off goes on
    trained = strategy != BEFORE
    last = pd.read_csv(folder / "training.csv").iloc[-1] if trained else {"epoch": 0, "wall_time_s": 0.0}
    lif, kept = errors(folder, "lif", tests["lif"]), errors(folder, "forgetting", tests["forgetting"])
    row = {
        "strategy": strategy, "train_frames": used["train"], "replay_frames": used["replay"],
        "learning_rate": card["recipe"].get("learning_rate"), "epochs": int(last["epoch"]),
        "best_epoch": card["recipe"].get("best_epoch", 0), "seconds": round(last["wall_time_s"]),
        "lif_force_rmse_meV_per_A": round(lif["force_rmse_meV_per_A"], 1),
        "lif_force_mae_meV_per_A": round(lif["force_mae_meV_per_A"], 1),
        "lif_force_slope": round(lif["force_slope"], 3),
        "lif_energy_rmse_shift_removed_meV_per_atom": round(lif["energy_rmse_shift_removed_meV_per_atom"], 2),
        "lif_stress_rmse_GPa": round(lif["stress_rmse_GPa"], 3),
        "forgetting_frames": kept["n_frames"],
        "forgetting_force_rmse_meV_per_A": round(kept["force_rmse_meV_per_A"], 1),
        "forgetting_force_mae_meV_per_A": round(kept["force_mae_meV_per_A"], 1),
        "forgetting_median_frame_rmse_meV_per_A": round(_median_over_frames(folder / "forgetting.csv"), 1),
        "forgetting_over_zero_shot": None,
    }  # fmt: skip
    # 217 atoms a frame: only the shipped model and those of all labels are asked
    for name in PUBLISHED:
        far = errors(folder, name, tests[name]) if name in tests else None
        row[f"{name}_force_mae_meV_per_A"] = far and round(far["force_mae_meV_per_A"], 1)
        row[f"{name}_force_slope"] = far and round(far["force_slope"], 3)
    return row


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
        **{name: published_set(args.folder / name, *which) for name, which in PUBLISHED.items()},
    }
    rows = [row_of(parent, tests, BEFORE) | {"forgetting_over_zero_shot": 1.0}]
    before = rows[0]["forgetting_force_rmse_meV_per_A"]
    for strategy, n_train, epochs, learning_rate in RUNS:
        folder = args.folder / f"{strategy}-{n_train or 'all'}-{epochs}-{learning_rate:g}"
        inputs: dict[str, Any] = {"parent": parent / "card.json"}
        if n_train:
            inputs["train_frames"] = n_train
        if strategy != "naive":
            inputs |= {"replay": replay / "train.extxyz", "replay_valid": replay / "valid.extxyz"}
        settings = {"epochs": epochs, "learning_rate": learning_rate}
        train(folder, strategy, data, settings, family="chgnet", **inputs)
        asked = {name: path for name, path in tests.items() if n_train is None or name not in PUBLISHED}
        rows.append(row_of(folder, asked, strategy))
        rows[-1]["forgetting_over_zero_shot"] = round(rows[-1]["forgetting_force_rmse_meV_per_A"] / before, 2)
        print(rows[-1], flush=True)
        files.write_rows(args.strategies, list(rows[0]), rows)


if __name__ == "__main__":
    main()
