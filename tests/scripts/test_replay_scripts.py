"""Replay sets from the command line: fetched, selected, described; what cannot be is refused in one line."""

import json

import numpy as np
import pytest
from label_files import labelled_frames, write_mptrj
from small import call_script, refused

from hopline import files, frames
from hopline.finetuning.replay_pool import CORRECTED_ENERGY

SETS = ("train", "valid", "test")


def fetch(folder, source, sha256):
    return call_script(
        "fetch_replay", "--url", source.as_uri(), "--sha256", sha256, "--source", folder / "a.json"
    )


def select(folder, *sources, how="random", **changes):
    """Select a set into a folder."""
    settings = {
        "format": "auto", "stress": "required", "min-distance-A": 0.5, "max-force-eV-per-A": 50,
        "max-rejected-fraction": 0.2, "frames": 40, "valid-fraction": 0.1, "test-fraction": 0.2, "seed": 1,
        "select": how, **{name: folder / f"{name}.extxyz" for name in SETS}, "replay": folder / "replay.json",
    }  # fmt: skip
    flags = [word for name, value in {**settings, **changes}.items() for word in (f"--{name}", value)]
    return call_script("select_replay", "--source", *sources, *flags)


def read(folder):
    return {name: frames.read_labelled(folder / f"{name}.extxyz") for name in SETS}


@pytest.fixture
def mptrj(tmp_path):
    """An MPtrj of sixty materials with one frame each."""
    return write_mptrj(tmp_path, labelled_frames(60), tmp_path)


def test_from_the_download_to_the_sets(tmp_path, mptrj, capsys):
    assert fetch(tmp_path, mptrj, files.sha256(mptrj)) == 0
    assert files.read_json(tmp_path / "a.json.provenance.json")["settings"]["url"] == mptrj.as_uri()
    assert select(tmp_path, tmp_path / "a.json") == 0
    said = capsys.readouterr().err
    assert "of 60 fit frames (60 found); energies uncorrected and corrected" in said
    sets = read(tmp_path)
    assert [len(sets[name]) for name in SETS] == [28, 3, 9]
    for made in sets.values():
        for atoms in made:
            assert atoms.info[CORRECTED_ENERGY] == pytest.approx(atoms.info["REF_energy"] - 1.0, abs=1e-7)
            assert atoms.info["REF_stress"].shape == (9,)
    told = files.read_json(tmp_path / "replay.json")
    assert told["frames"] == {"train": 28, "valid": 3, "test": 9}
    assert told["sha256"]["test"] == files.sha256(tmp_path / "test.extxyz")
    assert (told["select"], told["elements"], told["frames_found"]) == ("random", ["F", "Li"], 60)
    inputs = files.read_json(tmp_path / "replay.json.provenance.json")["inputs_sha256"]
    assert inputs == {str(tmp_path / "a.json"): files.sha256(mptrj)}


def test_a_right_file_is_kept(tmp_path, mptrj, capsys):
    assert fetch(tmp_path, mptrj, files.sha256(mptrj)) == 0
    before = (tmp_path / "a.json").stat().st_mtime_ns
    assert fetch(tmp_path, mptrj, files.sha256(mptrj)) == 0
    assert (tmp_path / "a.json").stat().st_mtime_ns == before
    assert "there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sha256", "why"), [("0" * 64, "nothing was kept"), ("abc", "must be 64 hexadecimal digits")]
)
def test_a_wrong_hash_leaves_nothing(tmp_path, mptrj, capsys, sha256, why):
    assert why in refused(capsys, fetch(tmp_path / "new", mptrj, sha256))
    assert list((tmp_path / "new").glob("*")) == []


def test_the_same_seed_gives_the_same_files(tmp_path, mptrj):
    for name in "ab":
        (tmp_path / name).mkdir()
        assert select(tmp_path / name, mptrj) == 0
    for name in SETS:
        assert files.sha256(tmp_path / "a" / f"{name}.extxyz") == files.sha256(
            tmp_path / "b" / f"{name}.extxyz"
        )


def test_a_cut_off_file_is_refused_and_leaves_nothing(tmp_path, mptrj, capsys):
    content = mptrj.read_text()
    mptrj.write_text(content[: len(content) // 2])
    assert "cannot be read to its end" in refused(capsys, select(tmp_path, mptrj))
    assert sorted(path.name for path in tmp_path.iterdir()) == [mptrj.name]


def test_fewer_frames_than_asked_for_are_said(tmp_path, mptrj, capsys):
    assert select(tmp_path, mptrj, frames=1000) == 0
    assert "of 60 fit frames (60 found), 1000 were asked for" in capsys.readouterr().err


def test_rejected_frames_are_told_by_their_reason(tmp_path, mptrj, capsys):
    content = json.loads(mptrj.read_text())
    for number in (3, 4):
        content[f"mp-{number}"][f"mp-{number}-0-0"]["stress"] = None
    mptrj.write_text(json.dumps(content))
    assert select(tmp_path, mptrj) == 0
    assert f"rejected: 2 times no stress (first {mptrj} frame 3: no stress)" in capsys.readouterr().err
    (kind,) = files.read_json(tmp_path / "replay.json")["rejected"]
    assert (kind["reason"], kind["frames"]) == ("no stress", 2)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"how": "direct"}, "the selection direct needs an encoder and pool_frames"),
        ({"frames": 5}, "a replay set has 10 frames or more, 5 were asked for"),
        (
            {"how": "direct", "encoder": "chgnet", "pool-frames": 20},
            "pool_frames must be frames (40) or more: it is selected from",
        ),
        ({"any": "Mg"}, "none of the 60 frames of"),
        ({"test-fraction": 1.5}, "the share to hold out must lie between 0 and 1, got 1.5"),
        (
            {"how": "direct", "encoder": "m3gnet", "pool-frames": 50},
            "encoder 'm3gnet' is not known; there are chgnet",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(tmp_path, mptrj, capsys, changes, why):
    assert why in refused(capsys, select(tmp_path, mptrj, **changes))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["farthest-point", "direct"])
def test_real_frames_are_selected_by_chgnet_s_features(tmp_path, shared_data, how):
    source = shared_data / "mptrj" / "replay_100.xyz"
    flags = {"how": how, "frames": 30, "pool-frames": 60, "encoder": "chgnet"}
    assert select(tmp_path, source, **flags) == 0
    sets = read(tmp_path)
    assert [len(sets[name]) for name in SETS] == [21, 3, 6]
    from hopline.sampling import direct, encoders

    # picked to lie apart: farther from each other than as many at random
    assert select(tmp_path, source, frames=60) == 0
    pool = [atoms for made in read(tmp_path).values() for atoms in made]
    reduction = direct.fit_reduction(encoders.encode(pool, "chgnet"))
    spread = []
    for made in (sets["train"], pool[:21]):
        points = reduction.apply(encoders.encode(made, "chgnet"))
        distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
        np.fill_diagonal(distances, np.inf)
        spread.append(distances.min(axis=1).mean())
    assert spread[0] > spread[1]
