"""OUTCAR: the numbers of vasprun.xml to their printed digits, nothing that is cut, unconverged or not DFT."""

import bz2
import gzip
import lzma
import re
import tracemalloc

import ase.io
import numpy as np
import pytest
from ase.geometry import find_mic
from label_files import reader_of, reasons, replaced

from hopline.labels.candidates import FREE, Broken
from hopline.labels.readers import outcar, vasprun
from hopline.units import KBAR_PER_EV_PER_A3

PAIRS = {"OUTCAR.h2o.md.10": "vasprun.h2o.md.10.xml", "Ti-O-Ti-v6.OUTCAR": "Ti-O-Ti-v6.vasprun.xml"}
WATER_STEPS = [21, 12, 6, 7, 5, 6, 5, 5, 10, 5]
# half of the last printed digit: positions %.5f, forces %.6f, stress %.5f kB, cell %.9f against %.8f in the XML
POSITION_A, FORCE_EV_PER_A, STRESS_KBAR, CELL_A = 1e-5, 6e-7, 1e-5, 6e-9
# printed by on-the-fly training in each step, after the form of an OUTCAR of VASP 6 in dpdata's tests
FORCE_FIELD_BLOCK = """\
  ML FORCE on cell =-STRESS in cart. coord. units (eV/cell)
  Direction    XX          YY          ZZ          XY          YZ          ZX
  --------------------------------------------------------------------------------------
  Total:      9.00000     9.00000     9.00000     9.00000     9.00000     9.00000
  in kB       9.00000     9.00000     9.00000     9.00000     9.00000     9.00000
  external pressure =        9.00 kB  Pullay stress =        0.00 kB

  volume of cell :      138.72
      direct lattice vectors                 reciprocal lattice vectors
     9.000000000  0.000000000  0.000000000     0.100000000  0.000000000  0.000000000
     0.000000000  9.000000000  0.000000000     0.000000000  0.100000000  0.000000000
     0.000000000  0.000000000  9.000000000     0.000000000  0.000000000  0.100000000

  POSITION                                       TOTAL-FORCE (eV/Angst) (ML)
 -----------------------------------------------------------------------------------
      9.00000      9.00000      9.00000         9.000000      9.000000      9.000000
 -----------------------------------------------------------------------------------
    total drift:                                0.000000      0.000000      0.000000

  ML FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)
  ---------------------------------------------------
  free  energy ML TOTEN  =         9.00000000 eV

  ML energy  without entropy=        9.00000000  ML energy(sigma->0) =        9.00000000

"""
BANNER_BOX = """\
 -----------------------------------------------------------------------------
|                                                                             |
|     EEEEEEE  RRRRRR   RRRRRR   OOOOOOO  RRRRRR      ###     ###     ###     |
|     E        R     R  R     R  O     O  R     R     ###     ###     ###     |
|     EEEEEEE  R     R  R     R  OOOOOOO  R     R     ###     ###     ###     |
|                                                                             |
|     ZBRENT: fatal error in bracketing                                       |
|     please rerun with smaller EDIFF                                         |
|                                                                             |
|       ---->  I REFUSE TO CONTINUE WITH THIS SICK JOB ... BYE!!! <----       |
|                                                                             |
 -----------------------------------------------------------------------------
"""


@pytest.fixture(params=PAIRS)
def sample(request, shared_data):
    return shared_data / "dft_outputs" / "vasp" / request.param


@pytest.fixture
def water(shared_data):
    return (shared_data / "dft_outputs" / "vasp" / "OUTCAR.h2o.md.10").read_text()


@pytest.fixture
def titanium(shared_data):
    return (shared_data / "dft_outputs" / "vasp" / "Ti-O-Ti-v6.OUTCAR").read_text()


@pytest.fixture
def read(tmp_path):
    return reader_of(outcar, tmp_path / "OUTCAR")


