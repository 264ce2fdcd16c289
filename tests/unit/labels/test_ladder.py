"""Runs that give no label as they are given, and the other ways to the same answer: real runs of pw.x."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from hopline.labels import espresso, espresso_run, ladder
from hopline.labels.espresso_output import UNCONVERGED, WRONG_FERMI_LEVEL, PwOutput, parse_output, read_output
from hopline.labels.espresso_run import Launch
from hopline.labels.pseudopotentials import find_pseudopotentials

needs_pw = pytest.mark.skipif(shutil.which("pw.x") is None, reason="pw.x is not installed")
DEBIAN_MG = Path("/usr/share/espresso/pseudo/Mg.pz-n-vbc.UPF")
needs_debian_mg = pytest.mark.skipif(
    not DEBIAN_MG.is_file(), reason="Debian's LDA magnesium is not installed"
)

COLD = espresso.EspressoSettings(
    functional="PBE", wavefunction_cutoff_Ry=30, density_cutoff_Ry=120, kpoints=(2, 2, 2), kpoints_shift=(1, 1, 1),
    smearing="cold", smearing_width_Ry=0.045, scf_threshold_Ry=1e-10, mixing_beta=0.7, max_scf_steps=30,
)  # fmt: skip
GAUSSIAN = replace(COLD, smearing="gaussian", smearing_width_Ry=0.005)
"""Its Fermi level is the only one there is."""
MAGNESIUM = espresso.EspressoSettings(
    functional="LDA", wavefunction_cutoff_Ry=15, density_cutoff_Ry=60, kpoints=(1, 1, 1), kpoints_shift=(0, 0, 0),
    smearing="gaussian", smearing_width_Ry=0.005, scf_threshold_Ry=1e-7, mixing_beta=0.7, max_scf_steps=45,
)  # fmt: skip
SCF_NOISE_EV = 1e-5
"""Well above two runs converged to 1e-10 Ry; the wrong level is off by 0.1 eV and more."""
GIVEN = ["frame.extxyz", "pw.in", "pw.out"]


@pytest.fixture
def job(shared_data, tmp_path):
    """Function that writes a run folder of two-atom LiF and returns it."""
    upfs = find_pseudopotentials(shared_data / "upf", ["Li", "F"])

    def write(name, settings, lattice_constant_A):
        crystal = bulk("LiF", "rocksalt", a=lattice_constant_A)
        crystal.rattle(0.05, seed=1)
        espresso.write_job(tmp_path / name, crystal, settings, upfs)
        return tmp_path / name

    return write


@pytest.fixture
def magnesium(tmp_path):
    """Function that writes a run folder of a rattled Mg supercell with Debian's pseudopotential and returns it."""

    def write(repeats, **changes):
        crystal = bulk("Mg", "hcp", a=3.2, c=5.2).repeat(repeats)
        crystal.rattle(0.03, seed=0)
        espresso.write_job(tmp_path / "mg", crystal, replace(MAGNESIUM, **changes), {"Mg": DEBIAN_MG})
        return tmp_path / "mg"

    return write


def climb(folder):
    return ladder.run(folder / "pw.in", folder / "pw.out", launch=Launch())


def alone(folder):
    return espresso_run.run((folder / "pw.in").read_text(), folder / "alone", launch=Launch())


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@needs_pw
@pytest.mark.parametrize(("lattice_constant_A", "failure"), [(4.5, UNCONVERGED), (4.6, WRONG_FERMI_LEVEL)])
def test_fixed_occupations_give_the_label_of_the_right_fermi_level(job, capsys, lattice_constant_A, failure):
    folder = job("cold", COLD, lattice_constant_A)
    label = climb(folder)
    assert label.rung == "fixed occupations"
    assert [attempt.rung for attempt in label.attempts] == ["as given", "fixed occupations"]
    assert label.attempts[0].reason.startswith(failure)
    assert failure in capsys.readouterr().err
    truth = alone(job("gaussian", GAUSSIAN, lattice_constant_A))
    assert label.result.energy_eV == pytest.approx(truth.energy_eV, abs=SCF_NOISE_EV)
    np.testing.assert_allclose(label.result.forces_eV_per_A, truth.forces_eV_per_A, atol=1e-3)
    np.testing.assert_allclose(label.result.stress_eV_per_A3, truth.stress_eV_per_A3, atol=1e-4)
    # what is kept is the run that counts, and the input that made it
    assert read_output(folder / "pw.out").energy_eV == label.result.energy_eV
    assert espresso.keyword((folder / "rung.in").read_text(), "occupations") == "fixed"
    assert names(folder) == [*GIVEN, "rung.in", "rungs.csv"]
    assert [row["rung"] for row in csv.DictReader((folder / "rungs.csv").open())] == [
        "as given",
        "fixed occupations",
    ]


