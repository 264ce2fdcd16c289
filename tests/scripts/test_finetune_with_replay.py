"""`finetune_potential.py` with replay frames: CHGNet on real labels, MPtrj frames mixed in."""

import pandas as pd
import pytest
from small import call_script
from trainings import presets

from hopline import console, files, frames
from hopline.potentials.calculator import load_calculator
from hopline.potentials.card import read_card
from hopline.potentials.evaluation import evaluate

pytestmark = pytest.mark.slow

SETS = ("train", "valid", "test")


def call(script, **flags):
    """Run a script with flags spelt as Python names; return its exit status."""
    return call_script(
        script, *[word for name, value in flags.items() for word in (f"--{name.replace('_', '-')}", value)]
    )


@pytest.fixture
def lif(tmp_path, repository):
    """Eleven of the project's LiF labels, of four trajectories; eight of them to train on."""
    labels = frames.read_labelled(repository / "resources" / "lif" / "labels.extxyz")
    for name, count, sources in (
        ("train", 4, ("bulk/1000K", "Li1/1000K")), ("valid", 2, ("Li1/700K",)), ("test", 1, ("bulk/700K",)),
    ):  # fmt: skip
        parts = [[atoms for atoms in labels if atoms.info["source"] == source][:count] for source in sources]
        frames.write_frames(tmp_path / f"{name}.extxyz", [atoms for part in parts for atoms in part])
    files.write_json(tmp_path / "dataset.json", {"atom_energies_eV": {}})
    return tmp_path


def mixed_replay(folder, source):
    """Make a replay set of sixteen frames of an MPtrj file and fine-tune CHGNet with it; return the exit status."""
    parent, replay, out = (folder / name for name in ("parent", "replay", "out"))
    selected = call(
        "select_replay", source=source, format="auto", stress="required", select="random", frames=16, seed=1,
        min_distance_A=0.5, max_force_eV_per_A=50, max_rejected_fraction=0.2, valid_fraction=0.1, test_fraction=0.1,
        replay=replay / "replay.json", **{name: replay / f"{name}.extxyz" for name in SETS},
    )  # fmt: skip
    fetched = call(
        "fetch_potential", name="chgnet", family="chgnet", weights="0.3.0", model=parent / "model.pt",
        card=parent / "card.json",
    )  # fmt: skip
    assert (selected, fetched) == (0, 0)
    return call(
        "finetune_potential", name="small", family="chgnet", strategy="mixed-replay", seed=1,
        **presets()["chgnet"]["mixed-replay"] | {"epochs": 2}, **{name: folder / f"{name}.extxyz" for name in SETS},
        dataset=folder / "dataset.json", parent=parent / "card.json", replay=replay / "train.extxyz",
        replay_valid=replay / "valid.extxyz", work=out / "work", model=out / "trained.pt", card=out / "card.json",
        training=out / "training.csv",
    )  # fmt: skip


def test_chgnet_replays_mptrj_frames_among_its_labels(lif, shared_data):
    assert mixed_replay(lif, shared_data / "mptrj" / "replay_100.xyz") == 0
    card, _ = read_card(lif / "out" / "card.json")
    assert card.frames == {"train": 8, "valid": 2, "test": 1, "replay": 11, "replay_valid": 1}
    assert card.proofs["frames_per_epoch"] == {"labels": 8, "replay": 11}
    assert card.replay_sha256 == files.sha256(lif / "replay" / "train.extxyz")
    curve = pd.read_csv(lif / "out" / "training.csv")
    assert curve["epoch"].tolist() == [0, 1, 2]
    # epoch 0 is the parent: its errors on both kinds of frames, by another way
    parent = load_calculator(lif / "parent" / "card.json")
    for column, path in (
        ("replay_force_rmse_meV_per_A", lif / "replay" / "valid.extxyz"),
        ("valid_force_rmse_meV_per_A", lif / "valid.extxyz"),
    ):
        known = evaluate(parent, frames.read_labelled(path), mobile="Li").figures["force_rmse_meV_per_A"]
        assert curve[column][0] == pytest.approx(known, rel=1e-3)
        assert curve[column].nunique() == 3
    assert curve["valid_loss"][2] < curve["valid_loss"][0]


def test_chgnet_refuses_replay_frames_without_corrected_energies(lif, shared_data, capsys):
    status = mixed_replay(lif, shared_data / "mptrj" / "mptrj-random-1k.xyz")
    said = capsys.readouterr().err.splitlines()[-1]
    assert status == console.EXIT_BAD_INPUT
    assert ": error: 13 of 13 replay frames have no corrected_energy" in said
    assert "chgnet follows energies with the Materials Project's corrections" in said
    assert not (lif / "out").exists()
