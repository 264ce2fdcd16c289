"""ASE databases as ASE writes them, SQLite and JSON, and damaged."""

import bz2
import gzip
import json
import lzma
import random
import sqlite3
from pathlib import Path

import ase.build
import ase.db
import numpy as np
import pytest
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from label_files import labelled_frames

from hopline import frames as contract
from hopline.labels import text
from hopline.labels.candidates import FREE, Broken
from hopline.labels.readers import ase_database, mptrj

PACKERS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
SPOILT = {
    "empty": b"",
    "binary": random.Random(1).randbytes(5000),
    "UTF-16": '{"1": {"numbers": "größer"}}'.encode("utf-16") * 50,
    "nulls": bytes(5000),
    "SQLite's first words only": b"SQLite format 3\0" + random.Random(2).randbytes(5000),
    "JSON of something else": b'{"1": {"numbers": 3}, "2": [1, 2]}',
}
ENDLESS = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT * FROM n"
STRESS = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06]


@pytest.fixture(params=["db", "json"])
def path(request, tmp_path):
    folder = tmp_path / "ein Ordner mit Ümlauten"
    folder.mkdir()
    return folder / f"Größe #1?.{request.param}"


def bare():
    (atoms,) = labelled_frames(1)
    atoms.calc = None
    return atoms


def written(path, *frames, **options):
    with ase.db.connect(path, use_lock_file=False) as database:
        for atoms in frames:
            database.write(atoms, **options)
    return path


def same(found, atoms):
    """Check a candidate against the frame that was written, exactly."""
    assert found.reason == ""
    np.testing.assert_array_equal(found.atoms.numbers, atoms.numbers)
    np.testing.assert_array_equal(found.atoms.positions, atoms.positions)
    np.testing.assert_array_equal(found.atoms.cell.array, atoms.cell.array)
    np.testing.assert_array_equal(found.atoms.pbc, atoms.pbc)
    assert found.energy_eV == atoms.get_potential_energy()
    np.testing.assert_array_equal(found.forces_eV_per_A, atoms.get_forces(apply_constraint=False))
    np.testing.assert_array_equal(contract.stress_matrix(found.stress), atoms.get_stress(voigt=False))


@pytest.mark.parametrize("packed", PACKERS)
def test_what_ase_writes_comes_back_as_it_was(path, packed):
    frames = labelled_frames(4)
    written(path, *frames)
    file = path.with_name(path.name + packed)
    file.write_bytes(PACKERS[packed](path.read_bytes()))
    assert ase_database.recognises(text.plain_name(file), text.head(file))
    assert not mptrj.recognises(text.plain_name(file), text.head(file))
    found = list(ase_database.read(file))
    assert [(c.frame, c.energy_kind, c.trajectory) for c in found] == [
        (row, contract.UNSTATED, "") for row in range(4)
    ]
    for candidate, atoms in zip(found, frames, strict=True):
        same(candidate, atoms)


def test_rows_of_different_lengths_and_boundaries_after_one_was_deleted(path):
    small = ase.build.molecule("H2O", vacuum=3.0)
    small.pbc = (True, False, True)
    small.calc = SinglePointCalculator(small, energy=-1.0, forces=np.arange(9.0).reshape(3, 3), stress=STRESS)
    frames = labelled_frames(3)
    written(path, frames[0], small, *frames[1:])
    with ase.db.connect(path, use_lock_file=False) as database:
        database.delete([3])
    found = list(ase_database.read(path))
    for candidate, atoms in zip(found, [frames[0], small, frames[2]], strict=True):
        same(candidate, atoms)


def test_constraints_do_not_zero_the_forces(path):
    (atoms,) = labelled_frames(1)
    atoms.set_constraint(FixAtoms([0, 1, 2]))
    written(path, atoms)
    assert not ase.db.connect(path).get_atoms(1).get_forces()[:3].any()
    (found,) = ase_database.read(path)
    same(found, atoms)
    assert not found.atoms.constraints


def test_the_sign_of_the_stress_by_finite_differences(path):
    (atoms,) = labelled_frames(1)
    atoms.calc = LennardJones(sigma=1.9, epsilon=0.3, rc=6.0, smooth=True)
    atoms.get_stress()
    (found,) = ase_database.read(written(path, atoms))
    step, energies = 1e-4, []
    for sign in (1, -1):
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array * (1 + sign * step), scale_atoms=True)
        strained.calc = atoms.calc
        energies.append(strained.get_potential_energy())
    derivative = (energies[0] - energies[1]) / (2 * step) / atoms.get_volume()
    assert np.trace(contract.stress_matrix(found.stress)) == pytest.approx(derivative, rel=1e-4)


