"""pw.x outputs: real good and failed runs, against what is printed and against ASE's reader."""

import re

import ase.io
import numpy as np
import pytest
from ase.units import create_units

from hopline.console import InputError
from hopline.labels.espresso_output import parse_output, read_output
from hopline.units import BOHR_A, GPA_PER_EV_PER_A3, RYDBERG_EV

QE = create_units("2006")
KBAR_PER_GPA = 10.0
PRINTED_KBAR = 0.005 + 0.0015
"""Half of the last digit of the kbar column, and one of the Ry/bohr^3 column that is read."""
GOOD = ("Al.out", "MgH2_hi.out", "lif_hi.out", "vcrelax_success/aiida.out", "default_xml_240411/aiida.out")


@pytest.fixture
def outputs(shared_data):
    return shared_data / "dft_outputs" / "espresso"


@pytest.mark.parametrize("name", GOOD)
def test_good_runs_are_believed(outputs, name):
    result = read_output(outputs / name)
    assert result.converged
    assert not result.reason
    assert result.energy_kind == "free"
    assert result.forces_eV_per_A.shape == (len(result.atoms), 3)
    np.testing.assert_allclose(result.stress_eV_per_A3, result.stress_eV_per_A3.T)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("failed_scf_not_converged", "SCF not converged after 2 steps"),
        ("failed_out_of_walltime", "cut off: pw.x reached its walltime limit"),
        ("failed_interrupted", "interrupted: the output ends without JOB DONE"),
        ("tot_magnetization", "no forces printed"),
    ],
)
def test_failed_runs_are_rejected_for_the_right_reason(outputs, name, reason):
    result = read_output(outputs / name / "aiida.out")
    assert not result.converged
    assert result.reason == reason
    assert result.energy_eV is None
    assert result.forces_eV_per_A is None


def test_a_large_smearing_term_gives_an_insulator_away_and_not_a_metal(outputs):
    term = re.compile(r"(smearing contrib\. \(-TS\)\s+=\s+)\S+")
    metal = term.sub(r"\g<1>0.10000000", (outputs / "Al.out").read_text())
    assert parse_output(metal).converged
    # the same run with its bands moved apart
    bands = re.compile(r"(bands \(ev\):\s*\n\s*\n)((?:[ \d.\-]+\n)+)")
    insulator = bands.sub(r"\1" + " ".join(["-9.0"] * 6 + ["9.0"] * 9) + "\n", metal)
    assert parse_output(insulator).reason.startswith("wrong Fermi level: the smearing adds")


@pytest.mark.parametrize(
    ("name", "energy_Ry", "pressure_kbar", "steps", "wall_s", "electrons", "version"),
    [
        ("lif_hi.out", -74.68772107, -8.49, 10, 6.18, 10, "6.7MaX"),
        ("MgH2_hi.out", -143.74939539, 1.15, 6, 7.26, 12, "6.7MaX"),
        ("Al.out", -21.76175741, -37.45, 6, 1.63, 12, "6.7MaX"),
        ("vcrelax_success/aiida.out", -22.66052957, -0.16, 5, 12.50, 8, "6.6"),
        ("default_xml_240411/aiida.out", -22.66279398, 0.08, 9, None, 8, "7.3.1"),
    ],
)
def test_numbers_are_those_printed(
    outputs, name, energy_Ry, pressure_kbar, steps, wall_s, electrons, version
):
    result = read_output(outputs / name)
    assert result.energy_eV == pytest.approx(energy_Ry * RYDBERG_EV, abs=1e-7)
    pressure = -np.trace(result.stress_eV_per_A3) / 3 * GPA_PER_EV_PER_A3 * KBAR_PER_GPA
    assert pressure == pytest.approx(pressure_kbar, abs=PRINTED_KBAR)
    assert (result.scf_steps, result.wall_time_s, result.n_electrons) == (steps, wall_s, electrons)
    assert result.version == version