def test_numbers_are_those_of_the_vasprun_of_the_same_run(sample):
    found, others = list(outcar.read(sample)), list(vasprun.read(sample.with_name(PAIRS[sample.name])))
    assert len(found) == len(others)
    for mine, other in zip(found, others, strict=True):
        assert mine.reason == ""
        assert mine.energy_kind == FREE
        assert mine.energy_eV == other.energy_eV
        assert mine.pseudopotentials == other.pseudopotentials
        assert list(mine.atoms.symbols) == list(other.atoms.symbols)
        moved = find_mic(mine.atoms.positions - other.atoms.positions, other.atoms.cell)[1]
        assert moved.max() < POSITION_A
        np.testing.assert_allclose(mine.atoms.cell, other.atoms.cell, rtol=0, atol=CELL_A)
        np.testing.assert_allclose(mine.forces_eV_per_A, other.forces_eV_per_A, rtol=0, atol=FORCE_EV_PER_A)
        assert np.abs(KBAR_PER_EV_PER_A3 * (mine.stress - other.stress)).max() < STRESS_KBAR


def test_numbers_are_those_that_ase_reads(sample):
    for mine, other in zip(
        outcar.read(sample), ase.io.read(sample, index=":", format="vasp-out"), strict=True
    ):
        assert list(mine.atoms.symbols) == list(other.symbols)
        np.testing.assert_array_equal(mine.atoms.positions, other.positions)
        np.testing.assert_array_equal(mine.forces_eV_per_A, other.get_forces())
        np.testing.assert_allclose(mine.stress, other.get_stress(voigt=False), rtol=0, atol=1e-12)
        assert mine.energy_eV == other.get_potential_energy(force_consistent=True)


def test_numbers_are_those_that_dpdata_reads(sample):
    import dpdata

    other = dpdata.LabeledSystem(str(sample), fmt="vasp/outcar").data
    found = list(outcar.read(sample))
    np.testing.assert_array_equal([mine.energy_eV for mine in found], other["energies"])
    # dpdata turns the first lattice vector onto x: lengths do not turn
    sizes = [np.linalg.norm(mine.forces_eV_per_A, axis=1) for mine in found]
    np.testing.assert_allclose(sizes, np.linalg.norm(other["forces"], axis=2), rtol=0, atol=1e-9)
    traces = [-mine.atoms.get_volume() * np.trace(mine.stress) for mine in found]
    # dpdata's eV/A^3 has six digits
    np.testing.assert_allclose(traces, np.trace(other["virials"], axis1=1, axis2=2), rtol=2e-6, atol=2e-5)


def test_stress_is_opposite_to_the_pressure_that_vasp_prints(sample):
    printed = re.findall(r"external pressure =\s+(\S+) kB", sample.read_text())
    pressures = [-KBAR_PER_EV_PER_A3 * np.trace(mine.stress) / 3 for mine in outcar.read(sample)]
    np.testing.assert_allclose(pressures, np.array(printed, dtype=float), rtol=0, atol=0.0051)


def test_theory(water, titanium, read, shared_data):
    (found,) = read(titanium)
    (other,) = vasprun.read(shared_data / "dft_outputs" / "vasp" / "Ti-O-Ti-v6.vasprun.xml")
    assert found.level_of_theory == other.level_of_theory
    # VASP 5 does not print KSPACING
    assert read(water)[0].level_of_theory == (
        "PBE VASP; 800 eV; k 1x1x1 Gamma; gaussian 0.05 eV; PREC accurate; LASPH"
    )


