"""Runs of VASP by a stand-in (see `vasp_standin`) that prints a real run, fails, hangs or is killed as told."""

import math
import time

import pytest
import vasp_standin
from pymatgen.io.vasp.inputs import Incar
from vasp_standin import ENERGY_EV, SCF_STEPS, WALL_TIME_S, starts

from hopline import frames
from hopline.console import InputError
from hopline.labels import sources, vasp, vasp_run
from hopline.labels.vasp_run import Launch, other_route


@pytest.fixture
def vasp_does(tmp_path, monkeypatch, shared_data):
    """Return a function that runs the stand-in on two frames of the real run's structure; ``again`` keeps its deeds."""
    hashes = vasp_standin.potcar_folder(tmp_path / "potcars")
    preset = vasp.Preset(incar=vasp_standin.PRESET.incar, potcars=vasp_standin.PRESET.potcars, sha256=hashes)
    frame = vasp_standin.real_frame(shared_data)
    vasp.write_jobs(tmp_path / "inputs", [frame, frame], preset)
    book = vasp_standin.install(tmp_path, monkeypatch, shared_data)

    def run(deeds=None, indices=("0000",), **launch):
        if deeds is not None:
            (book / "deeds").write_text(deeds)
        return vasp_run.label(
            tmp_path / "inputs", tmp_path / "runs", indices, potcar_folder=tmp_path / "potcars", launch=Launch(**launch)
        )  # fmt: skip

    return run


def found(folder):
    return {path.name for path in folder.iterdir()}


def test_a_good_run_gives_its_label_and_leaves_what_ingestion_needs(tmp_path, vasp_does):
    (row, _) = vasp_does("good", indices=("0000", "0001"))
    assert (row.index, row.status, row.rung, row.reason) == ("0000", "converged", "as given", "")
    assert (row.energy_eV, row.scf_steps, row.wall_time_s) == (ENERGY_EV, SCF_STEPS, WALL_TIME_S)
    assert found(tmp_path / "runs" / "0000") == {
        "INCAR", "POSCAR", "POTCAR.spec", "frame.extxyz", "vasprun.xml", "OUTCAR", "vasp.out", "run.json",
    }  # fmt: skip
    together = sum(path.stat().st_size for path in (tmp_path / "potcars").glob("*/POTCAR"))
    assert starts(tmp_path) == [f"ICHARG 2; no density; {together}"] * 2
    candidates = list(sources.candidates([tmp_path / "runs"], file_format="auto"))
    assert [candidate.reason for candidate in candidates] == ["", ""]
    (frame,) = frames.read_frames(tmp_path / "inputs" / "0000" / "frame.extxyz")
    assert candidates[0].energy_eV == ENERGY_EV
    assert candidates[0].level_of_theory == frame.info["level_of_theory"]
    assert frames.frame_id(candidates[0].atoms) == frames.frame_id(frame)


def test_a_finished_run_is_not_run_again_unless_something_changed(tmp_path, vasp_does):
    first = vasp_does("good")
    assert vasp_does() == first
    assert len(starts(tmp_path)) == 1
    (tmp_path / "runs" / "0000" / "vasprun.xml").unlink()
    assert vasp_does() == first
    assert len(starts(tmp_path)) == 2
    incar = tmp_path / "inputs" / "0000" / "INCAR"
    incar.write_text(incar.read_text().replace("NELM = 100", "NELM = 101"))
    assert vasp_does() == first
    assert len(starts(tmp_path)) == 3


def test_an_unconverged_run_gets_one_more_way_to_the_same_level_of_theory(tmp_path, vasp_does):
    (row,) = vasp_does("unconverged|good")
    assert (row.status, row.rung, row.energy_eV) == ("converged", "all bands at once", ENERGY_EV)
    assert [line.rsplit(";", 1)[0] for line in starts(tmp_path)] == [
        "ICHARG 2; no density",
        "ICHARG 1; density",
    ]
    given, kept = (Incar.from_file(tmp_path / "runs" / "0000" / name) for name in ("INCAR", "INCAR.rung"))
    changed = {tag for tag in {*given, *kept} if given.get(tag) != kept.get(tag)}
    assert changed == {"ALGO", "NELM", "ICHARG", "ISTART"}
    assert (kept["ALGO"], kept["NELM"]) == ("All", 200)
    assert vasp_does() == [row]
    assert len(starts(tmp_path)) == 2


def test_a_run_that_no_rung_saves_is_rejected_and_keeps_the_run_as_given(tmp_path, vasp_does):
    (row,) = vasp_does("unconverged|die:LAPACK: Routine ZPOTRF failed!")
    assert (row.status, row.energy_eV, row.rung) == ("rejected", None, "as given")
    assert row.reason == "SCF not converged after 21 steps; also tried: all bands at once"
    (candidate,) = sources.candidates([tmp_path / "runs"], file_format="auto")
    assert candidate.reason == "SCF not converged after 21 steps"
    assert vasp_does() == [row]
    # the run as given, the other way from its density, and without it
    assert len(starts(tmp_path)) == 3


