"""Evaluation on further sets, the gate before the dynamics, and committees, as the rules call them."""

import numpy as np
import pandas as pd
import pytest
from ase.calculators.lj import LennardJones
from small import PairPotential, Springs, call_script, label, refused, rocksalt_lif

from hopline import files, frames

STABILITY = [
    "--min-barrier-eV", 3, "--scan-from-ratio", 0.3, "--scan-points", 40, "--hot-temperature-K", 300,
    "--hot-duration-ps", 0.02, "--timestep-fs", 1, "--frame-interval-fs", 5, "--friction-per-ps", 10, "--seed", 1,
]  # fmt: skip
SOFT = PairPotential(lambda r: 0.2 * np.exp(-r), lambda r: -0.2 * np.exp(-r))
"""Repulsive everywhere and nowhere by more than 0.2 eV."""


@pytest.fixture
def potential(tmp_path, monkeypatch):
    """Return a function that puts a calculator of a family in the place of a card, and the card's path."""
    known = {}
    monkeypatch.setattr("hopline.potentials.calculator.load_calculator", lambda path: known[path])

    def put(name, calculator, family="chgnet"):
        path = tmp_path / name / "card.json"
        card = {"name": name, "family": family, "model_file": "model.pt", "dtype": "float32"}
        (path.parent).mkdir()
        (path.parent / "model.pt").write_bytes(name.encode())
        files.write_json(path, card | {"model_sha256": files.sha256(path.parent / "model.pt")})
        known[path] = calculator
        return path

    return put


@pytest.fixture
def labelled(tmp_path):
    """Return the path of four labelled frames of two temperatures, energies of both kinds in them."""
    made = []
    for row in range(4):
        atoms = rocksalt_lif(rattle_A=0.03, seed=row)
        forces = np.random.default_rng(row).normal(size=(8, 3))
        energy_eV = 8.0 * row
        made.append(label(atoms, energy_eV=energy_eV, forces=forces, temperature_K=300.0 * (1 + row % 2)))
    path = tmp_path / "frames.extxyz"
    frames.write_frames(path, made)
    return path


def outputs(tmp_path):
    return tmp_path / "stability.json", tmp_path / "stability.csv"


def test_a_potential_with_walls_is_fit_to_be_run(tmp_path, potential, labelled, capsys):
    card = potential("mace", LennardJones(sigma=1.7, epsilon=0.1, rc=6.0))
    verdict, curves = outputs(tmp_path)
    arguments = ["--potential", card, "--train", labelled, "--stability", verdict, "--scan", curves]
    assert call_script("evaluate_stability", *arguments, *STABILITY) == 0
    found = files.read_json(verdict)
    assert found["hot_run"]["status"] == "finished"
    assert found["hot_run"]["temperature_K"] == 300
    assert len(found["walls"]) == 6
    assert found["lowest_barrier_eV"] > 3
    table = pd.read_csv(curves)
    assert table.columns.tolist() == ["pair", "surroundings", "distance_A", "energy_eV"]
    assert len(table) == 6 * 40
    assert (tmp_path / "stability.json.provenance.json").exists()
    assert "fit to be run" in capsys.readouterr().err


def test_one_without_walls_is_refused_with_its_figures(tmp_path, potential, labelled, capsys):
    verdict, curves = outputs(tmp_path)
    for path in (verdict, curves):
        path.write_text("{}")  # of an earlier model
    card = potential("mace", SOFT)
    arguments = ["--potential", card, "--train", labelled, "--stability", verdict, "--scan", curves]
    assert call_script("evaluate_stability", *arguments, *STABILITY) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert "card.json is not fit to be run: F-F in vacuum: 0.08 eV to climb from 1.14 A" in lines[-1]
    assert "at least 3 eV are wanted" in lines[-1]
    # the log names every pair on a line of its own
    assert sum(" eV to climb from " in line for line in lines[:-1]) == 6
    # Snakemake deletes the outputs of a rule that fails: what a user wants to see lies beside them
    kept = tmp_path / "stability.refused.csv"
    assert lines[-1].endswith(f"the curves of all pairs: {kept}")
    assert not verdict.exists()
    assert not curves.exists()
    table = pd.read_csv(kept)
    assert len(table) == 6 * 40
    pair = table.query("pair == 'F-F' and surroundings == 'vacuum'")
    # two atoms alone: 0.2 eV exp(-r), from the energy at the start
    known_eV = 0.2 * (np.exp(-pair["distance_A"]) - np.exp(-pair["distance_A"].iloc[0]))
    np.testing.assert_allclose(pair["energy_eV"], known_eV, atol=1e-5)


def test_one_that_is_fit_leaves_nothing_of_an_earlier_refusal(tmp_path, potential, labelled):
    verdict, curves = outputs(tmp_path)
    earlier = [tmp_path / f"stability.{name}" for name in ("refused.csv", "offending.extxyz")]
    for path in earlier:
        path.write_text("")
    card = potential("mace", LennardJones(sigma=1.7, epsilon=0.1, rc=6.0))
    arguments = ["--potential", card, "--train", labelled, "--stability", verdict, "--scan", curves]
    assert call_script("evaluate_stability", *arguments, *STABILITY) == 0
    assert not any(path.exists() for path in earlier)