def test_the_free_energy_wins_over_the_extrapolated_one(path):
    atoms = bare()
    labels = {"forces": np.zeros((8, 3)), "stress": STRESS}
    atoms.calc = SinglePointCalculator(atoms, energy=-2.0, free_energy=-2.1, **labels)
    (found,) = ase_database.read(written(path, atoms))
    assert (found.energy_eV, found.energy_kind) == (-2.1, FREE)


@pytest.mark.parametrize("prefix", ["", "REF_", "dft_"])
def test_labels_among_the_data(path, prefix):
    forces = np.arange(24.0).reshape(8, 3)
    atoms = bare()
    virial = -contract.stress_matrix(STRESS) * atoms.get_volume()
    data = {f"{prefix}energy": -3.5, f"{prefix}forces": forces, f"{prefix}virial": virial}
    (found,) = ase_database.read(written(path, atoms, data=data))
    assert found.energy_eV == -3.5
    np.testing.assert_array_equal(found.forces_eV_per_A, forces)
    np.testing.assert_allclose(found.stress, contract.stress_matrix(STRESS), atol=1e-12)


def test_a_reference_wins_and_is_never_mixed_with_a_calculators_labels(path):
    (atoms,) = labelled_frames(1)
    written(path, atoms, key_value_pairs={"dft_energy": -3.5})
    (found,) = ase_database.read(path)
    assert (found.energy_eV, found.forces_eV_per_A, found.stress) == (-3.5, None, None)


def test_what_a_row_says_of_itself(path):
    (atoms,) = labelled_frames(1)
    said = {
        "mp_id": "mp-7",
        "temperature_K": 300.0,
        "level_of_theory": "PBE",
        "energy_kind": "sigma->0",
        "system": "lif",
    }
    (found,) = ase_database.read(written(path, atoms, key_value_pairs=said))
    assert (found.trajectory, found.level_of_theory, found.energy_kind) == ("mp-7", "PBE", "sigma->0")
    assert found.atoms.info["temperature_K"] == 300.0
    assert found.atoms.info["system"] == "lif"


def test_a_row_without_a_calculator_has_no_labels(path):
    (found,) = ase_database.read(written(path, bare()))
    assert (found.reason, found.energy_eV, found.forces_eV_per_A, found.stress) == ("", None, None, None)


def test_nothing_is_written_into_the_file_or_beside_it(path):
    written(path, *labelled_frames(3))
    before = path.read_bytes(), path.stat().st_mtime_ns
    reading = ase_database.read(path)
    next(reading)
    assert list(path.parent.iterdir()) == [path]
    assert len(list(reading)) == 2
    assert list(path.parent.iterdir()) == [path]
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


@pytest.fixture
def database(tmp_path):
    return written(tmp_path / "a.db", *labelled_frames(6))


def only_reason(path):
    with pytest.raises(Broken) as caught:
        list(ase_database.read(path))
    return str(caught.value)


def test_a_database_with_a_log_leaves_none_behind(database):
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    assert len(list(ase_database.read(database))) == 6
    assert [path.name for path in database.parent.iterdir()] == ["a.db"]


def test_a_log_that_was_not_folded_in_is_refused(database):
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("UPDATE systems SET energy = -1")
    connection.commit()
    assert only_reason(database).startswith("a.db-wal lies beside it")
    connection.close()
    assert {c.energy_eV for c in ase_database.read(database)} == {-1.0}


def test_an_empty_file_gets_no_tables(tmp_path):
    (tmp_path / "a.db").touch()
    assert not ase_database.recognises("a.db", b"")
    assert only_reason(tmp_path / "a.db") == "empty, or neither SQLite nor JSON: no ASE database"
    assert (tmp_path / "a.db").stat().st_size == 0


def altered(database, *statements):
    connection = sqlite3.connect(database)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return database


@pytest.mark.parametrize(
    ("statements", "reason"),
    [
        (["DROP TABLE systems"], "an SQLite database without ASE's tables"),
        (["DROP TABLE information"], "an SQLite database without ASE's tables"),
        (["UPDATE information SET value = '10'"], "ASE's database layout 10, 5 to 9 are understood"),
        (["DELETE FROM information"], "ASE's database layout unknown"),
        (["UPDATE information SET value = x'ff'"], "ASE's database layout"),
        # an endless table, if anybody asked it
        (
            ["DROP TABLE systems", f"CREATE VIEW systems AS {ENDLESS}"],
            "an SQLite database without ASE's tables",
        ),
    ],
)
def test_databases_that_are_not_ases(database, statements, reason):
    assert reason in only_reason(altered(database, *statements))