@pytest.mark.parametrize(
    ("tags", "rung"),
    [
        ({"ALGO": "Fast", "NELM": 60}, "all bands at once"),
        ({}, "all bands at once"),
        ({"ALGO": "All", "NELM": 150}, "linear mixing"),
        ({"ALGO": "Normal", "ISMEAR": -5}, "linear mixing"),
    ],
)
def test_the_other_way_is_another_one_and_leaves_the_level_alone(tags, rung):
    name, changes = other_route(tags)
    assert name == rung
    assert set(changes) <= {"ALGO", "NELM", "AMIX", "BMIX", "AMIX_MAG", "BMIX_MAG"}
    assert changes["NELM"] >= max(200, 2 * tags.get("NELM", 0))


def test_an_error_of_vasp_is_named_and_not_tried_again(tmp_path, vasp_does):
    (row,) = vasp_does("die:     LAPACK: Routine ZPOTRF failed!")
    assert row.status == "rejected"
    assert row.reason.startswith("VASP failed, zpotrf: LAPACK: Routine ZPOTRF failed! (cut off")
    assert len(starts(tmp_path)) == 1


def test_a_silent_death_is_given_a_second_chance_and_no_third(tmp_path, vasp_does):
    (saved,) = vasp_does("die|good", indices=("0000",))
    assert saved.status == "converged"
    (lost,) = vasp_does("die", indices=("0001",))
    assert (lost.status, lost.reason) == ("rejected", "cut off: the file ends inside this ionic step")
    assert len(starts(tmp_path)) == 4


def test_a_run_past_its_time_is_given_up_and_taken_up_when_there_is_more(tmp_path, vasp_does):
    (row,) = vasp_does("hang|good", timeout_s=0.5)
    assert (row.status, row.reason) == ("rejected", "cut off: stopped at Hopline's timeout of 0.5 s")
    assert vasp_does(timeout_s=math.inf)[0].status == "converged"
    assert len(starts(tmp_path)) == 2


def test_at_the_end_of_the_jobs_time_the_density_is_kept_and_gone_on_from(tmp_path, vasp_does):
    with pytest.raises(vasp_run.Stopped, match="run the same command again"):
        vasp_does("hang|good", stop_at_s=time.monotonic() + 0.5)
    here = tmp_path / "runs" / "0000"
    assert found(here) == {".scratch"}
    assert not list(here.rglob("POTCAR"))
    assert list(sources.candidates([here], file_format="auto")) == []
    assert vasp_does()[0].status == "converged"
    assert starts(tmp_path)[1].startswith("ICHARG 1; density")


def test_a_density_that_vasp_dies_of_is_thrown_away(tmp_path, vasp_does):
    with pytest.raises(vasp_run.Stopped):
        vasp_does("hang|die|good", stop_at_s=time.monotonic() + 0.5)
    assert vasp_does()[0].status == "converged"
    modes = [line.rsplit(";", 1)[0] for line in starts(tmp_path)]
    assert modes == ["ICHARG 2; no density", "ICHARG 1; density", "ICHARG 2; no density"]


def test_a_run_stopped_by_hand_is_no_label_though_its_file_is_whole(vasp_does):
    (row,) = vasp_does("stopped")
    assert (row.status, row.reason) == ("rejected", "cut off: stopped through a STOPCAR before SCF converged")


def test_what_never_started_is_refused_and_leaves_no_outputs(tmp_path, vasp_does, monkeypatch):
    with pytest.raises(InputError, match=r"did not start.*vasp_std.*not enough slots"):
        vasp_does("nothing")
    with pytest.raises(InputError, match="mpirun-elsewhere is not on PATH"):
        vasp_does(launcher="mpirun-elsewhere -np 2")
    with pytest.raises(InputError, match="vasp_gamma is not on PATH"):
        vasp_does(executable="vasp_gamma")
    assert found(tmp_path / "runs" / "0000") == {".scratch"}
    monkeypatch.setenv("PATH", "/usr/bin")
    (row,) = vasp_does("good", launcher="env A=1", executable=str(tmp_path / "bin" / "vasp_std"))
    assert row.status == "converged"


def test_missing_inputs_and_wrong_potcars_are_refused_before_any_run(tmp_path, vasp_does):
    with pytest.raises(InputError, match=r"0007/INCAR does not exist"):
        vasp_does("good", indices=("0000", "0007"))
    (tmp_path / "potcars" / "Ti" / "POTCAR").write_bytes(vasp_standin.potcar("PAW_PBE Ti_pv 07Sep2000"))
    with pytest.raises(InputError, match="is not the POTCAR of Ti that is needed: its SHA-256 is"):
        vasp_does("good")
    assert starts(tmp_path) == []