def test_a_hot_run_that_explodes_refuses_the_potential_and_saves_the_frame(
    tmp_path, potential, labelled, capsys
):
    verdict, curves = outputs(tmp_path)
    card = potential("mace", LennardJones(sigma=1.7, epsilon=0.1, rc=6.0))
    arguments = ["--potential", card, "--train", labelled, "--stability", verdict, "--scan", curves]
    status = call_script("evaluate_stability", *arguments, *STABILITY, "--max-temperature-ratio", 0.01)
    assert status == 2
    assert "the run at 300 K exploded after 0 ps: temperature" in capsys.readouterr().err
    assert len(frames.read_frames(tmp_path / "stability.offending.extxyz")) == 1
    assert not verdict.exists()


def test_a_family_is_tested_on_the_energies_it_follows(tmp_path, potential, labelled):
    """Corrections of -8 eV a frame of eight atoms: one family is asked for them, the other is not."""
    frozen = Springs(np.zeros((8, 3)), stiffness=0.0)  # zero energy and forces everywhere
    corrected = frames.read_frames(labelled)
    for atoms in corrected:
        atoms.info["corrected_energy"] = atoms.info["REF_energy"] - 8.0
    frames.write_frames(labelled, corrected)
    errors = {}
    for family in ("chgnet", "mace"):
        card = potential(family, frozen, family)
        out = tmp_path / f"{family}.json"
        pairs = ["--evaluation", out, "--predictions", out.with_suffix(".csv")]
        arguments = ["--potential", card, "--test", labelled, "--mobile", "Li", *pairs]
        assert call_script("evaluate_potential", *arguments) == 0
        errors[family] = files.read_json(out)["energy_mae_meV_per_atom"]
    # 0, 1, 2, 3 eV/atom as they are, -1, 0, 1, 2 corrected
    assert errors == pytest.approx({"mace": 1500, "chgnet": 1000})


def test_frames_of_the_training_are_not_tested(tmp_path, potential, labelled, capsys):
    card = potential("mace", Springs(np.zeros((8, 3)), stiffness=0.0))
    every = frames.read_frames(labelled)
    trained, replayed = tmp_path / "train.extxyz", tmp_path / "replay.extxyz"
    frames.write_frames(trained, every[:1])
    frames.write_frames(replayed, [rocksalt_lif(seed=50), every[2]])
    out = tmp_path / "evaluation.json"
    pairs = ["--evaluation", out, "--predictions", out.with_suffix(".csv")]
    arguments = ["--potential", card, "--test", labelled, "--mobile", "Li", *pairs]
    assert call_script("evaluate_potential", *arguments, "--trained-on", trained, replayed) == 0
    found = files.read_json(out)
    assert (found["n_frames"], found["n_frames_left_out"]) == (2, 2)
    assert pd.read_csv(out.with_suffix(".csv"))["frame_id"].nunique() == 2
    said = capsys.readouterr().err
    assert f"2 of 4 frames left out: seen in its training or a parent's: {trained} (1 frame)" in said
    assert str(replayed) in said
    hashed = files.read_json(tmp_path / "evaluation.json.provenance.json")["inputs_sha256"]
    assert hashed[str(replayed)] == files.sha256(replayed)
    # the flag of a potential that nothing here was trained for is empty
    assert call_script("evaluate_potential", *arguments, "--trained-on") == 0
    assert files.read_json(out)["n_frames"] == 4

    capsys.readouterr()
    frames.write_frames(trained, every)
    status = call_script("evaluate_potential", *arguments, "--trained-on", trained)
    said = refused(capsys, status)
    assert f"no frame left to evaluate on: seen in its training or a parent's: {trained} (4 frames)" in said


def test_a_committee_writes_its_disagreement(tmp_path, potential, labelled, capsys):
    sites = rocksalt_lif(rattle_A=0).positions
    members = [potential(f"m{stiffness}", Springs(sites, stiffness=stiffness)) for stiffness in (1.0, 3.0)]
    out, table = tmp_path / "pair.json", tmp_path / "pair.csv"
    arguments = ["--frames", labelled, "--committee", out, "--deviations", table]
    assert call_script("evaluate_committee", "--potential", *members, *arguments) == 0
    found = files.read_json(out)
    assert found["members"] == ["m1.0", "m3.0"]
    assert found["differ_in"] == {}
    assert "differ in more than" not in capsys.readouterr().err
    rows = pd.read_csv(table)
    # forces of 1 u and 3 u: each lies u from their mean
    moved_A = [np.linalg.norm(atoms.positions - sites, axis=1) for atoms in frames.read_frames(labelled)]
    np.testing.assert_allclose(rows["max_deviation_meV_per_A"], [1000 * u.max() for u in moved_A], rtol=1e-5)
    np.testing.assert_allclose(
        rows["mean_deviation_meV_per_A"], [1000 * u.mean() for u in moved_A], rtol=1e-5
    )
    assert found["mean_deviation_meV_per_A"] == pytest.approx(1000 * np.mean(moved_A))
    assert rows["temperature_K"].tolist() == [300, 600, 300, 600]

    mixed = [members[0], potential("other", Springs(sites), family="mace")]
    assert call_script("evaluate_committee", "--potential", *mixed, *arguments) == 0
    assert files.read_json(out)["differ_in"] == {"family": ["chgnet", "mace"]}
    assert "the members differ in more than their seed (family): what they" in capsys.readouterr().err

    twice = [members[0], members[0]]
    for wrong in (members[:1], twice):
        status = call_script("evaluate_committee", "--potential", *wrong, *arguments)
        assert "two or more different members" in refused(capsys, status)
