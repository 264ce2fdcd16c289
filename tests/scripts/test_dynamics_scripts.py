"""From a fetched potential through NpT, NVT and starts to replicas, with the flags that others rely on."""

import numpy as np
import pytest
from small import Springs, call_script, label, refused, rocksalt_lif

from hopline import files, frames
from hopline.trajectories import read_trajectory

SHORT = ["--duration-ps", 0.2, "--timestep-fs", 2, "--temperature-K", 300]
LANGEVIN = ["--frame-interval-fs", 4, "--friction-per-ps", 20, "--seed", 3]
BAROSTAT = ["--pressure-GPa", 0, "--barostat-time-fs", 200]


@pytest.fixture
def springs(tmp_path, monkeypatch):
    """Put atoms on springs in the place of a potential; return the flags of a start and of that potential."""
    atoms = rocksalt_lif(rattle_A=0)
    frames.write_frames(tmp_path / "start.extxyz", [atoms])
    (tmp_path / "card.json").write_text("{}")
    loader = "hopline.potentials.calculator.load_calculator"
    monkeypatch.setattr(loader, lambda _: Springs(atoms.positions, stiffness=5.0))
    return ["--start", tmp_path / "start.extxyz", "--potential", tmp_path / "card.json"]


def ended(path):
    """Return a run's trajectory and its sidecar."""
    return read_trajectory(path), files.read_json(path.with_suffix(".json"))


def test_the_protocol_runs_from_script_to_script(tmp_path, springs):
    npt, nvt, nve = (tmp_path / f"{name}.h5" for name in ("npt", "nvt", "nve-1"))
    starts = [tmp_path / f"start-{number}.extxyz" for number in (1, 2)]
    assert call_script("equilibrate_npt", *springs, *SHORT, *LANGEVIN, *BAROSTAT, "--trajectory", npt) == 0
    run, sidecar = ended(npt)
    assert sidecar["status"] == "finished"
    assert sidecar["provenance"]["settings"]["barostat_time_fs"] == 200
    assert run.n_frames == 51

    arguments = ["--npt", npt, "--discard-fraction", 0.2, "--trajectory", nvt]
    assert call_script("equilibrate_nvt", *springs, *SHORT, *LANGEVIN, *arguments) == 0
    volumes_A3 = np.abs(np.linalg.det(run.cells_A))[10:]
    assert abs(np.linalg.det(ended(nvt)[0].cells_A[0])) == pytest.approx(volumes_A3.mean())

    assert call_script("select_starts", "--nvt", nvt, "--starts-apart-ps", 0.02, "--starts", *starts) == 0
    assert (tmp_path / "start-1.extxyz.provenance.json").exists()
    for path in starts:
        np.testing.assert_allclose(frames.read_frames(path)[0].get_momenta().sum(axis=0), 0, atol=1e-7)

    replica = ["--start", starts[0], "--potential", tmp_path / "card.json", *SHORT, "--trajectory", nve]
    assert call_script("simulate_replica", *replica) == 0
    run, sidecar = ended(nve)
    assert run.frame_interval_ps == pytest.approx(0.01)
    assert {"status", "reason", "checks", "simulated_ps", "throughput_ns_per_day", "provenance"} <= set(
        sidecar
    )
    assert "energy_drift_meV_per_atom_per_ps" in sidecar["checks"]


def test_an_exploration_sweeps_its_volume(tmp_path, springs):
    scales = [
        "--ensemble",
        "nvt",
        "--scale-first",
        0.97,
        "--scale-last",
        1.03,
        "--trajectory",
        tmp_path / "300K.h5",
    ]
    assert call_script("explore_configurations", *springs, *SHORT, *LANGEVIN, *BAROSTAT, *scales) == 0
    cells_A = ended(tmp_path / "300K.h5")[0].cells_A[:, 0, 0]
    np.testing.assert_allclose(cells_A / 4.08, np.linspace(0.97, 1.03, 51))


