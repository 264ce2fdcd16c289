"""ML_AB: several elements, counts that change, units and signs; nothing of a configuration that is not whole."""

import bz2
import gzip
import lzma
import tracemalloc

import numpy as np
import pytest
from ase import Atoms
from label_files import reader_of

from hopline import frames
from hopline.labels.candidates import FREE, Broken
from hopline.labels.readers import ml_ab, vasprun
from hopline.units import KBAR_PER_EV_PER_A3

STARS, EQUALS, DASHES = "*" * 50, "=" * 50, "-" * 50
GROUPS = (
    (("Mg", 4), ("H", 1)),
    (("Li", 2), ("F", 3), ("Ti", 1), ("O", 2)),
    (("Ti", 3), ("O", 2), ("Ti", 3)),  # one element in two groups
    (("H", 1),),
)
SAME = 1e-8


def fortran(values):
    """Return numbers as list-directed output has them: plain from 0.1 up, with an exponent of three digits below."""
    words = []
    for value in np.ravel(values):
        plain = value == 0 or 0.1 <= abs(value) < 1e15
        mantissa, _, exponent = f"{value:.15E}".partition("E")
        words.append(f"{value:.15f}" if plain else f"{mantissa}E{int(exponent):+04d}")
    return "  ".join(words)


def section(rule, title, *lines):
    return "\n".join([rule, f"     {title}", DASHES, *(f"     {line}" for line in lines), ""])


def threes(words):
    return ["  ".join(words[first : first + 3]) for first in range(0, len(words), 3)]


def configuration(number, labelled, *, more=""):
    """Return one configuration; ``more`` is put in front of the forces. Without a tolerance there is no CTIFOR."""
    matrix = labelled["stress_kbar"]
    lines = [
        f"{STARS}\n     Configuration num. {number:6d}\n",
        section(EQUALS, "System name", labelled["name"]),
        section(EQUALS, "The number of atom types", len(labelled["groups"])),
        section(EQUALS, "The number of atoms", sum(count for _, count in labelled["groups"])),
        section(
            STARS, "Atom types and atom numbers", *(f"{kind:2s} {n:6d}" for kind, n in labelled["groups"])
        ),
        section(EQUALS, "CTIFOR", fortran(0.0072)) if labelled["tolerance"] else "",
        section(EQUALS, "Primitive lattice vectors (ang.)", *map(fortran, labelled["cell"])),
        section(EQUALS, "Atomic positions (ang.)", *map(fortran, labelled["positions"])),
        section(EQUALS, "Total energy (eV)", fortran(labelled["energy_eV"])),
        more,
        section(EQUALS, "Forces (eV ang.^-1)", *map(fortran, labelled["forces"])),
        f"{EQUALS}\n     Stress (kbar)\n",
        section(DASHES, "XX YY ZZ", fortran(np.diag(matrix))),
        section(DASHES, "XY YZ ZX", fortran([matrix[0, 1], matrix[1, 2], matrix[2, 0]])),
    ]
    return "".join(lines)


def header(count, elements):
    one = ["1"] * len(elements)
    return " 1.0 Version\n" + "".join([
        section(STARS, "The number of configurations", count),
        section(STARS, "The maximum number of atom type", len(elements)),
        section(STARS, "The atom types in the data file", *threes(elements)),
        section(STARS, "The maximum number of atoms per system", 96),
        section(STARS, "The maximum number of atoms per atom type", 48),
        section(STARS, "Reference atomic energy (eV)", *threes([fortran(-2.3926912)] * len(elements))),
        section(STARS, "Atomic mass", *threes([fortran(12.011)] * len(elements))),
        section(STARS, "The numbers of basis sets per atom type", *threes(one)),
        *(section(STARS, f"Basis set for {name}", "1      1") for name in elements),
    ])  # fmt: skip


def labelled_set(seed=0, *, tolerance=True):
    rng = np.random.default_rng(seed)
    made = []
    for groups in GROUPS:
        n_atoms = sum(count for _, count in groups)
        skew = rng.normal(0, 8, (3, 3))
        made.append({
            "name": "  a name with blanks", "groups": groups, "tolerance": tolerance,
            "cell": 5 * np.eye(3) + rng.normal(0, 0.05, (3, 3)),
            "positions": rng.uniform(0, 5, (n_atoms, 3)),
            "energy_eV": rng.normal(-1800, 10),
            "forces": rng.normal(0, 1, (n_atoms, 3)) * 10.0 ** rng.integers(-5, 2, (n_atoms, 1)),
            "stress_kbar": skew + skew.T,
        })  # fmt: skip
    return made


