"""The live door to DFT: explore, pick frames, run pw.x on them; one job is killed, one frame never converges."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
import yaml
from workflow_runs import copy_repository, snakemake

from hopline.frames import labels_of, read_labelled

# small cells and low cutoffs: the path is under test here, converged labels are docs/labels.md's business
ESPRESSO = {"wavefunction_cutoff_Ry": 40, "density_cutoff_Ry": 160, "scf_threshold_Ry": 1e-6}
CONFIG = {
    "systems": {
        "lif": {
            "host": {"prototype": "rocksalt", "species": ["Li", "F"], "lattice_constants_A": [4.08]},
            "supercell": [1, 1, 1],
            "mobile": "Li",
            "compositions": {"bulk": 0, "Li1": 1},
            "temperatures_K": [900],
        },
        "mg-h": {
            "host": {"prototype": "hcp", "species": ["Mg"], "lattice_constants_A": [3.21, 5.21]},
            "supercell": [1, 1, 1],
            "mobile": "H",
            "compositions": {"H1": 1},
            "temperatures_K": [600],
        },
    },
    "potentials": {"chgnet": {"family": "chgnet", "weights": "0.3.0"}},
    "exploration": {
        "temperatures_K": [600, 900],
        "ensemble": "nvt",
        "duration_ps": 0.04,
        "timestep_fs": 2,
        "frame_interval_fs": 4,
    },
}
N_FRAMES = {"lif": 8, "mg-h": 4}
UNCONVERGEABLE = "0003"
START_S, STEP_S = 300, 0.2


def config_for(pseudopotentials):
    spacing = {"lif": 1.6, "mg-h": 0.8}
    return CONFIG | {
        "datasets": {
            system: {
                "system": system,
                "direct": {"frames": count, "encoder": "chgnet"},
                "labels": {
                    "mode": "espresso",
                    "frames_per_job": 2 if system == "mg-h" else 1,
                    "espresso": ESPRESSO
                    | {"pseudopotentials": pseudopotentials, "kpoint_spacing_per_A": spacing[system]},
                },
            }
            for system, count in N_FRAMES.items()
        }
    }


def rows(path):
    return list(csv.DictReader(path.open()))


def killed_in_the_middle(tree, *arguments):
    """Start the workflow and kill it, pw.x included, once some frames are labelled and another one is running."""
    command = [sys.executable, "-m", "snakemake", "--nocolor", *arguments]
    with (tree / "killed.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tree, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_S
        while len(list(tree.glob("results/*/labels/*/runs/batch-*.csv"))) < 2:
            assert time.monotonic() < deadline, (tree / "killed.log").read_text()
            assert process.poll() is None, (tree / "killed.log").read_text()
            time.sleep(STEP_S)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(["pkill", "-KILL", "-f", str(tree)], check=False)


@pytest.mark.slow
def test_twelve_frames_one_kill_and_one_that_never_converges(repository, shared_data, tmp_path):
    if shutil.which("pw.x") is None:
        pytest.skip("pw.x is not here")
    tree = copy_repository(repository, tmp_path / "a checkout with spaces")
    config = tree / "live.yaml"
    config.write_text(yaml.safe_dump(config_for(str(shared_data / "upf"))))
    folders = {system: f"results/{system}/labels/{system}" for system in N_FRAMES}
    accepted = [f"{folder}/accepted.extxyz" for folder in folders.values()]
    settings = ["--cores", "2", "--configfile", str(config)]

    inputs = snakemake(tree, *(f"{folder}/inputs" for folder in folders.values()), *settings)
    assert inputs.status == 0, inputs.output
    spoilt = tree / folders["lif"] / "inputs" / UNCONVERGEABLE / "pw.in"
    text, changes = re.subn(r"electron_maxstep *= *\d+", "electron_maxstep = 2", spoilt.read_text())
    assert changes == 1
    spoilt.write_text(text)

    killed_in_the_middle(tree, *accepted, *settings)
    # the tables' own jobs may have been cut off before Snakemake noted their end; pw.x's outputs are what costs
    done = {path: path.stat().st_mtime_ns for path in tree.glob("results/*/labels/*/runs/*/pw.out")}
    assert 2 <= len(done) < sum(N_FRAMES.values())
    assert not any((tree / path).exists() for path in accepted)

    snakemake(tree, "--unlock", *settings)
    resumed = snakemake(tree, *accepted, "--rerun-incomplete", *settings)
    assert resumed.status == 0, resumed.output
    assert {path: path.stat().st_mtime_ns for path in done} == done, "a finished frame was run again"

    for system, path in zip(folders, accepted, strict=True):
        labelled = read_labelled(tree / path)
        refused = rows(tree / folders[system] / "rejected.csv")
        assert len(labelled) + len(refused) == N_FRAMES[system]
        assert all(labels_of(atoms).stress_eV_per_A3 is not None for atoms in labelled)
        if system == "lif":
            assert [row["reason"].startswith("SCF not converged after 2 steps") for row in refused] == [True]
            assert UNCONVERGEABLE in refused[0]["source"]
        else:
            assert refused == []
    lif = read_labelled(tree / accepted[0])
    # Li and F atoms of these pseudopotentials: about -193.5 and -662.7 eV; the crystal binds by a few eV a pair
    pairs = [labels_of(atoms).energy_eV + 193.5 * atoms.symbols.count("Li") for atoms in lif]
    assert all(-672 < energy / 4 < -663 for energy in pairs)
    tables = [row for path in tree.glob("results/*/labels/*/runs/batch-*.csv") for row in rows(path)]
    assert Counter(row["status"] for row in tables) == {"converged": 11, "rejected": 1}

    again = snakemake(tree, *accepted, *settings)
    assert "Nothing to be done" in again.output
