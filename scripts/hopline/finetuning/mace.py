"""Training MACE with its own ``mace_run_train``, in a process and folder of its own.

Upstream's settings that do nothing or switch themselves on are stated here so that they cannot: multi-head
fine-tuning off, stage two off, E0s always given (Batatia et al., NeurIPS 2022; mace docs, fine-tuning guidance).
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ase import Atoms
from ase.data import atomic_numbers

from hopline.console import InputError, progress
from hopline.files import whole
from hopline.finetuning.recipe import HISTORY, Recipe
from hopline.finetuning.references import fit_atom_energies
from hopline.frames import ENERGY, FORCES, STRESS, labels_of, read_labelled
from hopline.potentials.mace import load_calculator
from hopline.units import MEV_PER_EV

DTYPE = "float32"
EMA_DECAY = 0.99
MAX_GRADIENT_NORM = 10.0
FINAL_LEARNING_RATE_RATIO = 0.02
"""The learning rate falls exponentially to this share of its start, since small sets are trained for few steps."""
POLL_INTERVAL_S = 1.0
NAME = "model"


@dataclass(frozen=True)
class Trained:
    """The best epoch of a training: the exported file, its epoch, and the history of all (columns HISTORY).

    ``atom_energies_eV`` are the model's references as they came to be: see ``move_references``.
    """

    model_file: Path
    best_epoch: int
    history: pd.DataFrame
    atom_energies_eV: dict[str, float]


def train(
    train_file: str | os.PathLike[str],
    valid_file: str | os.PathLike[str],
    atom_energies_eV: Mapping[str, float],
    recipe: Recipe,
    *,
    seed: int,
    work_folder: str | os.PathLike[str],
) -> Trained:
    """Train a MACE from random weights; MACE itself exports the epoch of lowest validation loss.

    Raises
    ------
    InputError
        If mace_run_train ends without a model; its log's last lines are in the message.
    """
    folder = Path(work_folder)
    log = folder / "mace_run_train.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mace.cli.run_train",
             *_flags(Path(train_file).resolve(), Path(valid_file).resolve(), atom_energies_eV, recipe, seed)],
            cwd=folder, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            for _ in progress(_epochs(process, folder), total=recipe.epochs, label="train", unit="epochs"):
                pass
        finally:
            process.terminate()
            process.wait()
    model = folder / f"{NAME}.model"
    history = read_history(folder)
    if not model.is_file() or history.empty:
        raise InputError(f"mace_run_train gave no model: {' '.join(log.read_text().split()[-60:])}")
    best = history["epoch"].to_numpy()[history["valid_loss"].to_numpy().argmin()]
    shifts_eV = move_references(model, read_labelled(train_file))
    moved_eV = {symbol: energy + shifts_eV.get(symbol, 0.0) for symbol, energy in atom_energies_eV.items()}
    return Trained(model, int(best), history[list(HISTORY)], moved_eV)


def move_references(model_file: str | os.PathLike[str], frames: Sequence[Atoms]) -> dict[str, float]:
    """Move a model file's atomic references by the residual E_label - E_model; return the shifts in eV.

    Forces say nothing about the energy between two compositions, and a loss that lives on forces leaves it where the
    training happened to: LiF with an interstitial came out 0.2 eV/atom off against bulk LiF. No force changes.
    """
    calculator = load_calculator(model_file, dtype=DTYPE, head=None)
    residual_eV = np.array(
        [labels_of(atoms).energy_eV - calculator.get_potential_energy(atoms) for atoms in frames]
    )
    shifts_eV = fit_atom_energies(frames, residual_eV)
    model = torch.load(model_file, map_location="cpu", weights_only=False)
    columns = model.atomic_numbers.tolist()
    with torch.no_grad():
        for symbol, shift_eV in shifts_eV.items():
            model.atomic_energies_fn.atomic_energies[..., columns.index(atomic_numbers[symbol])] += shift_eV
    torch.save(model, model_file)
    return shifts_eV


def export(trained: Trained, path: str | os.PathLike[str]) -> None:
    """Copy the exported model, whole or not at all."""
    with whole(path) as temporary:
        shutil.copyfile(trained.model_file, temporary)


def read_history(folder: str | os.PathLike[str]) -> pd.DataFrame:
    """Read MACE's log of losses and validation errors: one row an epoch, columns HISTORY and ``valid_loss``."""
    rows: dict[int, dict[str, Any]] = {}
    losses: dict[int, list[float]] = {}
    trained_s = 0.0
    for line in _log_lines(folder):
        if line.get("epoch") is None:
            continue
        epoch = int(line["epoch"]) + 1
        if line["mode"] == "opt":
            losses.setdefault(epoch, []).append(float(line["loss"]))
            trained_s += float(line.get("time", 0.0))
        else:
            rows[epoch] = {
                "epoch": epoch,
                "valid_loss": float(line["loss"]),
                "valid_energy_rmse_meV_per_atom": float(line["rmse_e_per_atom"]) * MEV_PER_EV,
                "valid_force_rmse_meV_per_A": float(line["rmse_f"]) * MEV_PER_EV,
                "wall_time_s": trained_s,
            }
    for epoch, row in rows.items():
        row["train_loss"] = sum(losses.get(epoch, [])) / max(1, len(losses.get(epoch, [])))
    return pd.DataFrame(list(rows.values()), columns=[*HISTORY, "valid_loss"])


