"""A batch of frames: finished ones are kept, changed ones run anew, and each is a row of the table."""

import csv
import os
import shutil
import sys

import ase.build
import pytest

from hopline.console import InputError
from hopline.labels import batch, espresso, espresso_batch
from hopline.labels.espresso_run import Launch
from hopline.labels.pseudopotentials import find_pseudopotentials

pytestmark = pytest.mark.skipif(shutil.which("pw.x") is None, reason="pw.x is not installed")
SETTINGS = {
    "functional": "PBE", "wavefunction_cutoff_Ry": 25, "density_cutoff_Ry": 100, "kpoints": (1, 1, 1),
    "kpoints_shift": (0, 0, 0), "smearing": "gaussian", "smearing_width_Ry": 0.01, "scf_threshold_Ry": 1e-7,
    "mixing_beta": 0.7, "max_scf_steps": 60,
}  # fmt: skip


@pytest.fixture
def inputs(shared_data, tmp_path):
    """Folder of two good frames and one, 0001, that will not converge."""
    upfs = find_pseudopotentials(shared_data / "upf", ["Li", "F"])
    for seed, steps in enumerate((60, 2, 60)):
        crystal = ase.build.bulk("LiF", "rocksalt", a=4.08)
        crystal.rattle(0.05, seed=seed)
        settings = espresso.settings_from(SETTINGS | {"max_scf_steps": steps}, upfs)
        espresso.write_job(tmp_path / "inputs" / f"{seed:04d}", crystal, settings, upfs)
    return tmp_path / "inputs"


def label(inputs, *indices):
    return espresso_batch.label(inputs, inputs.parent / "runs", indices, launch=Launch())


def test_every_frame_is_a_row_and_finished_ones_are_kept(inputs, tmp_path, monkeypatch, capsys):
    rows = label(inputs, "0000", "0001", "0002")
    assert [row.index for row in rows] == ["0000", "0001", "0002"]
    assert [row.status for row in rows] == ["converged", "rejected", "converged"]
    assert rows[1].reason.startswith(
        "SCF not converged after 2 steps (Hopline tried 5 rungs: as given, gentle"
    )
    assert (rows[0].rung, rows[0].reason) == ("as given", "")
    assert rows[0].energy_eV != rows[2].energy_eV
    told = capsys.readouterr().err
    assert "3/3 0002: " in told
    assert not list((tmp_path / "runs").glob("*/.*"))
    # nothing is run a second time: there is nothing to run it with
    monkeypatch.setenv("PATH", str(tmp_path))
    assert label(inputs, "0000", "0001", "0002") == rows
    assert capsys.readouterr().err.count("(from an earlier attempt)") == 3

    batch.write_table(tmp_path / "t.csv", rows)
    table = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert list(table[0]) == ["index", "status", "energy_eV", "scf_steps", "wall_time_s", "rung", "reason"]
    assert float(table[0]["energy_eV"]) == rows[0].energy_eV
    assert table[1]["energy_eV"] == ""


@pytest.mark.parametrize("changed", ["pw.in", "frame.extxyz"])
def test_a_frame_whose_input_changed_runs_anew(inputs, changed):
    """The frame names the content of the pseudopotentials: a new one under the old name changes it alone."""
    label(inputs, "0000")
    path = inputs / "0000" / changed
    path.write_text(path.read_text().replace("0.7", "0.6").replace("PBE pw.x", "PBE  pw.x"))
    output = inputs.parent / "runs" / "0000" / "pw.out"
    before = output.stat().st_mtime_ns
    label(inputs, "0000")
    assert output.stat().st_mtime_ns > before
    assert (output.parent / changed).read_bytes() == path.read_bytes()


def test_an_output_of_an_earlier_input_never_passes_for_that_of_the_new_one(inputs, monkeypatch, tmp_path):
    label(inputs, "0000")
    path = inputs / "0000" / "pw.in"
    path.write_text(path.read_text().replace("0.7", "0.6"))
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        with pytest.raises(InputError, match=r"pw.x is not on PATH"):
            label(inputs, "0000")
    assert not (inputs.parent / "runs" / "0000" / "pw.out").exists()


def test_a_run_that_was_given_up_is_taken_up_again(inputs):
    given_up = espresso_batch.label(inputs, inputs.parent / "runs", ["0000"], launch=Launch(timeout_s=0.02))
    assert given_up[0].reason.startswith("cut off: stopped at Hopline's timeout")
    assert label(inputs, "0000")[0].status == "converged"


def test_a_missing_input_is_refused_before_anything_runs(inputs):
    with pytest.raises(InputError, match=r"0007.*does not exist"):
        label(inputs, "0000", "0007")
    assert not (inputs.parent / "runs").exists()


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0, reason="needs a disk of its own"
)
def test_a_full_disk_is_one_line_and_leaves_no_output(inputs, tmp_path):
    """A file system of 64 KiB: it holds the input, but neither the density nor the output."""
    disk = tmp_path / "runs"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=64k tmpfs '{disk}' 2>/dev/null"):  # noqa: S605  a path of pytest's
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises((InputError, OSError), match=r"No space left|no space is left"):
            label(inputs, "0000")
        assert not (disk / "0000" / "pw.out").exists()
    finally:
        os.system(f"umount -l '{disk}'")  # noqa: S605
