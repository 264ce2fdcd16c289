"""vasprun.xml: numbers as other parsers read them, nothing of a step that was cut, did not converge or is not DFT."""

import bz2
import gzip
import lzma
import re
import tracemalloc
import warnings

import ase.io
import numpy as np
import pytest
from label_files import reader_of, reasons, replaced

from hopline.labels import vasp_output
from hopline.labels.candidates import FREE, Broken
from hopline.labels.readers import vasprun
from hopline.units import KBAR_PER_EV_PER_A3

SAMPLES = ("vasprun.h2o.md.10.xml", "Ti-O-Ti-v6.vasprun.xml")
WATER_STEPS = [21, 12, 6, 7, 5, 6, 5, 5, 10, 5]
"""Electronic steps of each ionic step of the water run, counted in the file; NELM is 60."""
PRINTED_STRESS_KBAR = 1e-5
"""VASP prints both halves of the stress; they differ in the last digits, ours is their mean."""


@pytest.fixture(params=SAMPLES)
def sample(request, shared_data):
    return shared_data / "dft_outputs" / "vasp" / request.param


@pytest.fixture
def water(shared_data):
    return (shared_data / "dft_outputs" / "vasp" / SAMPLES[0]).read_text()


@pytest.fixture
def titanium(shared_data):
    return (shared_data / "dft_outputs" / "vasp" / SAMPLES[1]).read_text()


@pytest.fixture
def read(tmp_path):
    return reader_of(vasprun, tmp_path / "vasprun.xml")


def with_tag(text, name, value):
    """Return the run with a tag in its INCAR and its parameters, there in place of the first of that name."""
    entry = f'<i name="{name}">{value}</i>'
    head, incar, rest = text.partition("</incar>")
    head = re.sub(rf'<([iv]) [^>]*name="{name}">.*?</\1>', "", head)
    rest = re.sub(rf'<([iv]) [^>]*name="{name}">.*?</\1>', entry, rest, count=1)
    return head + entry + incar + rest


