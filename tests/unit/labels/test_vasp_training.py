"""Inputs of on-the-fly training: tags, the constraint on the cell, and a chain that is killed and goes on."""

import os
import signal
import subprocess
import sys
import time

import ase.build
import ase.io
import numpy as np
import pytest
import vasp_standin
from ase.calculators.lj import LennardJones
from label_files import write_ml_ab
from pymatgen.io.vasp.inputs import Incar, Kpoints

from hopline.console import InputError
from hopline.labels import vasp, vasp_training
from hopline.labels.readers import ml_ab
from hopline.labels.vasp_training import Plan

PLAN = Plan(
    ramp_temperature_K=700, ramp_duration_ps=20, temperatures_K=(300, 480.5), duration_ps=100, timestep_fs=1,
    friction_per_ps=10,
)  # fmt: skip
SHORT = Plan(
    ramp_temperature_K=701, ramp_duration_ps=0.02, temperatures_K=(300,), duration_ps=0.01, timestep_fs=1,
    friction_per_ps=10,
)  # fmt: skip


@pytest.fixture
def mg_h(repository):
    return vasp.read_preset(repository / "resources" / "presets" / "vasp.yaml", "mg-h")


@pytest.fixture
def crystal():
    atoms = ase.build.bulk("Mg", "hcp", a=3.2, c=5.2).repeat((2, 2, 1))
    atoms.append("H")
    atoms.positions[-1] = atoms.cell.sum(axis=0) * 0.31
    return atoms


def test_the_stages_are_the_study_s(tmp_path, mg_h, crystal):
    level = vasp_training.write_training(tmp_path, crystal, mg_h, PLAN)
    names = ["1-ramp", "2-300K", "3-480.5K"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == names
    tags = {name: Incar.from_file(tmp_path / name / "INCAR") for name in names}
    for incar in tags.values():
        expected = {
            "ML_LMLFF": True, "ML_MODE": "train", "IBRION": 0, "MDALGO": 3, "ISIF": 3, "POTIM": 1, "ISYM": 0,
            "LANGEVIN_GAMMA": [10, 10], "LANGEVIN_GAMMA_L": 10, "ENCUT": 600, "ISMEAR": 0, "SIGMA": 0.05,
        }  # fmt: skip
        assert {tag: incar[tag] for tag in expected} == expected
    assert [(tags[name]["TEBEG"], tags[name]["TEEND"], tags[name]["NSW"]) for name in names] == [
        (1, 700, 20_000), (300, 300, 100_000), (480.5, 480.5, 100_000),
    ]  # fmt: skip
    assert Kpoints.from_file(tmp_path / "2-300K" / "KPOINTS").kpts[0] == (4, 4, 4)
    start = ase.io.read(tmp_path / "1-ramp" / "POSCAR.start", format="vasp")
    assert str(start.symbols) == "HMg8"
    np.testing.assert_allclose(start.positions[1:], crystal.positions[:-1], atol=1e-8)
    # the electronic settings, and so the level, are those of single points of the same preset
    assert level == vasp.write_jobs(tmp_path / "static", [crystal], mg_h)
    script = tmp_path / vasp_training.SCRIPT
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK)


def test_the_constraint_leaves_only_the_size_of_the_cell_free(crystal):
    lines = [line.split() for line in vasp_training.iconst(crystal).splitlines()]
    assert [line[0] for line in lines] == ["LA"] * 3 + ["LR"] * 3 + ["S"] * 6
    assert [line[1:3] for line in lines[:3]] == [["1", "2"], ["1", "3"], ["2", "3"]]
    assert all(line[-1] == "0" for line in lines)
    coefficients = np.array([[float(word) for word in line[1:-1]] for line in lines[6:]])
    *_, singular, directions = np.linalg.svd(coefficients)
    assert np.count_nonzero(singular < 1e-9) == 1
    lengths = crystal.cell.lengths()
    free = directions[-1] / directions[-1][3] * lengths[0]
    np.testing.assert_allclose(free, [0, 0, 0, *lengths], atol=1e-9)


def test_the_constraint_is_the_one_of_vasps_wiki_for_its_example():
    atoms = ase.Atoms("H", cell=[4.0, 6.0, 8.0], pbc=True)
    rows = [line.split()[4:7] for line in vasp_training.iconst(atoms).splitlines()[-3:]]
    ratios = [[float(word) for word in row] for row in rows]
    np.testing.assert_allclose(ratios, [[1.5, -1, 0], [2, 0, -1], [0, 4 / 3, -1]], atol=1e-11)


@pytest.mark.parametrize(
    "change",
    [{"timestep_fs": 0}, {"duration_ps": -1}, {"temperatures_K": (300, 0)}, {"temperatures_K": ()},
     {"ramp_temperature_K": 0.5}, {"friction_per_ps": 0}],
)  # fmt: skip
def test_impossible_plans_are_refused(change):
    with pytest.raises(InputError):
        Plan(**{**vars(PLAN), **change})


