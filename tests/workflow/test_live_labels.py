"""The live door to DFT: explore, pick two frames, run pw.x on them, ingest what it says."""

import shutil

import pytest
import yaml
from workflow_runs import copy_repository, snakemake

from hopline.frames import labels_of, read_labelled

# eight atoms and low cutoffs: the path is under test here, converged labels are resources/lif's business
LIVE = {
    "systems": {
        "lif": {
            "host": {"prototype": "rocksalt", "species": ["Li", "F"], "lattice_constants_A": [4.08]},
            "supercell": [1, 1, 1],
            "mobile": "Li",
            "compositions": {"bulk": 0, "Li1": 1},
            "temperatures_K": [900],
        }
    },
    "potentials": {"chgnet": {"family": "chgnet", "weights": "0.3.0"}},
    "exploration": {
        "temperatures_K": [900],
        "ensemble": "nvt",
        "duration_ps": 0.02,
        "timestep_fs": 2,
        "frame_interval_fs": 4,
    },
}


@pytest.mark.slow
def test_two_selected_frames_are_labelled_by_pw_and_accepted(repository, shared_data, tmp_path):
    if shutil.which("pw.x") is None:
        pytest.skip("pw.x is not here")
    tree = copy_repository(repository, tmp_path / "a checkout with spaces")
    espresso = {
        "pseudopotentials": str(shared_data / "upf"),
        "wavefunction_cutoff_Ry": 40,
        "density_cutoff_Ry": 160,
        "kpoints": [1, 1, 1],
        "kpoints_shift": [0, 0, 0],
        "scf_threshold_Ry": 1e-6,
    }
    dataset = {
        "system": "lif",
        "direct": {"frames": 2, "encoder": "chgnet"},
        "labels": {"mode": "espresso", "espresso": espresso},
    }
    config = tree / "live.yaml"
    config.write_text(yaml.safe_dump(LIVE | {"datasets": {"live": dataset}}))
    accepted = "results/lif/labels/live/accepted.extxyz"

    run = snakemake(tree, accepted, "--cores", "2", "--configfile", str(config))

    assert run.status == 0, run.output
    labelled = read_labelled(tree / accepted)
    assert len(labelled) == 2
    assert all(labels_of(atoms).stress_eV_per_A3 is not None for atoms in labelled)
    # Li and F atoms of these pseudopotentials: about -193.5 and -662.7 eV; the crystal binds by a few eV a pair
    pairs = [labels_of(atoms).energy_eV + 193.5 * atoms.symbols.count("Li") for atoms in labelled]
    assert all(-672 < energy / 4 < -663 for energy in pairs)
    again = snakemake(tree, accepted, "--cores", "2", "--configfile", str(config))
    assert "Nothing to be done" in again.output
