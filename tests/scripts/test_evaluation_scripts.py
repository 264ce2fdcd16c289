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
        (path.parent / "model.pt").write_bytes(b"model")
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
    verdict.write_text("{}")  # of an earlier model
    card = potential("mace", SOFT)
    arguments = ["--potential", card, "--train", labelled, "--stability", verdict, "--scan", curves]
    assert call_script("evaluate_stability", *arguments, *STABILITY) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert "card.json is not fit to be run: F-F in vacuum: 0.08 eV to climb from 1.14 A" in lines[-1]
    assert "at least 3 eV are wanted" in lines[-1]
    # the log names every pair on a line of its own
    assert sum(" eV to climb from " in line for line in lines[:-1]) == 6
    assert not verdict.exists()
    assert len(pd.read_csv(curves)) == 6 * 40


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


def test_a_committee_writes_its_disagreement(tmp_path, potential, labelled, capsys):
    sites = rocksalt_lif(rattle_A=0).positions
    members = [potential(f"m{stiffness}", Springs(sites, stiffness=stiffness)) for stiffness in (1.0, 3.0)]
    out, table = tmp_path / "pair.json", tmp_path / "pair.csv"
    arguments = ["--frames", labelled, "--committee", out, "--deviations", table]
    assert call_script("evaluate_committee", "--potential", *members, *arguments) == 0
    found = files.read_json(out)
    assert found["members"] == ["m1.0", "m3.0"]
    rows = pd.read_csv(table)
    # forces of 1 u and 3 u: each lies u from their mean
    moved_A = [np.linalg.norm(atoms.positions - sites, axis=1) for atoms in frames.read_frames(labelled)]
    np.testing.assert_allclose(rows["max_deviation_meV_per_A"], [1000 * u.max() for u in moved_A], rtol=1e-5)
    np.testing.assert_allclose(
        rows["mean_deviation_meV_per_A"], [1000 * u.mean() for u in moved_A], rtol=1e-5
    )
    assert found["mean_deviation_meV_per_A"] == pytest.approx(1000 * np.mean(moved_A))
    assert rows["temperature_K"].tolist() == [300, 600, 300, 600]

    capsys.readouterr()
    twice = [members[0], members[0]]
    for wrong in (members[:1], twice):
        status = call_script("evaluate_committee", "--potential", *wrong, *arguments)
        assert "two or more different members" in refused(capsys, status)