STAND_IN = """
import os, pathlib, re, shutil, sys, time
here, book = pathlib.Path.cwd(), pathlib.Path(os.environ["STAND_IN"])
incar = (here / "INCAR").read_text()
steps, begin = int(re.search(r"NSW = (\\d+)", incar)[1]), float(re.search(r"TEBEG = (\\S+)", incar)[1])
assert (here / "POTCAR").stat().st_size and (here / "ICONST").exists()
known = (here / "ML_AB").read_text() if (here / "ML_AB").exists() else ""
title = (here / "POSCAR").read_text().split()[0]
with (book / "starts").open("a") as file:
    print(here.name, steps, begin, len(re.findall("Configuration num", known)), title, file=file)
stop = (book / "stop").read_text().split() if (book / "stop").exists() else []
lines = (here / "POSCAR").read_text().splitlines()[1:17]
whole = (book / "ML_ABN").read_text()
for step in range(1, steps + 1):
    with (here / "OSZICAR").open("a" if step > 1 else "w") as file:
        print("%7d T=   300. E= -.1E+02 F= -.1E+02" % step, file=file)
    (here / "CONTCAR").write_text("\\n".join(["%s-%d" % (here.name, step), *lines[:16], "", *lines[7:16], ""]))
    (here / "ML_ABN").write_text(whole)
    if stop and stop[0] == here.name and step == int(stop[1]):
        (book / "stop").unlink()
        if stop[2] == "torn":
            (here / "CONTCAR").write_text("torn")
        if stop[2] == "torn-set":
            (here / "ML_ABN").write_text(whole[:-30])
        (book / "waiting").touch()
        time.sleep(60)
(here / "OUTCAR").write_text("General timing and accounting informations for this job:\\n")
"""
"""Makes MD steps of the crystal as VASP notes them; waits to be killed at the step that $STAND_IN/stop names."""


@pytest.fixture
def chain(tmp_path, mg_h, crystal):
    folder = tmp_path / "training"
    vasp_training.write_training(folder, crystal, mg_h, SHORT)
    vasp_standin.potcar_folder(tmp_path / "potcars", ("PAW_PBE Mg 13Apr2007", "PAW_PBE H 15Jun2001"))
    (tmp_path / "vasp").write_text(f"#!{sys.executable}\n{STAND_IN}")
    (tmp_path / "vasp").chmod(0o755)
    crystal.calc = LennardJones()
    write_ml_ab(tmp_path, [crystal, crystal], tmp_path)
    environment = {
        **os.environ, "STAND_IN": str(tmp_path), "VASP_COMMAND": str(tmp_path / "vasp"),
        "POTCAR_FOLDER": str(tmp_path / "potcars"),
    }  # fmt: skip

    def start():
        return subprocess.Popen(
            [folder / vasp_training.SCRIPT], env=environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    return start


def kill_when_waiting(tmp_path, process):
    deadline_s = time.monotonic() + 20
    while not (tmp_path / "waiting").exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    (tmp_path / "waiting").unlink()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def starts(tmp_path):
    return (tmp_path / "starts").read_text().splitlines()


def test_the_chain_hands_positions_and_training_set_on(tmp_path, chain):
    process = chain()
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    # stage, steps, first temperature, configurations it knows, and the structure it starts from
    assert starts(tmp_path) == ["1-ramp 20 1.0 0 HMg8", "2-300K 10 300.0 2 1-ramp-20"]
    assert "the training set is ML_AB" in output
    assert [candidate.reason for candidate in ml_ab.read(tmp_path / "training" / "ML_AB")] == ["", ""]
    assert not list((tmp_path / "training").rglob("POTCAR"))
    again = chain()
    again.communicate(timeout=30)
    assert again.returncode == 0
    assert len(starts(tmp_path)) == 2


@pytest.mark.parametrize(
    ("torn", "resumed"),
    [
        # after 5 of 20 steps from 1 to 701 K: 15 are left, from 176 K
        ("whole", "1-ramp 15 176.0 2 1-ramp-5"),
        # a structure or a first training set that was being written is no start
        ("torn", "1-ramp 20 1.0 0 HMg8"),
        ("torn-set", "1-ramp 20 1.0 0 HMg8"),
    ],
)
def test_a_killed_ramp_goes_on_where_it_was(tmp_path, chain, torn, resumed):
    (tmp_path / "stop").write_text(f"1-ramp 5 {torn}")
    kill_when_waiting(tmp_path, chain())
    process = chain()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert starts(tmp_path)[1] == resumed
    assert starts(tmp_path)[2].startswith("2-300K 10 300.0 2 1-ramp-")
    assert len(starts(tmp_path)) == 3


def test_a_killed_later_stage_keeps_the_set_it_began_with(tmp_path, chain):
    (tmp_path / "stop").write_text("2-300K 4 torn-set")
    kill_when_waiting(tmp_path, chain())
    process = chain()
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert starts(tmp_path)[-1] == "2-300K 6 300.0 2 2-300K-4"