@needs_pw
def test_a_gap_too_narrow_for_the_smearing_leaves_the_failure(job):
    folder = job("wide", replace(COLD, smearing_width_Ry=0.06), 4.4)
    label = climb(folder)
    assert label.attempts[1].reason.startswith("a gap of ")
    assert label.result.reason.startswith(WRONG_FERMI_LEVEL)
    assert label.result.reason.endswith("(Hopline tried 2 rungs: as given, fixed occupations)")
    assert names(folder) == [*GIVEN, "rungs.csv"]


@needs_pw
def test_without_a_frame_that_states_the_level_occupations_stay_as_they_are(job):
    folder = job("cold", COLD, 4.6)
    (folder / "frame.extxyz").unlink()
    label = climb(folder)
    assert label.result.reason.startswith(WRONG_FERMI_LEVEL)
    assert len(label.attempts) == 1


@needs_pw
def test_a_good_run_is_run_once(job, capsys):
    folder = job("good", GAUSSIAN, 4.1)
    label = climb(folder)
    assert (label.rung, label.result.converged) == ("as given", True)
    assert names(folder) == GIVEN
    assert "next" not in capsys.readouterr().err


@needs_pw
@needs_debian_mg
@pytest.mark.slow
@pytest.mark.parametrize(
    ("repeats", "width_Ry", "rung"), [((3, 3, 1), 0.005, "gentle mixing"), ((2, 2, 2), 0.04, "more bands")]
)
def test_magnesium_that_does_not_converge_as_given_is_saved(magnesium, repeats, width_Ry, rung):
    """Debian's LDA magnesium: charge that sloshes in 18 atoms, too few empty bands for the smearing in 16.

    The answer is that of a careful run from the start: small steps, many bands, a tighter threshold. What is left is
    the threshold itself, 1e-7 Ry, and what the default bands leave out.
    """
    folder = magnesium(repeats, smearing_width_Ry=width_Ry)
    label = climb(folder)
    assert label.rung == rung
    assert label.attempts[0].reason == f"{UNCONVERGED} after 45 steps"
    kept = (folder / "rung.in").read_text()
    for name in ("ecutwfc", "ecutrho", "smearing", "degauss", "occupations", "conv_thr"):
        assert espresso.keyword(kept, name) == espresso.keyword((folder / "pw.in").read_text(), name)

    careful = espresso.with_keywords(
        (folder / "pw.in").read_text(),
        "electrons",
        {"mixing_beta": 0.2, "mixing_mode": "local-TF", "conv_thr": 1e-9, "electron_maxstep": 100},
    )
    careful = espresso.with_keywords(careful, "system", {"nbnd": 40})
    truth = espresso_run.run(careful, folder / "careful", launch=Launch())
    assert truth.converged
    assert label.result.energy_eV / len(truth.atoms) == pytest.approx(
        truth.energy_eV / len(truth.atoms), abs=2e-5
    )
    np.testing.assert_allclose(label.result.forces_eV_per_A, truth.forces_eV_per_A, atol=5e-3)


@needs_pw
@needs_debian_mg
def test_magnesium_that_no_rung_saves_is_refused_in_the_end(magnesium):
    folder = magnesium((2, 2, 1), max_scf_steps=3)
    label = climb(folder)
    tried = ["as given", "gentle mixing", "more bands", "wider smearing first", "conjugate gradients"]
    assert [attempt.rung for attempt in label.attempts] == tried
    assert label.rung == "as given"
    assert label.result.energy_eV is None
    reason = f"{UNCONVERGED} after 3 steps (Hopline tried 5 rungs: {', '.join(tried)})"
    assert read_output(folder / "pw.out").reason == reason
    assert names(folder) == [*GIVEN, "rungs.csv"]