@pytest.mark.parametrize("name", GOOD[:4])
def test_labels_and_structure_agree_with_ase_where_it_reads(outputs, name):
    result = read_output(outputs / name)
    theirs = ase.io.read(outputs / name, format="espresso-out")
    # ASE converts with CODATA 2006, Hopline with ASE's newer default: some 1e-7 relative
    if name != "Al.out":  # its SCF prints several energies marked "!"; ASE takes the first, 0.24 meV off
        assert result.energy_eV / RYDBERG_EV == pytest.approx(
            theirs.get_potential_energy() / QE["Ry"], abs=1e-8
        )
    np.testing.assert_allclose(result.forces_eV_per_A, theirs.get_forces(), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(result.stress_eV_per_A3, theirs.get_stress(voigt=False), rtol=1e-6, atol=2e-7)
    assert list(result.atoms.numbers) == list(theirs.numbers)
    np.testing.assert_allclose(result.atoms.positions, theirs.positions, atol=1e-5)
    np.testing.assert_allclose(result.atoms.cell.array, theirs.cell.array, atol=1e-5)


@pytest.mark.parametrize("name", GOOD)
def test_a_truncated_output_is_never_believed(outputs, name):
    text = (outputs / name).read_text()
    for tenth in range(10):
        result = parse_output(text[: len(text) * tenth // 10])
        assert not result.converged
        assert result.reason
    assert not parse_output(text[: text.rindex("JOB DONE")]).converged


def test_only_the_last_scf_of_a_relaxation_counts(outputs):
    text = (outputs / "vcrelax_success" / "aiida.out").read_text()
    head, mark, tail = text.rpartition("convergence has been achieved in")
    spoilt = parse_output(head + "convergence NOT achieved after 100 iterations: stopping" + tail)
    assert mark
    assert spoilt.reason == "SCF not converged after 100 steps"


def test_stars_are_no_numbers(outputs):
    text = (outputs / "lif_hi.out").read_text()
    assert parse_output(text.replace("force =    -0.00000000", "force = **************")).reason == (
        "a force is not a number"
    )
    assert parse_output(
        text.replace("!    total energy              =     -74.68772107", "! total energy = NaN")
    ).reason == ("the energy is not a number")
    assert parse_output(text.replace("  -0.00005774  -0.00000000", "  ***********  -0.00000000")).reason == (
        "a stress is not a number"
    )


def test_a_missing_stress_is_no_failure_but_missing_forces_are(outputs):
    text = (outputs / "lif_hi.out").read_text()
    without_stress = parse_output(text.replace("total   stress", "nothing"))
    assert without_stress.converged
    assert without_stress.stress_eV_per_A3 is None
    assert parse_output(text.replace("Forces acting on atoms", "nothing")).reason == "no forces printed"
    first_only = text.replace("     atom    2 type  2   force", "     ")
    assert parse_output(first_only).reason == "no forces printed"


@pytest.mark.parametrize("text", ["", "mpirun: not enough slots\n", "<?xml version='1.0'?>"])
def test_other_text_is_no_output(text):
    assert parse_output(text).reason == "it is not a pw.x output"


def test_pw_errors_are_quoted(outputs):
    text = (outputs / "lif_hi.out").read_text()
    start = text[: text.index("Self-consistent Calculation")]
    stars = "%" * 80
    result = parse_output(
        f"{start}\n {stars}\n     Error in routine cdiaghg (3):\n     S matrix not positive\n {stars}\n"
    )
    assert result.reason == "pw.x stopped with an error in cdiaghg: S matrix not positive"


def test_positions_are_those_of_the_cell(outputs):
    """LiF: fluorine sits half a lattice constant from lithium along each axis; alat is printed in bohr."""
    atoms = read_output(outputs / "lif_hi.out").atoms
    half_A = 7.71651 * BOHR_A / 2
    np.testing.assert_allclose(np.abs(atoms.positions[1] - atoms.positions[0]), half_A, atol=1e-6)
    assert atoms.get_volume() == pytest.approx(114.8690 * BOHR_A**3, rel=1e-5)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_output(tmp_path / "pw.out")