def written(made, **kwargs):
    elements = list(dict.fromkeys(kind for labelled in made for kind, _ in labelled["groups"]))
    return header(len(made), elements) + "".join(
        configuration(number, labelled, **kwargs) for number, labelled in enumerate(made, start=1)
    )


@pytest.fixture
def read(tmp_path):
    return reader_of(ml_ab, tmp_path / "ML_AB")


def agree(candidate, labelled):
    symbols = [kind for kind, count in labelled["groups"] for _ in range(count)]
    assert candidate.reason == ""
    assert list(candidate.atoms.symbols) == symbols
    assert candidate.atoms.pbc.all()
    assert candidate.energy_eV == pytest.approx(labelled["energy_eV"], abs=SAME, rel=0)
    for mine, original in (
        (candidate.atoms.cell.array, labelled["cell"]),
        (candidate.atoms.positions, labelled["positions"]),
        (candidate.forces_eV_per_A, labelled["forces"]),
        (-KBAR_PER_EV_PER_A3 * candidate.stress, labelled["stress_kbar"]),
    ):
        np.testing.assert_allclose(mine, original, rtol=0, atol=SAME)


def test_what_was_written_is_read(read):
    made = labelled_set()
    found = read(written(made))
    assert [candidate.frame for candidate in found] == [0, 1, 2, 3]
    for candidate, labelled in zip(found, made, strict=True):
        agree(candidate, labelled)
        assert candidate.energy_kind == FREE


def test_five_elements_fill_two_lines_of_the_header():
    assert "     Mg  H  Li\n     F  Ti  O\n" in written(labelled_set())


def test_the_sign_of_the_stress_is_that_of_vasprun(read, shared_data):
    # as public converters from vasprun.xml write it, for VASP to train on: kbar, the sign kept
    steps = list(vasprun.read(shared_data / "dft_outputs" / "vasp" / "vasprun.h2o.md.10.xml"))
    made = [
        {
            "name": "water", "groups": (("O", 2), ("H", 4)), "tolerance": True, "cell": step.atoms.cell.array,
            "positions": step.atoms.positions, "energy_eV": step.energy_eV, "forces": step.forces_eV_per_A,
            "stress_kbar": -KBAR_PER_EV_PER_A3 * step.stress,
        }
        for step in steps
    ]  # fmt: skip
    # printed in that vasprun.xml for its first step, which pushes outwards along x where it is negative
    np.testing.assert_allclose(np.diag(made[0]["stress_kbar"]), [-2.15814473, -0.95563763, -4.85014391])
    for candidate, step in zip(read(written(made)), steps, strict=True):
        np.testing.assert_allclose(candidate.stress, step.stress, rtol=0, atol=SAME)
        assert isinstance(candidate.atoms, Atoms)


def test_without_ctifor_it_was_made_by_a_converter_of_unknown_energies(read):
    found = read(written(labelled_set(tolerance=False)))
    assert {candidate.energy_kind for candidate in found} == {frames.UNSTATED}
    assert {candidate.reason for candidate in found} == {""}


def test_sections_of_later_versions_are_passed_over(read):
    made = labelled_set()
    more = section(EQUALS, "Total charge (e)", "1.0") + section(EQUALS, "Charges (e)", *["0.1  0.2  0.3"] * 9)
    for candidate, labelled in zip(read(written(made, more=more)), made, strict=True):
        agree(candidate, labelled)


def test_windows_line_ends_and_no_indentation(read):
    made = labelled_set()
    text = "\r\n".join(line.strip() for line in written(made).splitlines()) + "\r\n"
    for candidate, labelled in zip(read(text), made, strict=True):
        agree(candidate, labelled)


def test_truncated_at_any_byte(read):
    made = labelled_set()
    content = written(made).encode()
    whole = read(content)
    announced = content.index(b"     4\n") + len("     4\n")
    for cut in np.random.default_rng(5).integers(len(" 1.0 Version\n"), len(content), 50):
        if cut < announced:
            with pytest.raises(Broken, match="cut off"):
                read(content[:cut])
            continue
        *kept, last = read(content[:cut])
        assert last.reason.startswith("cut off")
        for mine, complete in zip(kept, whole, strict=False):
            assert mine.reason == ""
            assert mine.energy_eV == complete.energy_eV
            assert mine.atoms == complete.atoms
            np.testing.assert_array_equal(mine.forces_eV_per_A, complete.forces_eV_per_A)
            np.testing.assert_array_equal(mine.stress, complete.stress)


