"""The XML of pw.x against what the same runs printed, and XML that is broken, hostile or of another kind."""

import re
import shutil

import ase.build
import numpy as np
import pytest

from hopline.labels import espresso, espresso_run
from hopline.labels.espresso_output import parse_output, read_output
from hopline.labels.espresso_xml import parse_xml
from hopline.labels.pseudopotentials import find_pseudopotentials
from hopline.units import BOHR_A, RYDBERG_EV

PRINTED_ENERGY_EV = 0.51e-8 * RYDBERG_EV
PRINTED_FORCE = 0.51e-8 * RYDBERG_EV / BOHR_A
PRINTED_STRESS = 0.51e-8 * RYDBERG_EV / BOHR_A**3
"""Half of the last digit that pw.x prints, in Ry, Ry/bohr and Ry/bohr^3."""
PRINTED_POSITION_A = 1e-5
GOOD = ("vcrelax_success", "default_xml_240411")
FAILED = {
    "failed_scf_not_converged": "SCF not converged after 2 steps",
    "failed_out_of_walltime": "SCF not converged after 1 steps",
    "tot_magnetization": "no forces in it",
}


@pytest.fixture
def outputs(shared_data):
    return shared_data / "dft_outputs" / "espresso"


def xml_of(folder):
    return (folder / "data-file-schema.xml").read_text()


def assert_same(mine, printed):
    assert mine.converged, mine.reason
    assert mine.energy_eV == pytest.approx(printed.energy_eV, abs=PRINTED_ENERGY_EV)
    assert mine.smearing_eV == pytest.approx(printed.smearing_eV, abs=PRINTED_ENERGY_EV)
    np.testing.assert_allclose(mine.forces_eV_per_A, printed.forces_eV_per_A, atol=PRINTED_FORCE)
    np.testing.assert_allclose(mine.stress_eV_per_A3, printed.stress_eV_per_A3, atol=PRINTED_STRESS)
    assert list(mine.atoms.numbers) == list(printed.atoms.numbers)
    np.testing.assert_allclose(mine.atoms.positions, printed.atoms.positions, atol=PRINTED_POSITION_A)
    np.testing.assert_allclose(mine.atoms.cell.array, printed.atoms.cell.array, atol=PRINTED_POSITION_A)
    for name in ("scf_steps", "version", "n_electrons", "cutoffs", "energy_kind"):
        assert getattr(mine, name) == getattr(printed, name)


@pytest.mark.parametrize("name", GOOD)
def test_good_runs_say_in_xml_what_they_printed(outputs, name):
    assert_same(parse_xml(xml_of(outputs / name)), read_output(outputs / name / "aiida.out"))


@pytest.mark.parametrize("name", FAILED)
def test_failed_runs_are_rejected_whichever_file_is_read(outputs, name):
    result = parse_xml(xml_of(outputs / name))
    assert result.reason == FAILED[name]
    assert not result.converged
    assert result.energy_eV is None
    assert not read_output(outputs / name / "aiida.out").converged


def test_the_smearing_term_has_the_sign_that_is_printed(outputs):
    """Silicon smeared by 0.2 Ry: -TS is -0.32119610 Ry."""
    result = parse_xml(xml_of(outputs / "tot_magnetization"))
    assert result.smearing_eV == pytest.approx(-0.32119610 * RYDBERG_EV, abs=PRINTED_ENERGY_EV)