def test_an_exploded_replica_keeps_its_frames_and_saves_the_offending_one(tmp_path, springs):
    path = tmp_path / "nve.h5"
    limits = ["--max-temperature-ratio", 0.01, "--seed", 1]
    assert call_script("simulate_replica", *springs, *SHORT, *limits, "--trajectory", path) == 0
    run, sidecar = ended(path)
    assert sidecar["status"] == "exploded"
    assert "exceeds 0.01 times" in sidecar["reason"]
    assert run.n_frames >= 1
    assert len(frames.read_frames(tmp_path / "nve.offending.extxyz")) == 1


@pytest.mark.parametrize(
    "changes",
    [["--temperature-K", -3], ["--timestep-fs", 0], ["--duration-ps", "nan"], ["--start", "nowhere.extxyz"]],
)
def test_a_replica_that_cannot_be_run_is_refused(tmp_path, springs, capsys, changes):
    arguments = [*springs, *SHORT, *changes, "--trajectory", tmp_path / "nve.h5"]
    refused(capsys, call_script("simulate_replica", *arguments))
    assert not (tmp_path / "nve.h5").exists()


def test_a_run_too_short_or_without_velocities_gives_no_starts(tmp_path, springs, capsys):
    path = tmp_path / "nve.h5"
    call_script("simulate_replica", *springs, *SHORT, "--trajectory", path)
    capsys.readouterr()
    status = call_script(
        "select_starts", "--nvt", path, "--starts-apart-ps", 1, "--starts", tmp_path / "a.extxyz"
    )
    assert "no velocities" in refused(capsys, status)


def test_a_shipped_potential_is_fetched_evaluated_and_run(tmp_path, capsys):
    card = tmp_path / "card.json"
    outputs = ["--model", tmp_path / "model.pt", "--card", card]
    assert (
        call_script(
            "fetch_potential", "--name", "chgnet", "--family", "chgnet", "--weights", "0.3.0", *outputs
        )
        == 0
    )
    assert files.read_json(card)["model_sha256"] == files.sha256(tmp_path / "model.pt")
    assert (tmp_path / "card.json.provenance.json").exists()

    atoms = label(rocksalt_lif(), forces=np.ones((8, 3)), stress=np.zeros((3, 3)))
    frames.write_frames(tmp_path / "test.extxyz", [atoms])
    outputs = ["--evaluation", tmp_path / "evaluation.json", "--predictions", tmp_path / "predictions.csv"]
    arguments = ["--potential", card, "--test", tmp_path / "test.extxyz", "--mobile", "Li", *outputs]
    assert call_script("evaluate_potential", *arguments) == 0
    assert files.read_json(tmp_path / "evaluation.json")["n_frames"] == 1

    arguments = [
        "--start", tmp_path / "test.extxyz", "--potential", card, "--temperature-K", 300, "--timestep-fs", 1,
        "--duration-ps", 0.01, "--trajectory", tmp_path / "nve.h5",
    ]  # fmt: skip
    assert call_script("simulate_replica", *arguments) == 0
    assert ended(tmp_path / "nve.h5")[1]["status"] == "finished"

    capsys.readouterr()
    (tmp_path / "model.pt").write_bytes(b"another")
    assert "sha256 differs" in refused(capsys, call_script("simulate_replica", *arguments))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("fetch_potential", {"--weights": "9.9"}),
        ("fetch_potential", {"--family": "mace"}),
        ("fetch_potential", {"--head": "pbe"}),
        ("fetch_potential", {"--sha256": "0" * 64}),
        ("fetch_potential", {"--card": "elsewhere/card.json"}),
    ],
)
def test_a_potential_that_cannot_be_fetched_is_refused(tmp_path, capsys, name, changes):
    settings = {
        "--name": "a", "--family": "chgnet", "--weights": "0.3.0", "--model": tmp_path / "model.pt",
        "--card": tmp_path / "card.json",
    } | changes  # fmt: skip
    refused(capsys, call_script(name, *[part for pair in settings.items() for part in pair]))
    assert not list(tmp_path.iterdir())
