"""A smeared insulator that pw.x leads astray: real runs of LiF in which it does."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk

from hopline.console import InputError
from hopline.labels import espresso, ladder
from hopline.labels.espresso_output import UNCONVERGED, WRONG_FERMI_LEVEL, parse_output

pytestmark = pytest.mark.skipif(shutil.which("pw.x") is None, reason="pw.x is not installed")

COLD = espresso.EspressoSettings(
    functional="PBE", wavefunction_cutoff_Ry=30, density_cutoff_Ry=120, kpoints=(2, 2, 2), kpoints_shift=(1, 1, 1),
    smearing="cold", smearing_width_Ry=0.045, scf_threshold_Ry=1e-10, mixing_beta=0.7, max_scf_steps=30,
)  # fmt: skip
GAUSSIAN = replace(COLD, smearing="gaussian", smearing_width_Ry=0.005)
"""Its Fermi level is the only one there is."""
SCF_NOISE_EV = 1e-5
"""Well above two runs converged to 1e-10 Ry; the wrong level is off by 0.1 eV and more."""


@pytest.fixture
def job(shared_data, tmp_path):
    """Function that writes a run folder of two-atom LiF and returns it."""
    upfs = espresso.find_pseudopotentials(shared_data / "upf", ["Li", "F"])

    def write(name, settings, lattice_constant_A):
        crystal = bulk("LiF", "rocksalt", a=lattice_constant_A)
        crystal.rattle(0.05, seed=1)
        espresso.write_job(tmp_path / name, crystal, settings, upfs)
        return tmp_path / name

    return write


@pytest.mark.parametrize(("lattice_constant_A", "failure"), [(4.5, UNCONVERGED), (4.6, WRONG_FERMI_LEVEL)])
def test_the_second_run_gives_the_label_of_the_right_fermi_level(job, capsys, lattice_constant_A, failure):
    folder = job("cold", COLD, lattice_constant_A)
    alone = espresso.run(folder / "pw.in", folder / "alone.out")
    assert alone.reason.startswith(failure)
    assert alone.energy_eV is None

    label = ladder.run(folder / "pw.in", folder / "pw.out")
    told = capsys.readouterr().err
    assert failure in told
    assert "an insulator" in told
    other = job("gaussian", GAUSSIAN, lattice_constant_A)
    truth = espresso.run(other / "pw.in", other / "pw.out")
    assert label.energy_eV == pytest.approx(truth.energy_eV, abs=SCF_NOISE_EV)
    np.testing.assert_allclose(label.forces_eV_per_A, truth.forces_eV_per_A, atol=1e-3)
    np.testing.assert_allclose(label.stress_eV_per_A3, truth.stress_eV_per_A3, atol=1e-4)
    # what is kept is the run that counts, and the input that made it
    assert parse_output((folder / "pw.out").read_text()).energy_eV == label.energy_eV
    assert "'fixed'" in (folder / "pw.insulator.in").read_text()
    assert not list(folder.glob("*.tmp"))


def test_a_gap_too_narrow_for_the_smearing_leaves_the_failure(job, capsys):
    folder = job("wide", replace(COLD, smearing_width_Ry=0.06), 4.4)
    result = ladder.run(folder / "pw.in", folder / "pw.out")
    assert result.reason.startswith(WRONG_FERMI_LEVEL)
    assert "the first run stands" in capsys.readouterr().err
    assert parse_output((folder / "pw.out").read_text()).reason == result.reason
    assert sorted(path.name for path in folder.iterdir()) == ["frame.extxyz", "pw.in", "pw.out"]


def test_a_second_run_that_does_not_start_leaves_the_first(job, capsys, monkeypatch):
    folder = job("cold", COLD, 4.6)
    first = espresso.run(folder / "pw.in", folder / "pw.out")
    attempts = iter([first])

    def once(*_, **__):
        try:
            return next(attempts)
        except StopIteration:
            raise InputError("pw.x did not start") from None

    monkeypatch.setattr(espresso, "run", once)
    assert ladder.run(folder / "pw.in", folder / "pw.out") is first
    assert "pw.x did not start; the first run stands" in capsys.readouterr().err
    assert not (folder / "pw.insulator.in").exists()


def test_a_run_that_is_good_or_has_an_odd_electron_is_run_once(job, capsys):
    good = job("good", GAUSSIAN, 4.1)
    assert ladder.run(good / "pw.in", good / "pw.out").converged
    odd = job("odd", replace(COLD, max_scf_steps=2), 4.1)
    text = (odd / "pw.in").read_text()
    (odd / "pw.in").write_text(re.sub(r"(&SYSTEM\n)", r"\1   tot_charge = 1\n", text))
    assert ladder.run(odd / "pw.in", odd / "pw.out").reason.startswith(UNCONVERGED)
    assert "once more" not in capsys.readouterr().err