@pytest.mark.skipif(shutil.which("pw.x") is None, reason="pw.x is not installed")
@pytest.mark.parametrize(
    "change",
    [
        {"smearing": "none"}, {"smearing": "gaussian"}, {"smearing": "cold"}, {"smearing": "methfessel-paxton"},
        {"smearing": "fermi-dirac"}, {"total_magnetization": 0.0},
    ],
    ids=lambda change: next(str(value) for value in change.values()),
)  # fmt: skip
def test_a_run_of_ones_own_has_one_level_of_theory_in_both_files(shared_data, tmp_path, change):
    """Rattled LiF: no number is zero by symmetry."""
    upfs = find_pseudopotentials(shared_data / "upf", ["Li", "F"])
    crystal = ase.build.bulk("LiF", "rocksalt", a=4.0)
    crystal.rattle(0.1, seed=1)
    values = {
        "functional": "PBE", "wavefunction_cutoff_Ry": 25, "density_cutoff_Ry": 100, "kpoints": (2, 1, 1),
        "kpoints_shift": (0, 0, 0), "smearing": "gaussian", "smearing_width_Ry": 0.005, "scf_threshold_Ry": 1e-8,
        "mixing_beta": 0.7, "max_scf_steps": 60,
    }  # fmt: skip
    text = espresso.write_input(crystal, espresso.settings_from(values | change, upfs), upfs)
    printed = espresso_run.run(text, tmp_path, launch=espresso_run.Launch(), keep_density=True)
    mine = parse_xml(xml_of(tmp_path / "scratch" / "hopline.save"))
    assert_same(mine, printed)
    assert mine.theory == printed.theory
    assert mine.pseudopotentials == {"Li": "Li.upf", "F": "F.upf"}


@pytest.mark.parametrize("name", GOOD)
def test_a_truncated_file_is_never_believed(outputs, name):
    text = xml_of(outputs / name)
    for percent in range(0, 100, 3):
        result = parse_xml(text[: len(text) * percent // 100])
        assert not result.converged
        assert result.reason.startswith("interrupted")
    assert parse_xml(re.sub("<closed.*</closed>", "", text)).reason == "interrupted: the XML was not closed"


def test_a_wrong_fermi_level_is_seen_in_xml_too(outputs):
    """The silicon of the sample has a gap; its smearing term raised to 0.1 Ha cannot be right."""
    text = re.sub(r"<demet>[^<]*", "<demet>0.1", xml_of(outputs / "default_xml_240411"))
    assert parse_xml(text).reason.startswith("wrong Fermi level: the smearing adds 1360")


@pytest.mark.parametrize(
    ("pattern", "replacement", "reason"),
    [
        (r"(<opt_conv>\s*<convergence_achieved>)true", r"\1false", "the vc-relax did not arrive"),
        ("<exit_status>0", "<exit_status>3", "pw.x ended with status 3"),
        ("<calculation>vc-relax", "<calculation>nscf", "no self-consistent calculation in it, but nscf"),
        (r"(<etot>)[^<]*", r"\1NaN", "the energy is not a number"),
        (r"(<etot>)[^<]*", r"\1*****", "damaged: a number of the XML cannot be read"),
        (r'<forces rank="2"', "<forces_were", "not whole"),
        (r'(name="Si" index="2">)[^<]*', r"\1 0.1 0.2", "no structure could be read from it"),
        (r"(<stress rank[^>]*>)\s*\S+", r"\1 NaN", "a stress is not a number"),
    ],
)
def test_what_is_wrong_is_named(outputs, pattern, replacement, reason):
    text, changes = re.subn(pattern, replacement, xml_of(outputs / "default_xml_240411"))
    assert changes
    result = parse_xml(text)
    assert not result.converged
    assert reason in result.reason


@pytest.mark.parametrize(
    "declared",
    [
        '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>',
        '<!DOCTYPE a SYSTEM "file:///etc/passwd">',
    ],
)
def test_entities_are_refused_unread(outputs, declared):
    text = xml_of(outputs / "vcrelax_success").replace("?>", f"?>{declared}", 1)
    assert "refused: it declares a document type" in parse_xml(text).reason


@pytest.mark.parametrize("text", ["", "<a/>", "no xml", "<?xml version='1.0'?><modeling></modeling>"])
def test_other_text_is_no_run(text):
    assert not parse_xml(text).converged
    assert parse_xml(text).reason


def test_an_output_that_somebody_shortened_does_not_pass_for_fixed_occupations(outputs):
    """The sample of pw.x 7.3 lacks the line of its k-points and its smearing, but prints the smearing's energy."""
    assert read_output(outputs / "default_xml_240411" / "aiida.out").theory.endswith(
        "smearing of unstated width"
    )
    assert parse_output((outputs / "lif_hi.out").read_text()).theory.endswith("fixed occupations")