@needs_pw
@needs_debian_mg
@pytest.mark.slow
def test_the_wider_smearing_only_prepares(magnesium):
    """The label is at the smearing that was asked for, from the density of the wider one.

    In nine steps neither gentle mixing (17 are needed) nor more bands (10) arrive, a smearing three times as wide does
    (9), and from its density the one asked for (7).
    """
    folder = magnesium((2, 2, 2), max_scf_steps=9)
    given = (folder / "pw.in").read_text()
    label = climb(folder)
    assert label.rung == "wider smearing first"
    assert espresso.keyword((folder / "rung.in").read_text(), "degauss") == espresso.keyword(given, "degauss")
    printed = (folder / "pw.out").read_text()
    assert "The initial density is read from file" in printed
    assert "width (Ry)=  0.0050" in printed


@needs_pw
def test_a_rung_that_was_finished_before_a_kill_is_not_run_again(job, monkeypatch, tmp_path):
    folder = job("good", GAUSSIAN, 4.1)
    text = (folder / "pw.in").read_text()
    result = espresso_run.run(text, folder / ladder.SCRATCH / ladder.AS_GIVEN, launch=Launch())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert climb(folder).result.energy_eV == result.energy_eV
    assert names(folder) == GIVEN


@needs_pw
def test_a_run_that_was_given_up_is_not_climbed_from(job):
    folder = job("good", GAUSSIAN, 4.1)
    label = ladder.run(folder / "pw.in", folder / "pw.out", launch=Launch(timeout_s=0.05))
    assert label.result.timed_out
    assert len(label.attempts) == 1
    # what it has got is kept for an attempt with more time
    assert (folder / ladder.SCRATCH).is_dir()
    assert climb(folder).result.converged
    assert names(folder) == GIVEN


NOTHING = PwOutput(
    converged=False, reason="", energy_eV=None, forces_eV_per_A=None, stress_eV_per_A3=None, smearing_eV=0.0,
    gap_eV=None, atoms=None, scf_steps=0, wall_time_s=None, version=None, n_electrons=None, theory="", cutoffs="",
    pseudopotentials={},
)  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "printed", "first"),
    [
        ("SCF not converged after 9 steps", "", "fixed occupations, gentle mixing"),
        (
            "SCF not converged after 9 steps",
            "c_bands:  3 eigenvalues not converged",
            "fixed occupations, more bands",
        ),
        (
            "pw.x stopped with an error in cdiaghg: ",
            "S matrix not positive definite",
            "fixed occupations, more bands",
        ),
        (
            "pw.x stopped with an error in c_bands: ",
            "too many bands are not converged",
            "fixed occupations, more bands",
        ),
        ("wrong Fermi level: ", "", "fixed occupations"),
        ("pw.x stopped with an error in electrons: ", "charge is wrong: smearing is needed", ""),
        ("pw.x stopped with an error in readpp: ", "file Li.upf not found", ""),
        ("no forces printed", "c_bands:  3 eigenvalues not converged", ""),
        ("cut off: stopped at Hopline's timeout of 9 s", "", ""),
        ("interrupted: the output ends without JOB DONE", "", ""),
    ],
)
def test_the_symptom_chooses_the_rungs(reason, printed, first):
    assert ", ".join(ladder.rungs_for(replace(NOTHING, reason=reason), printed)[:2]) == first


def test_no_rung_touches_the_level_of_theory(job):
    text = (job("any", COLD, 4.1) / "pw.in").read_text()
    first = replace(NOTHING, n_electrons=20.0)
    for route in (ladder.gentle_mixing, ladder.more_bands, ladder.conjugate_gradients):
        changed = route(text, first)
        assert changed != text
        for name in (
            "ecutwfc",
            "ecutrho",
            "smearing",
            "degauss",
            "occupations",
            "conv_thr",
            "electron_maxstep",
        ):
            assert espresso.keyword(changed, name) == espresso.keyword(text, name)
        assert changed.partition("ATOMIC_SPECIES")[2] == text.partition("ATOMIC_SPECIES")[2]
    assert espresso.keyword(ladder.more_bands(text, first), "nbnd") == "20"
    assert ladder.fixed_occupations(text, replace(first, n_electrons=21.0)) is None
    insulator = ladder.fixed_occupations(text, first)
    assert (espresso.keyword(insulator, "nbnd"), espresso.keyword(insulator, "degauss")) == ("11", None)
    assert ladder.more_bands(insulator, first) is None
    assert parse_output("").reason