def test_damaged_names_that_sqlite_cannot_even_complain_about(database):
    content = database.read_bytes()
    database.write_bytes(content.replace(b"CREATE TABLE keys", b"CREATE TABL\xb4 keys"))
    assert only_reason(database).startswith("this SQLite database is cut off, damaged or in use")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("numbers = x'00'", "broken: ValueError"),
        ("numbers = NULL", "broken: TypeError"),
        ("numbers = x'e7030000'", "an atom has number 999: that is no element"),
        ("positions = x'0000000000000000'", "its positions are 1 numbers, 24 are expected"),
        ("cell = x'0000000000000000'", "broken: ValueError"),
        ("forces = x'0000000000000000'", "its forces are 1 numbers, 24 are expected"),
        ("key_value_pairs = '{'", "broken: JSONDecodeError"),
        ("key_value_pairs = x'ff'", "broken: "),
        ("key_value_pairs = '[1]'", "broken: "),
        ("data = x'ffffffffffffffff'", "broken: "),
        ("energy = 'low'", "broken: "),
    ],
)
def test_a_spoilt_row_does_not_take_the_others_with_it(database, change, reason):
    found = list(ase_database.read(altered(database, f"UPDATE systems SET {change} WHERE id = 3")))  # noqa: S608
    assert [bool(c.reason) for c in found] == [False, False, True, False, False, False]
    assert reason in found[2].reason


def test_forces_in_single_precision_are_not_taken_for_others(path):
    (atoms,) = labelled_frames(1)
    atoms.calc.results["forces"] = atoms.calc.results["forces"].astype(np.float32)
    (found,) = ase_database.read(written(path, atoms))
    if path.suffix == ".db":  # ASE itself writes four bytes a number and reads eight
        assert found.reason == "its forces are 12 numbers, 24 are expected"
    else:
        np.testing.assert_allclose(found.forces_eV_per_A, atoms.calc.results["forces"])


def test_an_array_that_is_announced_longer_than_it_is(tmp_path):
    path = written(tmp_path / "a.json", *labelled_frames(1))
    content = json.loads(path.read_text())
    content["1"]["forces"] = {"__ndarray__": [[10**12], "float64", [0.0]]}
    path.write_text(json.dumps(content))
    (found,) = ase_database.read(path)
    assert found.reason.startswith("broken: ValueError")


@pytest.mark.parametrize("content", SPOILT)
def test_spoilt_files(path, content):
    path.write_bytes(SPOILT[content])
    found, reason = read_as_far_as_possible(path)
    assert reason
    assert all(c.reason for c in found)


@pytest.mark.parametrize("packed", PACKERS)
def read_as_far_as_possible(path):
    """Return what comes out of a file, and why it ends early ("" where it does not)."""
    found = []
    try:
        found.extend(ase_database.read(path))
    except Broken as error:
        return found, str(error)
    return found, ""


@pytest.mark.parametrize("packed", PACKERS)
def test_wherever_it_is_cut_off_nothing_false_comes_through(path, packed):
    frames = labelled_frames(12)
    with ase.db.connect(path, use_lock_file=False) as database:
        for atoms in frames:
            # more than half a page, so that rows are spread over several
            database.write(atoms, data={"density": np.arange(300.0)})
    file = path.with_name(path.name + packed)
    content = PACKERS[packed](path.read_bytes())
    for cut in random.Random(7).sample(range(len(content)), 50):
        file.write_bytes(content[:cut])
        found, reason = read_as_far_as_possible(file)
        good = [c for c in found if not c.reason]
        assert reason or len(good) < len(found) or len(found) == len(frames), cut
        for candidate in good:
            same(candidate, frames[candidate.frame])


def test_two_gigabytes_of_nothing_behind(path):
    frames = labelled_frames(3)
    written(path, *frames)
    with path.open("r+b") as file:
        file.truncate(2 << 30)
    found, reason = read_as_far_as_possible(path)
    assert reason.startswith("the JSON is damaged" if path.suffix == ".json" else "")
    for candidate, atoms in zip(found, frames, strict=True):
        same(candidate, atoms)


def test_what_is_a_database(tmp_path):
    written(tmp_path / "a.db", *labelled_frames(1))
    content = (tmp_path / "a.db").read_bytes()
    assert ase_database.recognises("any name", content[:8192])
    sqlite3.connect(tmp_path / "b").execute("CREATE TABLE files (name TEXT)").connection.close()
    other = Path(tmp_path / "b").read_bytes()
    assert not ase_database.recognises("aiida.sqlite", other[:8192])
    assert not ase_database.recognises("dataset.json", b'{"frames": 3, "numbers": [1]}')
