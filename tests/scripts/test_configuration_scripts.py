"""Structures, encoding, selection, coverage, hold-out and assembly, as a person would run them one by one."""

import numpy as np
import pandas as pd
import pytest
from small import call_script, labelled_set, refused, rocksalt_lif

from hopline import files, frames

BUILD = {
    "--prototype": ["rocksalt"], "--species": ["Li", "F"], "--lattice-constants-A": [4.08], "--supercell": [2, 1, 1],
    "--mobile": ["Li"], "--count": [1], "--system": ["lif"], "--composition": ["Li1"],
}  # fmt: skip


def flags(settings):
    return [part for flag, values in settings.items() for part in (flag, *values)]


def test_a_structure_is_built_and_leaves_its_trail(tmp_path):
    path = tmp_path / "structures" / "Li1.extxyz"
    assert call_script("build_structures", *flags(BUILD), "--structure", path) == 0
    atoms = frames.read_frames(path)[0]
    assert atoms.get_chemical_formula() == "F8Li9"
    assert (atoms.info["system"], atoms.info["composition"]) == ("lif", "Li1")
    trail = files.read_json(f"{path}.provenance.json")
    assert trail["script"] == "build_structures.py"
    assert trail["settings"]["count"] == 1


@pytest.mark.parametrize(
    ("flag", "values"),
    [
        ("--prototype", ["rocksolt"]), ("--species", ["Li"]), ("--species", ["Qq", "F"]), ("--count", [99]),
        ("--count", [-1]), ("--mobile", ["Qq"]), ("--lattice-constants-A", [-4]), ("--supercell", [0, 1, 1]),
    ],
)  # fmt: skip
def test_a_structure_that_cannot_be_is_refused(tmp_path, capsys, flag, values):
    status = call_script(
        "build_structures", *flags(BUILD | {flag: values}), "--structure", tmp_path / "a.extxyz"
    )
    refused(capsys, status)
    assert not (tmp_path / "a.extxyz").exists()


@pytest.fixture
def pool(tmp_path):
    """Twelve frames of two compositions with features of their own."""
    made = labelled_set(trajectories=3, frames_each=2)
    frames.write_frames(tmp_path / "pool.extxyz", made)
    np.save(tmp_path / "features.npy", np.random.default_rng(0).normal(size=(12, 5)))
    return made


def select(folder, **changes):
    settings = {
        "--features": folder / "features.npy", "--clusters": 4, "--per-cluster": 1,
        "--selection": folder / "selection.csv",
    } | changes  # fmt: skip
    return call_script("select_direct", *[part for pair in settings.items() for part in pair])


def test_a_selection_keeps_its_contract(tmp_path, pool):
    assert select(tmp_path, **{"--frames": tmp_path / "pool.extxyz"}) == 0
    table = pd.read_csv(tmp_path / "selection.csv")
    assert list(table.columns) == ["row", "frame_id", "cluster", "distance_to_centroid"]
    assert len(table) == 4
    assert table["row"].is_monotonic_increasing
    assert [frames.frame_id(pool[row]) for row in table["row"]] == table["frame_id"].tolist()
    assert (tmp_path / "selection.csv.provenance.json").exists()
    assert select(tmp_path) == 0
    assert pd.read_csv(tmp_path / "selection.csv")["row"].tolist() == table["row"].tolist()


@pytest.mark.parametrize(
    "changes",
    [{"--clusters": 0}, {"--threshold": -1.0}, {"--clusters": 7, "--per-cluster": 2}, {"--threshold": "nan"}],
)
def test_a_selection_that_cannot_be_is_refused(tmp_path, pool, capsys, changes):
    assert len(pool) == 12
    refused(capsys, select(tmp_path, **changes))
    assert not (tmp_path / "selection.csv").exists()


def test_a_pool_too_small_is_refused_with_what_can_be_done_about_it(tmp_path, pool, capsys):
    """Labels that somebody has do not grow by exploring longer."""
    too_many = {"--clusters": 13, "--frames": tmp_path / "pool.extxyz"}
    message = refused(capsys, select(tmp_path, **too_many))
    assert "the pool has 12 distinct frames, 13 were asked for: of labelled frames" in message
    assert "lower direct.frames, gap_frames or test_fraction of the dataset" in message
    assert "explore" not in message
    for atoms in pool:
        del atoms.arrays["REF_forces"]
    frames.write_frames(tmp_path / "pool.extxyz", pool)
    message = refused(capsys, select(tmp_path, **too_many))
    assert "13 were asked for: explore longer, or lower direct.frames of the dataset" in message
    assert "gap_frames" not in message


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY\x01\x00"])
def test_features_that_are_none_are_refused(tmp_path, capsys, content):
    (tmp_path / "features.npy").write_bytes(content)
    assert "features.npy" in refused(capsys, select(tmp_path))