def test_numbers_are_those_that_ase_reads(sample):
    found, others = list(vasprun.read(sample)), ase.io.read(sample, index=":", format="vasp-xml")
    assert len(found) == len(others)
    for mine, other in zip(found, others, strict=True):
        assert mine.reason == ""
        assert mine.energy_kind == FREE
        assert list(mine.atoms.symbols) == list(other.symbols)
        np.testing.assert_allclose(mine.atoms.cell, other.cell, rtol=0, atol=1e-12)
        np.testing.assert_allclose(mine.atoms.positions, other.positions, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(mine.forces_eV_per_A, other.get_forces())
        assert mine.energy_eV == other.get_potential_energy(force_consistent=True)
        difference = KBAR_PER_EV_PER_A3 * (mine.stress - other.get_stress(voigt=False))
        assert np.abs(difference).max() < PRINTED_STRESS_KBAR


def test_numbers_are_those_that_pymatgen_reads(sample):
    from pymatgen.io.vasp.outputs import Vasprun

    with warnings.catch_warnings(action="ignore"):
        run = Vasprun(sample, parse_potcar_file=False, parse_dos=False, parse_eigen=False)
    for mine, step in zip(vasprun.read(sample), run.ionic_steps, strict=True):
        assert mine.energy_eV == step["e_fr_energy"]
        np.testing.assert_array_equal(mine.forces_eV_per_A, step["forces"])
        np.testing.assert_allclose(mine.atoms.positions, step["structure"].cart_coords, rtol=0, atol=1e-12)
        kbar = -KBAR_PER_EV_PER_A3 * mine.stress
        np.testing.assert_allclose(kbar, step["stress"], rtol=0, atol=PRINTED_STRESS_KBAR)


def test_numbers_are_those_that_dpdata_reads(sample):
    import dpdata

    other = dpdata.LabeledSystem(str(sample), fmt="vasp/xml").data
    found = list(vasprun.read(sample))
    np.testing.assert_allclose([mine.energy_eV for mine in found], other["energies"], rtol=0, atol=1e-12)
    np.testing.assert_allclose([mine.forces_eV_per_A for mine in found], other["forces"], rtol=0, atol=1e-12)
    volumes = np.array([mine.atoms.get_volume() for mine in found])[:, None, None]
    virials = -volumes * np.array([mine.stress for mine in found])
    # dpdata's eV/A^3 has six digits
    np.testing.assert_allclose(virials, other["virials"], rtol=2e-6, atol=2e-5)


def test_theory_and_pseudopotentials(water, titanium, read):
    found = read(water)[0]
    assert found.level_of_theory == (
        "PBE VASP; 800 eV; KSPACING 1 Monkhorst-Pack; gaussian 0.05 eV; PREC accurate; LASPH"
    )
    assert found.pseudopotentials == {"O": "PAW_PBE O 08Apr2002", "H": "PAW_PBE H 15Jun2001"}
    found = read(titanium)[0]
    assert found.level_of_theory == (
        "PBE VASP; 350 eV; KSPACING 10 Monkhorst-Pack; methfessel-paxton 1 0.2 eV; PREC accurate"
    )
    assert str(found.atoms.symbols) == "Ti3O2Ti3"


@pytest.mark.parametrize(
    ("tag", "value", "named"),
    [
        ("GGA", "PE", "PBE VASP"),
        ("GGA", "PS", "PBEsol VASP"),
        ("METAGGA", "r2scan", "R2SCAN VASP"),
        ("LUSE_VDW", "T", "PBE vdW-DF VASP"),
        ("IVDW", "12", "IVDW 12"),
        ("ISPIN", "2", "spin-polarised"),
        ("LSORBIT", "T", "spin-orbit"),
        ("ISMEAR", "-5", "tetrahedron"),
        ("ENMAX", "520", "520 eV"),
        ("NELECT", "35.0", "charge +1"),
    ],
)
def test_what_changes_energies_is_named(titanium, read, tag, value, named):
    assert named in read(with_tag(titanium, tag, value))[0].level_of_theory.split("; ")


@pytest.mark.parametrize(("tag", "value"), [("ALGO", "All"), ("NBANDS", "99"), ("NPAR", "4"), ("LREAL", "F")])
def test_what_does_not_change_energies_is_not_named(titanium, read, tag, value):
    (same,), (found,) = read(titanium), read(with_tag(titanium, tag, value))
    assert found.level_of_theory == same.level_of_theory


def test_a_hybrid_is_no_pbe(titanium, read):
    text = with_tag(with_tag(titanium, "LHFCALC", "T"), "AEXX", "0.25")
    (found,) = read(with_tag(text, "HFSCREEN", "0.2"))
    assert found.level_of_theory.startswith("PBE hybrid 0.25 exact exchange, screening 0.2/A VASP; ")


def test_hubbard_u_belongs_to_its_element(titanium, read):
    text = with_tag(with_tag(titanium, "LDAU", "T"), "LDAUU", "3.9 0.0 3.9")
    (found,) = read(with_tag(text, "LDAUJ", "0 0 0"))
    assert found.pseudopotentials == {"Ti": "PAW_PBE Ti 08Apr2002 U 3.9 J 0 eV", "O": "PAW_PBE O 08Apr2002"}


def test_a_mesh_is_named_by_its_spacing_only_if_the_spacing_made_it(titanium, read):
    text = replaced(titanium, '<v type="int" name="divisions">       1        1        1 </v>',
                    '<v type="int" name="divisions">       2        2        3 </v>')  # fmt: skip
    assert "k 2x2x3 Gamma" in read(text)[0].level_of_theory
    # |b| of this cell are 1.070, 1.236 and 1.352 per A
    found = read(with_tag(text, "KSPACING", "0.65"))[0]
    assert "KSPACING 0.65 Monkhorst-Pack" in found.level_of_theory
    found = read(with_tag(with_tag(text, "KSPACING", "0.65"), "KGAMMA", "T"))[0]
    assert "KSPACING 0.65; " in found.level_of_theory


def test_the_electronic_steps_of_every_ionic_step_count(water, read):
    assert reasons(read(water)) == [""] * 10
    # every step's last change is below EDIFF = 1e-6 eV: NELM may be reached
    limited = with_tag(water, "NELM", "12")
    assert reasons(read(limited)) == [""] * 10
    found = read(with_tag(limited, "EDIFF", "1e-9"))
    assert reasons(found) == [f"SCF not converged after {n} steps" for n in WATER_STEPS]


def test_a_run_that_was_stopped_before_it_settled_has_no_label(titanium, read):
    # STOPCAR ends a run in order, below NELM; here after its sixth electronic step, 8 eV from its end
    steps = titanium.split("<scstep>")
    last = steps[-1].partition("</scstep>")[2]
    stopped = "<scstep>".join(steps[:7]).rpartition("</scstep>")[0] + "</scstep>" + last
    energy = re.findall(r'name="e_fr_energy">\s*(\S+)\s*<', stopped)[5]
    whole, _, tail = stopped.rpartition("<energy>")
    stopped = whole + "<energy>" + re.sub(r'(e_fr_energy">)[^<]*', rf"\g<1>{energy}", tail, count=1)
    (found,) = read(stopped)
    assert found.reason == "SCF not converged after 6 steps"


def test_the_ionic_energy_counts_because_forces_hold_the_dispersion_correction(titanium, read):
    ionic = titanium.rindex("-57.48343729")
    corrected = titanium[:ionic] + "-57.98343729" + titanium[ionic + 12 :]
    (found,) = read(corrected)
    assert found.reason == "the energy is not that of the last electronic step: -0.5000 eV were added"
    (found,) = read(with_tag(corrected, "IVDW", "12"))
    assert (found.reason, found.energy_eV) == ("", -57.98343729)
    for tag, value in (("PSTRESS", "10.0"), ("ML_LMLFF", "T")):
        (found,) = read(with_tag(with_tag(corrected, "IVDW", "12"), tag, value))
        assert "were added" in found.reason


def test_the_mixed_up_energies_of_an_ionic_step_are_not_read(water, read):
    # in this very file e_0_energy of an ionic step is zero
    assert '<i name="e_0_energy">     -0.00000000 </i>' in water
    assert read(water)[0].energy_eV == -28.38622624


def test_steps_without_dft(water, read):
    start = water.index("<scstep>", water.index("</calculation>"))
    end = water.index("<structure>", start)
    predicted = water[:start] + water[end:]
    found = read(predicted)
    assert [bool(reason) for reason in reasons(found)] == [False, True, *[False] * 8]
    assert found[1].reason == vasp_output.NOT_DFT
    # on-the-fly training leaves most steps to the force field: they are no frames
    found = read(with_tag(predicted, "ML_LMLFF", "T"))
    assert [candidate.frame for candidate in found] == [0, *range(2, 10)]


def test_a_fixed_charge_density_gives_no_labels(titanium, read):
    assert "ICHARG=11" in read(with_tag(titanium, "ICHARG", "11"))[0].reason


def test_a_number_that_did_not_fit_its_field_is_no_number(titanium, read):
    (found,) = read(re.sub(r'(name="forces" >\s*<v> *)\S+', r"\1**********", titanium))
    assert np.isnan(found.forces_eV_per_A[0, 0])


def test_truncated_at_any_byte(sample, read):
    content, whole = sample.read_bytes(), list(vasprun.read(sample))
    for cut in np.random.default_rng(3).integers(1, len(content) - 12, 50):
        *kept, last = read(content[:cut])
        assert last.reason in {vasp_output.CUT_INSIDE, vasp_output.CUT_BETWEEN}
        assert len(kept) == content[:cut].count(b"</calculation>")
        for mine, complete in zip(kept, whole, strict=False):
            assert mine.reason == ""
            assert mine.energy_eV == complete.energy_eV
            assert mine.atoms == complete.atoms
            np.testing.assert_array_equal(mine.forces_eV_per_A, complete.forces_eV_per_A)
            np.testing.assert_array_equal(mine.stress, complete.stress)


def test_whole_steps_of_a_run_that_was_killed_between_two(water, read):
    found = read(water[: water.rindex("</modeling>")])
    assert reasons(found) == [*[""] * 10, vasp_output.CUT_BETWEEN]
    found = read(water[: water.index("</calculation>", water.index("</calculation>") + 1)])
    assert reasons(found) == ["", vasp_output.CUT_INSIDE]


@pytest.mark.parametrize(
    "declaration",
    [
        '<!DOCTYPE m [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]>',
        '<!DOCTYPE m [<!ENTITY secret SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE m SYSTEM "http://localhost:1/a.dtd">',
    ],
)
def test_document_types_and_entities_are_refused(water, read, declaration):
    with pytest.raises(Broken, match="declares a document type or an entity"):
        read(replaced(water, "<modeling>", declaration + "<modeling>"))
    with pytest.raises(Broken, match="broken XML: undefined entity"):
        read(replaced(water, "PAW_PBE O", "&secret;"))


def test_files_of_another_kind(read, water):
    for content, message in (
        (b"", "it is empty"),
        (b"\0\1\2\3", "binary data"),
        (water.encode("utf-16"), "binary data"),
        (b"<html><body>not found</body></html>", "XML of another kind: it begins with <html>"),
        (b"Segmentation fault\n", "broken XML"),
        (b"<modeling></modeling>", "no ionic step in it"),
        (b'<?xml version="1.0"?>\n', "there is no <modeling> in it"),
        (b"<modeling><calculation></structure>", "broken XML"),
    ):
        with pytest.raises(Broken, match=message):
            read(content)


def test_a_step_without_its_structure_is_rejected_not_the_run(water, read):
    found = read(replaced(water, '<varray name="positions" >\n    <v>', '<varray name="other" >\n    <v>'))
    assert [bool(reason) for reason in reasons(found)] == [True] + [False] * 9
    assert "no structure of 6 atoms" in found[0].reason


def test_a_list_of_atoms_that_is_none(water, read):
    with pytest.raises(Broken, match="list of atoms cannot be read"):
        read(replaced(water, "<c>O </c><c>   1</c>", "<c>O </c><c>   7</c>"))
    with pytest.raises(Broken, match="names no element"):
        read(replaced(water, "PAW_PBE O 08Apr2002", "my own"))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_and_in_a_path_with_spaces(tmp_path, titanium, pack):
    path = tmp_path / "größer als 1 Å" / "vasprun.xml.packed"
    path.parent.mkdir()
    path.write_bytes(pack(titanium.encode()))
    (found,) = vasprun.read(path)
    assert (found.reason, found.source) == ("", str(path))


def test_a_sparse_file_of_two_gigabytes_takes_no_memory(tmp_path, water):
    path = tmp_path / "vasprun.xml"
    with path.open("wb") as file:
        file.write(water[: water.index("</calculation>") + 15].encode())
        file.truncate(2 << 30)
    tracemalloc.start()
    found = vasprun.read(path)
    assert next(found).reason == ""
    with pytest.raises(Broken, match="binary data"):
        next(found)
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_bands_are_not_kept_and_endless_parts_are_refused(titanium, read, monkeypatch):
    monkeypatch.setattr(vasprun, "MAX_ELEMENTS", 3000)
    rows = "<r>1.0 2.0</r>\n" * 5000
    (found,) = read(replaced(titanium, "</calculation>", f"<eigenvalues>{rows}</eigenvalues></calculation>"))
    assert found.reason == ""
    with pytest.raises(Broken, match="more than 3000 elements in one <calculation>"):
        read(replaced(titanium, "</calculation>", f"{rows}</calculation>"))


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        ("a.xml", b'<?xml version="1.0"?>\n<modeling>\n', True),
        ("run.vasprun.xml", b"", True),
        ("vasprun.xml", '<?xml version="1.0"?>'.encode("utf-16"), True),
        ("other.xml", b"<?xml version='1.0'?>\n<qes:espresso>", False),
        ("OUTCAR", b" vasp.6.3.0 20Jan22", False),
    ],
)
def test_recognised_by_content_then_by_name(name, head, expected):
    assert vasprun.recognises(name, head) is expected
