"""`finetune_potential.py`: its command line, and a training that is killed again and again."""

import os
import random
import re
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
from small import call_script, refused
from trainings import TINY_ARCHITECTURE, presets, sprung

from hopline import console, files, frames
from hopline.finetuning import loop, mace
from hopline.potentials.card import read_card

KILLS, EPOCHS = 5, 12
SEED = 7


def write_sets(folder):
    sets = {"train": sprung(12), "valid": sprung(4, first_seed=50), "test": sprung(3, first_seed=80)}
    for name, part in sets.items():
        frames.write_frames(folder / f"{name}.extxyz", part)
    files.write_json(folder / "dataset.json", {"atom_energies_eV": {}})
    return sets


def arguments(folder, out, **changes):
    """Return the flags of a small MACE from scratch in ``out``."""
    settings = presets()["mace"]["scratch"] | TINY_ARCHITECTURE
    settings |= {"epochs": EPOCHS, "batch_size": 4, "dtype": "float64", "atom_energies": "estimated"}
    flags = {f"--{name.replace('_', '-')}": value for name, value in settings.items()}
    flags |= {"--name": "small", "--family": "mace", "--strategy": "scratch", "--seed": 1}
    flags |= {f"--{name}": folder / f"{name}.extxyz" for name in ("train", "valid", "test")}
    flags |= {"--dataset": folder / "dataset.json", "--work": out / "work", "--model": out / "trained.pt"}
    flags |= {"--card": out / "card.json", "--training": out / "training.csv"}
    flags |= changes
    return [part for name, value in flags.items() if value is not None for part in (name, str(value))]


@pytest.mark.slow
def test_killed_five_times_it_ends_as_if_nothing_had_happened(tmp_path):
    """SIGKILL at a random moment of a random epoch: the same losses and the same weights, bit for bit (one thread)."""
    write_sets(tmp_path)
    rng = random.Random(SEED)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "scripts/finetune_potential.py"]
    subprocess.run([*command, *arguments(tmp_path, whole)], check=True, capture_output=True, env=environment)
    resumed = []
    for _ in range(KILLS):
        process = subprocess.Popen(
            [*command, *arguments(tmp_path, killed)], stderr=subprocess.PIPE, text=True, env=environment
        )
        for line in process.stderr:
            resumed += re.findall(r"going on after epoch (\d+)", line)
            if re.match(r"epoch \d+/", line):
                break
        time.sleep(rng.uniform(0.0, 0.6))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it ended before it was killed: more epochs"
        assert not (killed / "card.json").exists()
    last = subprocess.run(
        [*command, *arguments(tmp_path, killed)], check=True, capture_output=True, text=True, env=environment
    )
    resumed += re.findall(r"going on after epoch (\d+)", last.stderr)
    assert len(resumed) == KILLS
    assert [int(epoch) for epoch in resumed] == sorted({int(epoch) for epoch in resumed}), (
        "each attempt got further"
    )
    columns = [name for name in loop.HISTORY if name != "wall_time_s"]
    histories = [pd.read_csv(folder / "training.csv")[columns] for folder in (killed, whole)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    weights = [
        torch.load(read_card(folder / "card.json")[1], weights_only=False).state_dict()
        for folder in (killed, whole)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    assert not (killed / "work").exists()


@pytest.mark.slow
def test_asked_to_stop_it_keeps_its_epochs_and_says_how_to_go_on(tmp_path):
    write_sets(tmp_path)
    command = [
        sys.executable,
        "scripts/finetune_potential.py",
        *arguments(tmp_path, tmp_path / "out", **{"--epochs": 500}),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("epoch 2/"):
            break
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=120)
    assert process.returncode == 75
    assert "the same command goes on" in rest.splitlines()[-1]
    curve = pd.read_csv(tmp_path / "out" / "work" / "training.csv")
    assert len(curve) >= 3
    assert tuple(curve.columns) == loop.HISTORY


@pytest.mark.slow
def test_a_card_says_what_the_model_is_made_of(tmp_path):
    sets = write_sets(tmp_path)
    out = tmp_path / "a folder"
    assert (
        call_script("finetune_potential", *arguments(tmp_path, out, **{"--epochs": 2, "--train-frames": 8}))
        == 0
    )
    card, model = read_card(out / "card.json")
    assert model == out / "trained.pt"
    assert card.frames == {"train": 8, "valid": 4, "test": 3, "replay": 0, "replay_valid": 0}
    assert card.recipe["strategy"] == "scratch"
    assert card.recipe["epochs"] == 2
    assert "lora_rank" not in card.recipe
    assert card.proofs["frames_per_epoch"] == {"Default": 8}
    assert card.dataset_sha256 == files.sha256(tmp_path / "dataset.json")
    assert card.parent_card_sha256 is card.replay_sha256 is None
    assert set(card.atom_energies_eV) == {"Li", "F"}
    assert len(sets["train"]) == 12
    assert (out / "card.json.provenance.json").is_file()


@pytest.mark.slow
def test_a_model_file_that_is_not_what_was_trained_gets_no_card(tmp_path, capsys, monkeypatch):
    """A writer that rounds weights stands for a broken disk; the epochs are kept for the next attempt."""

    def write_rounded(path, model):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(parameter.half())
        files.write_tensors(path, model)

    write_sets(tmp_path)
    out = tmp_path / "out"
    monkeypatch.setattr(mace, "write_tensors", write_rounded)
    assert (
        call_script("finetune_potential", *arguments(tmp_path, out, **{"--epochs": 1}))
        == console.EXIT_BAD_INPUT
    )
    assert "trained.pt and the trained one differ by" in capsys.readouterr().err
    assert (out / "trained.pt").is_file()
    assert (out / "work" / loop.STATE).is_file()
    assert not (out / "card.json").exists()
    monkeypatch.undo()
    assert call_script("finetune_potential", *arguments(tmp_path, out, **{"--epochs": 1})) == 0
    assert "going on after epoch 1 of 1" in capsys.readouterr().err
    proofs = read_card(out / "card.json")[0].proofs
    assert proofs["written_vs_trained"]["eV_per_A"] < 1e-6


def test_a_training_that_cannot_be_is_refused_in_one_line(tmp_path, capsys):
    write_sets(tmp_path)
    frames.write_frames(tmp_path / "leaking.extxyz", [*sprung(3, first_seed=80), *sprung(4)])
    for changes, message in (
        ({"--strategy": "telepathy"}, "no way to train"),
        ({"--epochs": None}, "needs the settings epochs"),
        ({"--lora-rank": 4}, "lora_rank do nothing"),
        ({"--test": tmp_path / "leaking.extxyz"}, "in both train and test"),
        ({"--train-frames": 13}, "there are 12 training frames, 13 were asked for"),
        ({"--replay": tmp_path / "test.extxyz", "--test": None}, "knows no replay"),
        ({"--card": tmp_path / "elsewhere" / "card.json"}, "one folder"),
        ({"--dataset": tmp_path / "nothing.json"}, "does not exist"),
    ):
        out = tmp_path / "out"
        assert message in refused(
            capsys, call_script("finetune_potential", *arguments(tmp_path, out, **changes))
        )
        assert not (out / "card.json").exists()