def test_the_last_number_may_be_cut_short(read):
    text = written(labelled_set())
    for length in range(1, 10):
        found = read(text[:-length])
        assert [candidate.reason for candidate in found] == ["", "", "", ml_ab.CUT]


def test_fewer_configurations_than_announced(read):
    text = written(labelled_set())
    found = read(text[: text.index("     Configuration num.      3")])
    assert [candidate.reason for candidate in found] == ["", "", "cut off: of 4 configurations 2 are there"]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("Mg      4", "Mg      3", "broken: 5 atoms are announced, the elements' add up to 4"),
        ("Mg      4", "Qq      4", "broken: 'Qq      4' is no element with its number of atoms"),
        ("Mg      4", "Mg 99999999", "broken: 'Mg 99999999' is no element with its number of atoms"),
        ("Total energy (eV)", "Something else", "broken: 0 of 1 lines under 'Total energy (eV)'"),
        ("XY YZ ZX", "YZ ZX XY", "broken: 'YZ ZX XY' stands where XY YZ ZX of the stress is expected"),
        ("The number of atoms\n" + DASHES + "\n     5", "The number of atoms\n" + DASHES + "\n     five",
         "broken: 'five' under 'The number of atoms' is no number"),
    ],
)  # fmt: skip
def test_a_broken_configuration_does_not_take_the_others_with_it(read, old, new, reason):
    text = written(labelled_set())
    assert old in text
    found = read(text.replace(old, new, 1))
    assert [candidate.reason for candidate in found] == [reason, "", "", ""]


def test_a_line_too_many_or_too_few(read):
    made = labelled_set()
    made[1]["forces"] = made[1]["forces"][:-1]
    made[2]["positions"] = made[2]["positions"][[0, *range(8)]]
    found = read(written(made))
    assert [candidate.reason for candidate in found] == [
        "", "broken: 7 of 8 lines under 'Forces (eV ang.^-1)'",
        "broken: 9 lines under 'Atomic positions (ang.)', 8 are expected", "",
    ]  # fmt: skip


def test_a_number_that_did_not_fit_its_field_is_no_number(read):
    made = labelled_set()
    found = read(written(made).replace(fortran(made[0]["energy_eV"]), "*" * 9, 1))
    assert np.isnan(found[0].energy_eV)


def test_files_of_another_kind(read):
    text = written(labelled_set())
    for content, message in (
        (b"", "begins with 'nothing'"),
        (b"\0\1\2\3", "binary data"),
        (text.encode("utf-16"), "binary data"),
        (
            text.replace("1.0 Version", "2.0 Version").encode(),
            "'1.0 Version' is understood, this one begins with '2.0",
        ),
        (header(0, ["H"]).encode(), "no configuration in it"),
        (b" 1.0 Version\n", "cut off: the file ends before it says how many"),
        (
            header(2, ["H"]).replace("     2\n", "     two\n", 1).encode(),
            "'two' under 'The number of configurations'",
        ),
    ):
        with pytest.raises(Broken, match=message):
            read(content)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_and_in_a_path_with_spaces(tmp_path, pack):
    path = tmp_path / "größer als 1 Å" / "ML_ABN.packed"
    path.parent.mkdir()
    path.write_bytes(pack(written(labelled_set()).encode()))
    assert [(found.reason, found.source) for found in ml_ab.read(path)] == [("", str(path))] * 4


def test_a_sparse_file_of_two_gigabytes_takes_no_memory(tmp_path):
    path = tmp_path / "ML_AB"
    with path.open("wb") as file:
        file.write(written(labelled_set()).encode())
        file.truncate(2 << 30)
    tracemalloc.start()
    found = ml_ab.read(path)
    for _ in range(3):
        assert next(found).reason == ""
    with pytest.raises(Broken, match="binary data"):
        next(found)
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        ("training data", header(2, ["H"]).encode(), True),
        ("ML_ABN", b"", True),
        ("ML_AB", " 1.0 Version".encode("utf-16"), True),
        ("ML_AB.json", b"{}", False),
        ("ML_FF", b"1.0 Version of something", False),
    ],
)
def test_recognised_by_content_then_by_name(name, head, expected):
    assert ml_ab.recognises(name, head) is expected