def cover(folder, **changes):
    settings = {
        "--explored": folder / "features.npy", "--explored-frames": folder / "pool.extxyz",
        "--candidates": folder / "features.npy", "--selection": folder / "selection.csv",
        "--bins": 5, "--next-frames": 3,
        "--coverage": folder / "coverage.json", "--map": folder / "map.csv", "--next-selection": folder / "next.csv",
    } | changes  # fmt: skip
    return call_script("compute_coverage", *[part for pair in settings.items() for part in pair])


@pytest.mark.parametrize("n_features", [5, 1])
def test_coverage_names_what_is_worth_labelling(tmp_path, pool, n_features):
    np.save(tmp_path / "features.npy", np.random.default_rng(0).normal(size=(12, n_features)))
    assert select(tmp_path) == 0
    assert cover(tmp_path) == 0
    content = files.read_json(tmp_path / "coverage.json")
    assert 0 < content["coverage_score"] <= 1
    assert (content["explored_frames"], content["selected_frames"]) == (12, 4)
    following = pd.read_csv(tmp_path / "next.csv")
    picked = set(pd.read_csv(tmp_path / "selection.csv")["row"])
    assert len(following) == 3
    assert not picked & set(following["row"])
    assert [frames.frame_id(pool[row]) for row in following["row"]] == following["frame_id"].tolist()
    points = pd.read_csv(tmp_path / "map.csv")
    assert points["set"].value_counts().to_dict() == {"explored": 12, "selected": 4}
    assert list(points.columns) == ["pc1", "pc2", "set", "composition", "novelty"]
    assert points[["pc1", "pc2", "novelty"]].notna().all(axis=None)


def test_coverage_of_what_does_not_fit_together_is_refused(tmp_path, pool, capsys):
    select(tmp_path)
    np.save(tmp_path / "short.npy", np.zeros((3, 5)))
    np.save(tmp_path / "narrow.npy", np.random.default_rng(0).normal(size=(12, 4)))
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "other.csv").write_text("colour\nred\n")
    capsys.readouterr()
    for changes in (
        {"--explored": tmp_path / "short.npy"}, {"--candidates": tmp_path / "short.npy"}, {"--bins": 0},
        {"--candidates": tmp_path / "narrow.npy"}, {"--selection": tmp_path / "empty.csv"},
        {"--selection": tmp_path / "other.csv"}, {"--selection": tmp_path / "none.csv"},
        {"--explored": tmp_path / "no.npy"},
    ):  # fmt: skip
        refused(capsys, cover(tmp_path, **changes))
    assert len(pool) == 12
    assert not (tmp_path / "coverage.json").exists()


def encode(folder, *paths):
    outputs = ["--features", folder / "out.npy", "--frames", folder / "out.extxyz"]
    return call_script("encode_frames", "--pool", *paths, "--encoder", "chgnet", "--system", "lif", *outputs)


def test_a_pool_is_encoded_once_whatever_the_order_of_its_files(tmp_path):
    made = [rocksalt_lif(seed=seed) for seed in range(4)]
    frames.write_frames(tmp_path / "a.extxyz", made[:3])
    frames.write_frames(tmp_path / "b.extxyz", made[2:])
    results = []
    for order in (("a", "b"), ("b", "a")):
        assert encode(tmp_path, *[tmp_path / f"{name}.extxyz" for name in order]) == 0
        results.append(np.load(tmp_path / "out.npy"))
    np.testing.assert_array_equal(results[0], results[1])
    assert results[0].shape == (4, 64)
    assert len(frames.read_frames(tmp_path / "out.extxyz")) == 4
    assert (tmp_path / "out.npy.provenance.json").exists()


def test_a_trajectory_whose_name_does_not_say_what_it_is_is_refused(tmp_path, capsys):
    from hopline.trajectory_writer import TrajectoryWriter

    atoms = rocksalt_lif()
    with TrajectoryWriter(tmp_path / "run.h5", atoms, frame_interval_ps=0.1) as writer:
        writer.append(
            atoms.positions, atoms.cell.array, step=0, time_ps=0.0, potential_energy_eV=0.0, kinetic_energy_eV=0.0,
            temperature_K=0.0,
        )  # fmt: skip
    assert "300K.h5" in refused(capsys, encode(tmp_path, tmp_path / "run.h5"))


