"""From selected frames to labels of VASP as a person would run it; VASP itself is a stand-in (see `vasp_standin`)."""

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import vasp_standin
from small import call_script, refused
from vasp_standin import ENERGY_EV, starts

from hopline import frames


@pytest.fixture
def frame(tmp_path, monkeypatch, shared_data):
    """Write a pool of two frames, a selection of the second, POTCARs, a preset that knows them; bring the stand-in."""
    chosen = vasp_standin.real_frame(shared_data)
    other = chosen.copy()
    other.rattle(0.1, seed=0)
    frames.write_frames(tmp_path / "pool.extxyz", [other, chosen])
    (tmp_path / "selection.csv").write_text(f"row,frame_id\n1,{frames.frame_id(chosen)}\n")
    vasp_standin.preset_file(tmp_path, vasp_standin.potcar_folder(tmp_path / "potcars"))
    vasp_standin.install(tmp_path, monkeypatch, shared_data)
    return chosen


def write(tmp_path, *more):
    return call_script(
        "write_vasp_inputs", "--frames", tmp_path / "pool.extxyz", "--presets", tmp_path / "presets.yaml",
        "--preset", "real", "--inputs", tmp_path / "inputs", *more,
    )  # fmt: skip


def label_arguments(tmp_path, *indices):
    return [
        "--inputs", tmp_path / "inputs", "--indices", *indices, "--potcars", tmp_path / "potcars", "--launcher", "",
        "--runs", tmp_path / "runs", "--table", tmp_path / "runs" / "batch.csv",
    ]  # fmt: skip


def rows(tmp_path):
    with (tmp_path / "runs" / "batch.csv").open() as file:
        return list(csv.DictReader(file))


def test_selected_frames_become_accepted_labels(tmp_path, frame, capsys):
    assert write(tmp_path, "--selection", tmp_path / "selection.csv", "--potcars", tmp_path / "potcars") == 0
    assert "1 inputs in" in capsys.readouterr().err
    assert call_script("label_vasp", *label_arguments(tmp_path, "0000")) == 0
    assert rows(tmp_path) == [
        {
            "index": "0000", "status": "converged", "energy_eV": str(ENERGY_EV), "scf_steps": "21",
            "wall_time_s": "31.413", "rung": "as given", "reason": "",
        }
    ]  # fmt: skip
    ingested = call_script(
        "ingest_labels", "--source", tmp_path / "runs" / "0000", "--frames", tmp_path / "accepted.extxyz",
        "--rejected", tmp_path / "rejected.csv",
    )  # fmt: skip
    assert ingested == 0
    (accepted,) = frames.read_labelled(tmp_path / "accepted.extxyz")
    assert accepted.info["REF_energy"] == ENERGY_EV
    assert accepted.info["source"] == frame.info["source"]
    assert not list((tmp_path / "runs").rglob("POTCAR"))


@pytest.mark.parametrize(
    ("how", "status", "resumed"),
    [(signal.SIGTERM, 75, "ICHARG 1"), (signal.SIGKILL, -signal.SIGKILL, "ICHARG 2")],
)  # asked to stop, it goes on from its density; killed, there is none
@pytest.mark.usefixtures("frame")
def test_a_batch_that_was_broken_off_is_taken_up_by_the_same_command(
    tmp_path, repository, how, status, resumed
):
    assert write(tmp_path) == 0
    (tmp_path / "deeds").write_text("good|hang|good")
    arguments = label_arguments(tmp_path, "0000", "0001")
    command = [sys.executable, repository / "scripts" / "label_vasp.py", *arguments]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL)
    running = tmp_path / "runs" / "0001" / ".scratch" / "as given" / "vasp.out"
    wait_for(lambda: running.is_file() and "DAV" in running.read_text())
    process.send_signal(how)
    assert process.wait(timeout=30) == status
    wait_for(lambda: not works_in(tmp_path))  # VASP does not outlive the script
    assert not (tmp_path / "runs" / "batch.csv").exists()
    assert call_script("label_vasp", *arguments) == 0
    assert [row["status"] for row in rows(tmp_path)] == ["converged", "converged"]
    assert [line.split(";")[0] for line in starts(tmp_path)] == ["ICHARG 2", "ICHARG 2", resumed]


def works_in(folder):
    """Tell whether a process works below a folder."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(folder):
                return True
        except OSError:  # it ended meanwhile
            continue
    return False


def wait_for(condition):
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


@pytest.mark.usefixtures("frame")
def test_the_inputs_of_a_training_are_written(tmp_path, repository, capsys):
    written = call_script(
        "write_vasp_training", "--structure", tmp_path / "pool.extxyz", "--presets",
        repository / "resources" / "presets" / "vasp.yaml", "--preset", "matpes-pbe", "--ramp-temperature-K", 700,
        "--ramp-duration-ps", 10, "--temperatures-K", 300, 480, "--duration-ps", 100, "--timestep-fs", 1,
        "--friction-per-ps", 10, "--incar", "ISPIN=1", "--training", tmp_path / "training",
    )  # fmt: skip
    assert written == 0
    said = capsys.readouterr().err
    assert "1-ramp, 2-300K, 3-480K; PBE VASP; 680 eV; KSPACING 0.22; gaussian 0.05 eV; PREC accurate" in said


@pytest.mark.usefixtures("frame")
def test_refusals_are_one_line_and_exit_2(tmp_path, capsys):
    assert "did you mean ENCUT" in refused(capsys, write(tmp_path, "--incar", "ENCUTT=3"))
    (tmp_path / "bad.csv").write_text("row\n7\n")
    assert "row 7" in refused(capsys, write(tmp_path, "--selection", tmp_path / "bad.csv"))
    label = label_arguments(tmp_path, "0000")
    assert "write_vasp_inputs.py" in refused(capsys, call_script("label_vasp", *label))
    assert write(tmp_path) == 0
    capsys.readouterr()
    (tmp_path / "potcars" / "O" / "POTCAR").unlink()
    assert "holds no POTCAR of O" in refused(capsys, call_script("label_vasp", *label))
