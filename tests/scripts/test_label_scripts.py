"""From selected frames through pw.x to accepted labels, as a person would run it."""

import csv
import json
import shutil
import subprocess
import sys
import time

import ase.build
import ase.io
import numpy as np
import pytest

from hopline import frames

needs_pw = pytest.mark.skipif(shutil.which("pw.x") is None, reason="pw.x is not installed")
SETTINGS = [
    "--wavefunction-cutoff-Ry", "30", "--density-cutoff-Ry", "120", "--smearing", "gaussian",
    "--smearing-width-Ry", "0.01", "--scf-threshold-Ry", "1e-8", "--mixing-beta", "0.7",
    "--max-scf-steps", "60", "--kpoints", "1", "1", "1", "--kpoints-shift", "0", "0", "0",
]  # fmt: skip


@pytest.fixture
def call(repository):
    def run(script, *arguments):
        command = [sys.executable, str(repository / "scripts" / script), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def pool(tmp_path):
    made = []
    for seed in range(4):
        atoms = ase.build.bulk("LiF", "rocksalt", a=4.08)
        atoms.rattle(0.05, seed=seed)
        atoms.info |= {"system": "lif", "composition": "bulk", "source": f"{seed}.h5", "temperature_K": 700}
        made.append(atoms)
    frames.write_frames(tmp_path / "pool.extxyz", made)
    rows = [f"{row},{frames.frame_id(made[row])},0,0.1" for row in (1, 3)]
    (tmp_path / "selection.csv").write_text(
        "\n".join(["row,frame_id,cluster,distance_to_centroid", *rows, ""])
    )
    return made


@needs_pw
def test_selected_frames_become_accepted_labels(tmp_path, pool, call, shared_data):
    written = call(
        "write_espresso_inputs.py", "--frames", tmp_path / "pool.extxyz", "--selection",
        tmp_path / "selection.csv", "--pseudopotentials", shared_data / "upf", *SETTINGS,
        "--inputs", tmp_path / "inputs",
    )  # fmt: skip
    assert written.returncode == 0, written.stderr
    assert sorted(path.name for path in (tmp_path / "inputs").iterdir()) == ["0000", "0001"]
    batch = [
        "label_espresso.py", "--inputs", tmp_path / "inputs", "--indices", "0000", "0001", "--runs", tmp_path / "runs",
        "--table", tmp_path / "batch.csv", "--launcher", "", "--pools", 4,
    ]  # fmt: skip
    ran = call(*batch)
    assert ran.returncode == 0, ran.stderr
    assert "2/2 0001: " in ran.stderr
    for folder in (tmp_path / "runs").iterdir():
        assert {path.name for path in folder.iterdir()} == {"pw.in", "pw.out", "frame.extxyz"}
    table = list(csv.DictReader((tmp_path / "batch.csv").open()))
    assert [(row["index"], row["status"]) for row in table] == [("0000", "converged"), ("0001", "converged")]
    assert (tmp_path / "batch.csv.provenance.json").is_file()
    again = call(*batch)
    assert again.stderr.count("from an earlier attempt") == 2
    taken = call(
        "ingest_labels.py", "--source", tmp_path / "runs", "--frames", tmp_path / "accepted.extxyz",
        "--rejected", tmp_path / "rejected.csv",
    )  # fmt: skip
    assert taken.returncode == 0, taken.stderr
    accepted = frames.read_labelled(tmp_path / "accepted.extxyz")
    assert [frame.info["frame_id"] for frame in accepted] == [frames.frame_id(pool[row]) for row in (1, 3)]
    assert [frame.info["source"] for frame in accepted] == ["1.h5", "3.h5"]
    for frame in accepted:
        labels = frames.labels_of(frame)
        assert labels.stress_eV_per_A3.shape == (3, 3)
        # two atoms pull on each other alone
        np.testing.assert_allclose(labels.forces_eV_per_A.sum(axis=0), 0.0, atol=1e-3)
    assert len((tmp_path / "rejected.csv").read_text().splitlines()) == 1


@needs_pw
def test_a_run_that_does_not_converge_is_kept_and_rejected(tmp_path, pool, call, shared_data):
    few_steps = [*SETTINGS, "--max-scf-steps", "2"]
    call(
        "write_espresso_inputs.py", "--frames", tmp_path / "pool.extxyz", "--pseudopotentials",
        shared_data / "upf", *few_steps, "--inputs", tmp_path / "inputs",
    )  # fmt: skip
    folder = tmp_path / "runs" / "0000"
    ran = call(
        "label_espresso.py", "--inputs", tmp_path / "inputs", "--indices", "0000", "--runs", tmp_path / "runs",
        "--table", tmp_path / "batch.csv",
    )  # fmt: skip
    assert ran.returncode == 0
    assert "SCF not converged after 2 steps" in ran.stderr
    taken = call(
        "ingest_labels.py",
        "--source",
        folder,
        "--frames",
        tmp_path / "a.extxyz",
        "--rejected",
        tmp_path / "r.csv",
    )
    assert taken.returncode == 2
    assert not (tmp_path / "a.extxyz").exists()
    (row,) = csv.DictReader((tmp_path / "r.csv").open())
    assert row["reason"].startswith("SCF not converged after 2 steps (Hopline tried 5 rungs: as given,")
    assert row["frame_id"] == frames.frame_id(pool[0])


@needs_pw
@pytest.mark.usefixtures("pool")
def test_sigterm_ends_a_batch_that_the_same_command_takes_up(tmp_path, call, shared_data, repository):
    """As Slurm and Snakemake end a job; the status says that it is to be tried again, and there is no table yet."""
    slow = [*SETTINGS, "--mixing-beta", "0.05", "--scf-threshold-Ry", "1e-10", "--kpoints", "3", "3", "3"]
    call(
        "write_espresso_inputs.py", "--frames", tmp_path / "pool.extxyz", "--pseudopotentials",
        shared_data / "upf", *slow, "--inputs", tmp_path / "inputs",
    )  # fmt: skip
    batch = [
        "label_espresso.py", "--inputs", tmp_path / "inputs", "--indices", "0000", "--runs", tmp_path / "runs",
        "--table", tmp_path / "batch.csv",
    ]  # fmt: skip
    running = tmp_path / "runs" / "0000" / ".scratch" / "as given" / "running.out"
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, str(repository / "scripts" / batch[0]), *map(str, batch[1:])]
        process = subprocess.Popen(command, stderr=log)
        deadline = time.monotonic() + 60
        while not (running.is_file() and "iteration #  2" in running.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.terminate()
        assert process.wait(60) == 75
    assert (tmp_path / "log").read_text().splitlines()[-1].endswith("run the same command again to go on")
    assert not (tmp_path / "batch.csv").exists()
    taken_up = call(*batch)
    assert taken_up.returncode == 0, taken_up.stderr
    assert "starts from the charge density" in taken_up.stderr
    assert "converged" in (tmp_path / "batch.csv").read_text()
    # no time left: nothing is begun
    over = call(*batch[:-4], "--runs", tmp_path / "other", *batch[-2:], "--max-seconds", 0)
    assert over.returncode == 75
    assert len(over.stderr.splitlines()) == 1


@needs_pw
@pytest.mark.slow
@pytest.mark.usefixtures("pool")
def test_convergence_and_atom_references(tmp_path, call, shared_data):
    upfs = shared_data / "upf"
    studied = call(
        "compute_convergence.py", "--frames", tmp_path / "pool.extxyz", "--pseudopotentials", upfs, *SETTINGS,
        "--cutoffs-Ry", 40, 20, 30, "--meshes", "2x2x2+111", "1x1x1", "--convergence", tmp_path / "c.csv",
    )  # fmt: skip
    assert studied.returncode == 0, studied.stderr
    rows = list(csv.DictReader((tmp_path / "c.csv").open()))
    assert [row["kind"] for row in rows] == ["cutoff"] * 3 + ["kpoints"] * 2
    cutoffs = [float(row["energy_error_meV_per_atom"]) for row in rows[:3]]
    # the energy falls as the basis grows: variational
    assert cutoffs[0] > cutoffs[1] > cutoffs[2] == 0
    referred = call(
        "compute_atom_references.py", "--elements", "Li", "--pseudopotentials", upfs,
        "--wavefunction-cutoff-Ry", 15, "--density-cutoff-Ry", 60, "--scf-threshold-Ry", 1e-7,
        "--mixing-beta", 0.4, "--max-scf-steps", 80,
        "--references", tmp_path / "e0.json",
    )  # fmt: skip
    assert referred.returncode == 0, referred.stderr
    content = json.loads((tmp_path / "e0.json").read_text())
    assert set(content["energies_eV"]) == {"Li"}
    assert content["settings"]["Li"]["total_magnetization"] == 1


@pytest.mark.usefixtures("pool")
def test_refusals_are_one_line_and_exit_2(tmp_path, call, shared_data):
    (tmp_path / "bad.csv").write_text("row\n7\n")
    common = ["--pseudopotentials", shared_data / "upf", *SETTINGS, "--inputs", tmp_path / "runs"]
    outside = call(
        "write_espresso_inputs.py",
        "--frames",
        tmp_path / "pool.extxyz",
        "--selection",
        tmp_path / "bad.csv",
        *common,
    )
    (tmp_path / "upf").mkdir()
    (tmp_path / "upf" / "Li.upf").write_text("<UPF>")
    (tmp_path / "upf" / "F.upf").write_text("<UPF>")
    silent = call(
        "write_espresso_inputs.py", "--frames", tmp_path / "pool.extxyz", *SETTINGS, "--pseudopotentials",
        tmp_path / "upf", "--wavefunction-cutoff-Ry", "recommended", "--inputs", tmp_path / "runs",
    )  # fmt: skip
    nowhere = call("write_espresso_inputs.py", "--frames", tmp_path / "none.extxyz", *common)
    no_input = call(
        "label_espresso.py", "--inputs", tmp_path / "none", "--indices", "0000", "--runs", tmp_path / "runs",
        "--table", tmp_path / "batch.csv",
    )  # fmt: skip
    for refused, words in (
        (outside, "row 7"), (nowhere, "does not exist"), (no_input, "does not exist"),
        (silent, "recommends no cutoff for F"),
    ):  # fmt: skip
        assert refused.returncode == 2
        assert words in refused.stderr
        assert len(refused.stderr.splitlines()) == 1


def test_ingestion_works_with_its_three_public_flags_alone(tmp_path, call, shared_data):
    taken = call(
        "ingest_labels.py", "--source", shared_data / "lif" / "10-REF_train.xyz", "--frames",
        tmp_path / "a.extxyz", "--rejected", tmp_path / "r.csv",
    )  # fmt: skip
    assert taken.returncode == 0, taken.stderr
    assert "20 accepted" in taken.stderr
    original = ase.io.read(shared_data / "lif" / "10-REF_train.xyz", "0")
    first = frames.read_labelled(tmp_path / "a.extxyz")[0]
    assert first.info["REF_energy"] == original.info["REF_energy"]
    np.testing.assert_allclose(
        frames.labels_of(first).stress_eV_per_A3.ravel(), np.ravel(original.info["REF_stress"])
    )
    assert (tmp_path / "a.extxyz.provenance.json").is_file()


def test_the_table_is_written_before_too_many_rejections_stop_it(tmp_path, call, shared_data):
    runs = shared_data / "dft_outputs" / "espresso"
    sources = [runs / "lif_hi.out", *sorted(runs.glob("failed_*/aiida.out"))]
    arguments = ["--source", *sources, "--frames", tmp_path / "a.extxyz", "--rejected", tmp_path / "r.csv"]
    stopped = call("ingest_labels.py", *arguments)
    assert stopped.returncode == 2
    assert "3 of 4 frames were rejected" in stopped.stderr
    assert stopped.stderr.count("rejected: ") == 3
    assert len(list(csv.DictReader((tmp_path / "r.csv").open()))) == 3
    allowed = call("ingest_labels.py", *arguments, "--max-rejected-fraction", "0.75")
    assert allowed.returncode == 0, allowed.stderr
    assert len(frames.read_labelled(tmp_path / "a.extxyz")) == 1


def test_elements_of_a_host_file_count_as_the_systems(tmp_path, call, shared_data):
    ase.io.write(tmp_path / "host.cif", ase.build.bulk("LiF", "rocksalt", a=4.08))
    arguments = [
        "--source", shared_data / "lif" / "10-REF_train.xyz", "--frames", tmp_path / "a.extxyz", "--rejected",
        tmp_path / "r.csv", "--elements", "Li",
    ]  # fmt: skip
    refused = call("ingest_labels.py", *arguments)
    assert refused.returncode == 2
    assert "holds F: the system is made of Li" in refused.stderr
    taken = call("ingest_labels.py", *arguments, "--host", tmp_path / "host.cif")
    assert taken.returncode == 0, taken.stderr


def test_a_refusal_leaves_no_set_of_an_earlier_run(tmp_path, call, shared_data):
    out = ["--frames", tmp_path / "a.extxyz", "--rejected", tmp_path / "r.csv"]
    good = call("ingest_labels.py", "--source", shared_data / "lif" / "10-REF_train.xyz", *out)
    assert good.returncode == 0, good.stderr
    failed = shared_data / "dft_outputs" / "espresso" / "failed_scf_not_converged" / "aiida.out"
    assert call("ingest_labels.py", "--source", failed, *out).returncode == 2
    assert not (tmp_path / "a.extxyz").exists()
    named = json.loads((tmp_path / "r.csv.provenance.json").read_text())["inputs_sha256"]
    assert list(named) == [str(failed)]


def test_a_mixture_says_where_each_part_is_from_and_what_to_do(tmp_path, call, shared_data):
    out = ["--frames", tmp_path / "a.extxyz", "--rejected", tmp_path / "r.csv"]
    sets = [shared_data / "lif" / "10-REF_train.xyz", shared_data / "dft_outputs" / "espresso" / "lif_hi.out"]
    mixed = call("ingest_labels.py", "--source", *sets, *out)
    assert mixed.returncode == 2
    assert f"unstated (20 frames, one from {sets[0]})" in mixed.stderr
    level = "PBE pw.x; 110/880 Ry; fixed occupations; F md5 7b9cbdc5; Li md5 8c2b296c"
    stated = ["--level-of-theory", level, "--energy-kind", "free"]
    taken = call("ingest_labels.py", "--source", *sets, *out, *stated)
    assert taken.returncode == 0, taken.stderr