def hold_out(folder, fraction=0.3, gap_frames=2):
    return call_script(
        "select_held_out", "--frames", folder / "accepted.extxyz", "--test-fraction", fraction, "--seed", 1,
        "--gap-frames", gap_frames, "--candidates", folder / "candidates.extxyz",
        "--held-out", folder / "held_out.extxyz",
    )  # fmt: skip


def assemble(folder, **changes):
    settings = {
        "--candidates": folder / "candidates.extxyz", "--held-out": folder / "held_out.extxyz", "--valid-fraction": 0.3,
        "--gap-frames": 2, "--seed": 1, "--train": folder / "train.extxyz", "--valid": folder / "valid.extxyz",
        "--test": folder / "test.extxyz", "--dataset": folder / "dataset.json",
    } | changes  # fmt: skip
    return call_script("assemble_dataset", *[part for pair in settings.items() for part in pair])


def test_labels_become_three_sets_that_share_no_trajectory(tmp_path, capsys):
    frames.write_frames(tmp_path / "accepted.extxyz", labelled_set(trajectories=5, level_of_theory="PBE"))
    assert hold_out(tmp_path) == 0
    assert assemble(tmp_path) == 0
    parts = {name: frames.read_labelled(tmp_path / f"{name}.extxyz") for name in ("train", "valid", "test")}
    assert sum(map(len, parts.values())) == 30
    sources = [{atoms.info["source"] for atoms in part} for part in parts.values()]
    assert not sources[0] & sources[1]
    assert not sources[0] & sources[2]
    assert not sources[1] & sources[2]
    dataset = files.read_json(tmp_path / "dataset.json")
    assert dataset["frames"] == {name: len(part) for name, part in parts.items()}
    assert dataset["level_of_theory"] == "PBE"
    assert sum(dataset["atom_energies_eV"].values()) * 4 == pytest.approx(-1.0)
    assert (tmp_path / "dataset.json.provenance.json").exists()
    assert (tmp_path / "held_out.extxyz.provenance.json").exists()
    capsys.readouterr()
    # a test that shares its trajectories with the training is refused
    shared = {"--held-out": tmp_path / "candidates.extxyz"}
    assert "both" in refused(capsys, assemble(tmp_path, **shared))


def test_only_selected_candidates_enter_the_sets(tmp_path, capsys):
    frames.write_frames(tmp_path / "accepted.extxyz", labelled_set(trajectories=5))
    hold_out(tmp_path)
    candidates = frames.read_frames(tmp_path / "candidates.extxyz")
    ids = [atoms.info["frame_id"] for atoms in candidates[::2]]
    (tmp_path / "selection.csv").write_text("\n".join(["row,frame_id", *[f"0,{one}" for one in ids], ""]))
    (tmp_path / "strange.csv").write_text("row,frame_id\n0,0123456789abcdef\n")
    (tmp_path / "isolated.json").write_text('{"energies_eV": {"Li": -1}}')
    assert assemble(tmp_path, **{"--selection": tmp_path / "selection.csv"}) == 0
    made = files.read_json(tmp_path / "dataset.json")["frames"]
    assert made["train"] + made["valid"] == len(ids)
    capsys.readouterr()
    strange = {"--selection": tmp_path / "strange.csv"}
    assert "names no frame" in refused(capsys, assemble(tmp_path, **strange))
    assert "lack F" in refused(
        capsys, assemble(tmp_path, **{"--atom-references": tmp_path / "isolated.json"})
    )
    refused(capsys, assemble(tmp_path, **{"--valid-fraction": 1.5}))


def test_one_trajectory_becomes_three_sets_that_keep_their_distance(tmp_path, capsys):
    made = labelled_set(trajectories=1, frames_each=60, compositions=("bulk",), level_of_theory="PBE")
    for place, atoms in enumerate(made):
        atoms.info["source_frame"] = place
    frames.write_frames(tmp_path / "accepted.extxyz", made)
    assert hold_out(tmp_path, fraction=0.2) == 0
    dropped = 60 - sum(
        len(frames.read_frames(tmp_path / f"{name}.extxyz")) for name in ("candidates", "held_out")
    )
    told = capsys.readouterr().err
    assert "12 frames held out: bulk/300K (12)" in told
    assert f"{dropped} in neither, beside or like one held out: bulk/300K ({dropped})" in told
    assert assemble(tmp_path, **{"--valid-fraction": 0.2}) == 0
    places = {
        name: [int(atoms.info["source_frame"]) for atoms in frames.read_frames(tmp_path / f"{name}.extxyz")]
        for name in ("train", "valid", "test")
    }
    for one, two in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert np.abs(np.subtract.outer(places[one], places[two])).min() > 2
    dataset = files.read_json(tmp_path / "dataset.json")
    total = sum(dataset["frames"].values()) + dataset["frames_dropped_between_train_and_valid"]
    assert total == 60 - dropped
    assert (
        f"{dataset['frames_dropped_between_train_and_valid']} in none: bulk/300K" in capsys.readouterr().err
    )
    # with a wider gap than was left around the test
    assert "within 9 frames of one of test" in refused(capsys, assemble(tmp_path, **{"--gap-frames": 9}))