def _epochs(process: "subprocess.Popen[bytes]", folder: Path) -> Iterator[int]:
    """Yield each epoch as MACE logs its validation, until the process ends."""
    seen = 0
    while True:
        ended = process.poll() is not None
        done = sum(line["mode"] == "eval" and line.get("epoch") is not None for line in _log_lines(folder))
        yield from range(seen, done)
        seen = done
        if ended:
            return
        time.sleep(POLL_INTERVAL_S)


def _log_lines(folder: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    for path in sorted(Path(folder, "results").glob(f"{NAME}_run-*_train.txt")):
        for line in path.read_text().splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:  # the line being written while we look
                return


def _flags(
    train: Path, valid: Path, atom_energies_eV: Mapping[str, float], recipe: Recipe, seed: int
) -> list[str]:
    energies = {atomic_numbers[symbol]: energy for symbol, energy in atom_energies_eV.items()}
    settings = {
        "name": NAME,
        "seed": seed,
        "train_file": train,
        "valid_file": valid,
        "energy_key": ENERGY,
        "forces_key": FORCES,
        "stress_key": STRESS,
        "E0s": repr(energies),
        "model": "MACE",
        "num_interactions": recipe.layers,
        "num_channels": recipe.channels,
        "max_L": recipe.max_L,
        "r_max": recipe.cutoff_A,
        "max_ell": recipe.max_ell,
        "correlation": recipe.correlation,
        "loss": "stress",
        "energy_weight": recipe.energy_weight,
        "forces_weight": recipe.force_weight,
        "stress_weight": recipe.stress_weight,
        "compute_stress": True,
        "error_table": "PerAtomRMSEstressvirials",
        "batch_size": recipe.batch_size,
        "valid_batch_size": recipe.batch_size,
        "max_num_epochs": recipe.epochs,
        "lr": recipe.learning_rate,
        "scheduler": "ExponentialLR",
        "lr_scheduler_gamma": FINAL_LEARNING_RATE_RATIO ** (1.0 / recipe.epochs),
        "weight_decay": 0.0,
        "ema_decay": EMA_DECAY,
        "clip_grad": MAX_GRADIENT_NORM,
        "default_dtype": DTYPE,
        "multiheads_finetuning": False,
        "plot": False,
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }
    # the universal short-range repulsion (ZBL) stands in where no label reaches: without it a potential trained on
    # little data lets two atoms fall into each other
    return [
        "--ema",
        "--save_cpu",
        "--pair_repulsion",
        *(f"--{name}={value}" for name, value in settings.items()),
    ]
