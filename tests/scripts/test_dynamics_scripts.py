"""From a fetched potential through NpT, NVT and starts to replicas, with the flags that others rely on."""

import re

import numpy as np
import pytest
from foundations import head_as_parent
from small import Springs, call_script, label, refused, rocksalt_lif, write_potential

from hopline import files, frames
from hopline.dynamics.protocol import draw_momenta
from hopline.potentials import chgnet
from hopline.trajectories import read_trajectory

SHORT = ["--duration-ps", 0.2, "--timestep-fs", 2, "--temperature-K", 300]
LANGEVIN = ["--frame-interval-fs", 4, "--friction-per-ps", 20, "--seed", 3]
BAROSTAT = ["--pressure-GPa", 0, "--barostat-time-fs", 200]


@pytest.fixture
def springs(tmp_path, monkeypatch):
    """Put atoms on springs in the place of a potential; return the flags of a start, that potential and its engine."""
    atoms = rocksalt_lif(rattle_A=0)
    frames.write_frames(tmp_path / "start.extxyz", [atoms])
    (tmp_path / "card.json").write_text("{}")
    loader = "hopline.potentials.calculator.load_calculator"
    monkeypatch.setattr(loader, lambda _, accelerate: Springs(atoms.positions, stiffness=5.0))  # noqa: ARG005
    return ["--start", tmp_path / "start.extxyz", "--potential", tmp_path / "card.json", "--engine", "ase"]


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

    replica = ["--start", starts[0], *springs[2:], *SHORT, "--trajectory", nve]
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
    assert "(max_temperature_ratio 0.01)" in sidecar["reason"]
    assert run.n_frames >= 1
    assert len(frames.read_frames(tmp_path / "nve.offending.extxyz")) == 1


@pytest.fixture(params=["chgnet", "mace"])
def potential(request, tmp_path):
    """Write the card of CHGNet as shipped (float32), or of a small MACE with random weights (float64)."""
    if request.param == "mace":
        head_as_parent(tmp_path)
    else:
        chgnet.export_weights("0.3.0", tmp_path / "model.pt", source=None, head=None)
        write_potential(tmp_path, tmp_path / "model.pt")
    return tmp_path / "card.json"


def test_replicas_in_a_batch_are_put_in_place_one_by_one(tmp_path, potential):
    """Sizes and temperatures of their own; the same as alone but for the model's rounding."""
    starts = [tmp_path / f"{name}.extxyz" for name in ("host", "vacancy")]
    for path, atoms in zip(starts, (rocksalt_lif(seed=1), rocksalt_lif(seed=2)[1:]), strict=True):
        draw_momenta(atoms, 300, seed=1)
        frames.write_frames(path, [atoms])
    settings = ["--potential", potential, "--timestep-fs", 1, "--duration-ps", 0.02, "--frame-interval-fs", 2]
    temperatures_K = (300, 600)
    together = [tmp_path / "together" / f"{path.stem}.h5" for path in starts]
    batch = tmp_path / "batch.json"
    arguments = ["--start", *starts, "--temperature-K", *temperatures_K, "--trajectory", *together]
    assert call_script("simulate_replica", *settings, *arguments, "--write-batch", batch) == 0
    runs = files.read_json(batch)["runs"]
    assert {name: run["status"] for name, run in runs.items()} == {str(path): "finished" for path in together}
    assert not any(path.exists() for path in together)

    for start, temperature_K, path in zip(starts, temperatures_K, together, strict=True):
        single = [*settings, "--start", start, "--temperature-K", temperature_K]
        assert call_script("simulate_replica", *single, "--from-batch", batch, "--trajectory", path) == 0
        alone = tmp_path / "alone" / path.name
        assert call_script("simulate_replica", *single, "--trajectory", alone) == 0
        (one, sidecar), (other, sidecar_of_batch) = ended(alone), ended(path)
        np.testing.assert_allclose(one.positions_A, other.positions_A, atol=1e-4)
        assert (sidecar["replicas_in_batch"], sidecar_of_batch["replicas_in_batch"]) == (1, 2)
        assert sidecar_of_batch["simulated_ps"] == pytest.approx(0.02)