def test_a_published_split_is_told_what_it_leaks(tmp_path, capsys):
    made = labelled_set(trajectories=5, compositions=("bulk",), level_of_theory="PBE")
    frames.write_frames(tmp_path / "accepted.extxyz", made)
    assert hold_out(tmp_path) == 0
    frames.write_frames(tmp_path / "their train.extxyz", made[:10])
    frames.write_frames(tmp_path / "their_valid.extxyz", made[8:])
    capsys.readouterr()
    settings = [tmp_path / "their train.extxyz", tmp_path / "their_valid.extxyz"]
    common = ["--candidates", tmp_path / "candidates.extxyz", "--held-out", tmp_path / "held_out.extxyz"]
    outputs = [
        part for name in ("train", "valid", "test") for part in (f"--{name}", tmp_path / f"{name}.extxyz")
    ]
    done = call_script(
        "assemble_dataset", *common, "--published", *settings, "--valid-fraction", 0.3, "--gap-frames", 2, "--seed", 1,
        *outputs, "--dataset", tmp_path / "dataset.json",
    )  # fmt: skip
    assert done == 0
    (sentence,) = files.read_json(tmp_path / "dataset.json")["published_split"]
    assert "their_valid.extxyz 2 are in" in sentence
    assert f"published split: {sentence}" in capsys.readouterr().err


def test_isolated_atoms_enter_the_dataset_and_must_be_of_its_level_of_theory(tmp_path, capsys):
    level = "PBE pw.x; 90/360 Ry; k 2x2x2+111; F 257f2c74; Li 624e3e05"
    made = labelled_set(trajectories=5, compositions=("bulk",), level_of_theory=level)
    for atoms in made:
        atoms.info["REF_energy"] = 4 * (-194.5 - 667.25) - 8 * 4.3
    frames.write_frames(tmp_path / "accepted.extxyz", made)
    assert hold_out(tmp_path) == 0
    content = {
        "energies_eV": {"Li": -194.5, "F": -667.25},
        "level_of_theory": {"Li": "PBE pw.x; 90/360 Ry; Li 624e3e05", "F": "PBE pw.x; 90/360 Ry; F 257f2c74"},
    }
    path = tmp_path / "atoms.json"
    files.write_json(path, content)
    assert assemble(tmp_path, **{"--atom-references": path}) == 0
    dataset = files.read_json(tmp_path / "dataset.json")
    assert dataset["isolated_atom_energies_eV"] == dataset["atom_energies_eV"] == content["energies_eV"]
    assert dataset["mean_binding_energy_eV_per_atom"] == pytest.approx(-4.3)
    capsys.readouterr()
    content["level_of_theory"]["F"] = "PBE pw.x; 80/320 Ry; F 257f2c74"
    files.write_json(path, content)
    line = refused(capsys, assemble(tmp_path, **{"--atom-references": path}))
    assert "the isolated F atom has another cutoff than the frames: 80/320 Ry, not 90/360 Ry" in line
    files.write_json(path, {"energies_eV": {"Li": -14.3, "F": -49.0}})
    assert "eV/atom on average" in refused(capsys, assemble(tmp_path, **{"--atom-references": path}))


def test_frames_that_cannot_be_split_are_refused(tmp_path, capsys):
    frames.write_frames(tmp_path / "accepted.extxyz", labelled_set(trajectories=1))
    assert "one trajectory only" in refused(capsys, hold_out(tmp_path))
    frames.write_frames(tmp_path / "accepted.extxyz", [rocksalt_lif()])
    assert "ingest it first" in refused(capsys, hold_out(tmp_path))
    (tmp_path / "accepted.extxyz").unlink()
    refused(capsys, hold_out(tmp_path))