def test_what_changes_energies_is_named(water, read):
    for old, new, named in (
        ("GGA     =    --", "GGA     =    PS", "PBEsol VASP"),
        ("METAGGA=      F", "METAGGA=      R2SCAN", "R2SCAN VASP"),
        ("ISPIN  =      1", "ISPIN  =      2", "spin-polarised"),
        ("generate k-points for:    1    1    1", "generate k-points for:    4    4    2", "k 4x4x2 Gamma"),
        ("NELECT =      16.0000", "NELECT =      17.0000", "charge -1"),
    ):
        assert named in read(replaced(water, old, new))[0].level_of_theory.split("; ")
    text = replaced(water, "   LHFCALC =     F", "  angular momentum for each species LDAUL =     2   -1\n"
                    "   U (eV)           for each species LDAUU =   3.9  0.0\n"
                    "   J (eV)           for each species LDAUJ =   0.0  0.0\n   LHFCALC =     F")  # fmt: skip
    assert read(text)[0].pseudopotentials["O"] == "PAW_PBE O 08Apr2002 U 3.9 J 0 eV"


def test_reaching_nelm_is_no_convergence_even_if_vasp_says_so(water, read):
    # VASP 5 prints "aborting loop because EDIFF is reached" after the last of NELM steps as well
    limited = replaced(water, "NELM   =     60", "NELM   =     12")
    assert reasons(read(limited)) == [""] * 10
    found = read(replaced(limited, "EDIFF  = 0.1E-05", "EDIFF  = 0.1E-08"))
    assert reasons(found) == [f"SCF not converged after {n} steps" for n in WATER_STEPS]


def test_vasp_6_says_that_ediff_was_not_reached(titanium, read):
    (found,) = read(replaced(titanium, "because EDIFF is reached", "EDIFF was not reached (unconverged)"))
    assert found.reason == "SCF not converged after 21 steps"


def test_the_energy_of_a_dispersion_correction_counts(titanium, read):
    ionic = titanium.rindex("-57.48343729")
    text = titanium[:ionic] + "-57.98343729" + titanium[ionic + 12 :]
    (found,) = read(text)
    assert found.reason == "the energy is not that of the last electronic step: -0.5000 eV were added"
    (found,) = read(replaced(text, "   KPAR = 1\n", "   KPAR = 1\n   IVDW = 12\n"))
    assert (found.reason, found.energy_eV) == ("", -57.98343729)
    assert "IVDW 12" in found.level_of_theory
    (found,) = read(
        replaced(text, " FORCES acting on ions", "  Edisp (eV):     -0.50000\n FORCES acting on ions")
    )
    assert found.reason == ""
    assert found.level_of_theory.endswith("; dispersion")


def test_what_a_force_field_predicts_is_no_label(water, read):
    whole = read(water)
    first = re.search(r"-+ Iteration +1\(", water).start()
    second = water.index("LOOP+:")
    second = water.index("\n", second) + 1
    # before the first step, at the end of a DFT step for the next (VASP's order), and twice as steps without DFT
    inside = water.index("     LOOP+:")
    loop = "     LOOP+:  cpu time    0.1000: real time    0.1000\n"
    text = (
        water[:first] + FORCE_FIELD_BLOCK + water[first:inside] + FORCE_FIELD_BLOCK + water[inside:second]
        + (FORCE_FIELD_BLOCK + loop) * 2 + water[second:]
    )  # fmt: skip
    found = read(text)
    assert reasons(found) == [""] * 10
    for mine, other in zip(found, whole, strict=True):
        assert mine.energy_eV == other.energy_eV
        assert mine.atoms == other.atoms
        np.testing.assert_array_equal(mine.forces_eV_per_A, other.forces_eV_per_A)
        np.testing.assert_array_equal(mine.stress, other.stress)
    end = water.index(" General timing")
    with pytest.raises(Broken, match="no ionic step in it that DFT computed"):
        read(water[:first] + (FORCE_FIELD_BLOCK + loop) * 3 + water[end:])


def test_columns_that_touch_and_numbers_that_did_not_fit(titanium, read):
    text = replaced(titanium, "in kB    -199.00014  -181.85530", "in kB    -199.00014-12181.85530")
    (found,) = read(replaced(text, "1.344461     -0.201954", "1.344461**************"))
    assert found.stress[1, 1] * KBAR_PER_EV_PER_A3 == pytest.approx(12181.8553)
    assert np.isnan(found.forces_eV_per_A[0]).any()