def test_a_batch_that_did_not_run_puts_nothing_in_place(tmp_path, springs, capsys):
    path, atoms = tmp_path / "nve.h5", rocksalt_lif(rattle_A=0)
    draw_momenta(atoms, 300, seed=1)
    frames.write_frames(tmp_path / "start.extxyz", [atoms])
    arguments = [*springs, *SHORT, "--trajectory", path, "--from-batch", tmp_path / "batch.json"]
    batch = tmp_path / "batch.json"
    assert "batch.json does not exist" in refused(capsys, call_script("simulate_replica", *arguments))
    files.write_json(batch, {"frames": 3})
    assert "is not what a batch writes" in refused(capsys, call_script("simulate_replica", *arguments))
    files.write_json(batch, {"runs": {}})
    assert "does not hold this run" in refused(capsys, call_script("simulate_replica", *arguments))
    assert not path.exists()


def test_an_exploded_run_of_a_batch_is_told_and_kept(tmp_path, springs):
    paths, batch = [tmp_path / f"nve-{number}.h5" for number in (1, 2)], tmp_path / "batch.json"
    limits = ["--max-temperature-ratio", 0.01, "--seed", 1, 2]
    arguments = [*springs, *SHORT, *limits, "--trajectory", *paths]
    assert call_script("simulate_replica", *arguments, "--write-batch", batch) == 0
    assert {run["status"] for run in files.read_json(batch)["runs"].values()} == {"exploded"}
    single = [*springs, *SHORT, "--max-temperature-ratio", 0.01, "--seed", 2, "--trajectory", paths[1]]
    assert call_script("simulate_replica", *single, "--from-batch", batch) == 0
    assert ended(paths[1])[1]["status"] == "exploded"
    assert (tmp_path / "nve-2.offending.extxyz").exists()
    assert not paths[0].exists()


def test_as_many_values_as_trajectories_or_one(tmp_path, springs, capsys):
    paths = [tmp_path / f"{number}.h5" for number in range(3)]
    arguments = [*springs, *SHORT, "--temperature-K", 300, 400, "--trajectory", *paths]
    told = refused(capsys, call_script("simulate_replica", *arguments))
    assert "--temperature-K has 2 values for 3 trajectories" in told


def test_one_seed_gives_each_start_its_own_and_copies_are_told(tmp_path, springs, capsys):
    paths = [tmp_path / f"{number}.h5" for number in range(3)]
    assert call_script("simulate_replica", *springs, *SHORT, "--seed", 5, "--trajectory", *paths) == 0
    told = capsys.readouterr().err
    seeds = re.findall(r"drawn at 300 K with seed (\d+)", told)
    assert seeds[0] == "5"
    assert len(set(seeds)) == 3
    assert "same run" not in told
    moving = rocksalt_lif(rattle_A=0)
    draw_momenta(moving, 300, seed=1)
    frames.write_frames(tmp_path / "start.extxyz", [moving])
    arguments = [*springs, *SHORT, "--mobile", "Na", "--trajectory", *paths[:2]]
    assert call_script("simulate_replica", *arguments) == 0
    told = capsys.readouterr().err
    assert f"{paths[1]} is the same run as {paths[0]}" in told
    assert "no start has Na" in told


def test_without_an_npt_run_a_structure_keeps_its_volume(tmp_path, springs):
    path = tmp_path / "nvt.h5"
    assert call_script("equilibrate_nvt", *springs, *SHORT, *LANGEVIN, "--trajectory", path) == 0
    np.testing.assert_allclose(ended(path)[0].cells_A[0], rocksalt_lif().cell.array)


@pytest.mark.parametrize(
    "changes",
    [
        ["--temperature-K", -3],
        ["--timestep-fs", 0],
        ["--duration-ps", "nan"],
        ["--start", "nowhere.extxyz"],
        ["--seed", -1],
        ["--trajectory", "nve.xyz"],
        ["--trajectory", "nve.h5", "./nve.h5"],
    ],
)
def test_a_replica_that_cannot_be_run_is_refused(tmp_path, springs, capsys, changes):
    arguments = [*springs, *SHORT, "--trajectory", tmp_path / "nve.h5", *changes]
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
    atoms.set_momenta(np.zeros((8, 3)))
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
    arguments[-1] = tmp_path / "another.h5"
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