def test_truncated_at_any_byte(sample, read):
    content, whole = sample.read_bytes(), list(outcar.read(sample))
    end = content.index(b"General timing")
    for cut in np.random.default_rng(4).integers(20, end, 50):
        *kept, last = read(content[:cut])
        assert last.reason in {outcar.CUT_INSIDE, outcar.CUT_BETWEEN}
        assert len(kept) == len(re.findall(rb"LOOP\+:.*\n", content[:cut]))
        for mine, complete in zip(kept, whole, strict=False):
            assert mine.reason == ""
            assert mine.energy_eV == complete.energy_eV
            assert mine.atoms == complete.atoms
            np.testing.assert_array_equal(mine.forces_eV_per_A, complete.forces_eV_per_A)
            np.testing.assert_array_equal(mine.stress, complete.stress)


def test_the_error_that_vasp_stopped_with(water, read):
    cut = water[: water.index("aborting loop", water.index("LOOP+:"))]
    cut = cut[: cut.rindex("\n") + 1]
    found = read(cut + BANNER_BOX)
    assert reasons(found) == [
        "",
        "VASP stopped with an error: ZBRENT: fatal error in bracketing please rerun with smaller EDIFF",
    ]
    for line in (
        "Error EDDDAV: Call to ZHEGV failed. Returncode =   7",
        "VERY BAD NEWS! internal error in subroutine IBZKPT:",
    ):
        assert reasons(read(f"{cut} {line}\n\n"))[1] == f"VASP stopped with an error: {line}"


def test_a_step_that_printed_no_forces_is_rejected(water, read):
    found = read(replaced(water, "TOTAL-FORCE (eV/Angst)", "TOTAL"))
    assert [bool(reason) for reason in reasons(found)] == [True] + [False] * 9


def test_files_of_another_kind(read, titanium):
    for content, message in (
        (b"", "it is empty"),
        (b" vasp.6.3.0", "its only line has no end"),
        (b"\0\1\2\3", "binary data"),
        (titanium.encode("utf-16"), "binary data"),
        (b"forrtl: severe (174): SIGSEGV\n", "does not begin as an OUTCAR does"),
        (replaced(titanium, "NIONS =      8", "NIONS =      9").encode(), "how many ions of each type"),
        (re.sub(r"POTCAR: .*", "", titanium).encode(), "does not name its POTCARs"),
        (titanium.replace("PAW_PBE Ti", "PAW_PBE ??").encode(), "names no element"),
        (replaced(titanium, "ISMEAR =     1;", "ISMEAR =     *;").encode(), "its header cannot be read"),
    ):
        with pytest.raises(Broken, match=message):
            read(content)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_and_in_a_path_with_spaces(tmp_path, titanium, pack):
    path = tmp_path / "größer als 1 Å" / "OUTCAR.packed"
    path.parent.mkdir()
    path.write_bytes(pack(titanium.encode()))
    (found,) = outcar.read(path)
    assert (found.reason, found.source) == ("", str(path))


def test_a_sparse_file_of_two_gigabytes_takes_no_memory(tmp_path, water):
    path = tmp_path / "OUTCAR"
    with path.open("wb") as file:
        file.write(water[: water.index("Iteration    2(   2)")].encode())
        file.truncate(2 << 30)
    tracemalloc.start()
    found = outcar.read(path)
    assert next(found).reason == ""
    with pytest.raises(Broken, match="binary data"):
        next(found)
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        ("run17", b" vasp.5.4.4.18Apr17-6-g9f103f2a35 (build", True),
        ("OUTCAR.17", b"", True),
        ("OUTCAR", " vasp.6.3.0".encode("utf-16"), True),
        ("OUTCAR.xyz", b"8\nLattice=", False),
        ("OUTCAR.json", b"{", False),
        ("pw.out", b"     Program PWSCF", False),
    ],
)
def test_recognised_by_content_then_by_name(name, head, expected):
    assert outcar.recognises(name, head) is expected
