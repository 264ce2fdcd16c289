"""ASE databases: SQLite (.db) and JSON; the row's own forces, which no constraint has set to zero."""

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from hopline.labels import json_stream, names, text
from hopline.labels.candidates import Broken, Candidate

FORMAT = "ase-db"
SQLITE = b"SQLite format 3\0"
WRITE_AHEAD = b"\x02\x02"
"""Bytes 18 and 19 of a database that keeps a log beside itself."""
TABLE = "systems"
OLDEST_VERSION, NEWEST_VERSION = 5, 9
JSON_ROW = re.compile(rb'\s*\{\s*"\d+"\s*:\s*\{')
JSON_NAMES = (b'"ctime"', b'"numbers"', b'"unique_id"')
STRUCTURE_NAMES = ("numbers", "positions", "cell", "pbc")
RESULT_NAMES = ("energy", "free_energy", "forces", "stress")
STATED_NAMES = ("key_value_pairs", "data")
COLUMNS = (*STRUCTURE_NAMES, *RESULT_NAMES, *STATED_NAMES)
MAX_BLOB_BYTES = 128 << 20


def recognises(name: str, head: bytes) -> bool:
    """Tell whether a file is an ASE database: SQLite that says so by its name or its tables, or JSON rows."""
    if head.startswith(SQLITE):
        return name.endswith(".db") or f"CREATE TABLE {TABLE}".encode() in head
    return bool(JSON_ROW.match(head)) and any(key in head for key in JSON_NAMES)


def read(path: Path) -> Iterator[Candidate]:
    """Yield rows one by one; nothing is written, neither into the file nor beside it.

    Labels are those of the row's calculator, or under the usual names (see `names`) in its data and key-value
    pairs; there, names marked as a reference (``REF_energy``, ``dft_energy``) win over the calculator.

    Raises
    ------
    Broken
        Where the database ends early, is damaged or is none of ASE's.
    """
    head = text.head(path)
    is_other = head and not head.startswith(SQLITE) and not head.lstrip().startswith(b"{")
    if is_other or not path.stat().st_size:
        raise Broken("empty, or neither SQLite nor JSON: no ASE database")
    rows = _sqlite_rows(path) if head.startswith(SQLITE) else _json_rows(path)
    for place, row in enumerate(rows):
        try:
            yield _candidate(path, place, {name: _decoded(name, value) for name, value in row.items()})
        except Broken as error:
            yield Candidate(str(path), place, reason=str(error))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, AssertionError) as error:
            yield Candidate(str(path), place, reason=f"broken: {type(error).__name__}: {error}")


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    with text.open_bytes(path) as stream:
        for (key,), row in json_stream.values(stream, depth=1):
            if not key.isdigit():  # the list of ids, the next id, metadata
                continue
            if not isinstance(row, dict):
                raise Broken(f"row {key} is no row of an ASE database")
            yield {name: row.get(name) for name in COLUMNS}


def _sqlite_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield rows by their columns; not through ASE, which makes tables in a database that has none."""
    with text.unpacked(path) as plain:
        log = plain.with_name(f"{plain.name}-wal")
        if log.is_file() and log.stat().st_size:
            raise Broken(
                f"{log.name} lies beside it: it is being written, or its writer died; close it first"
            )
        with plain.open("rb") as file:
            write_ahead = file.read(20)[18:] == WRITE_AHEAD
        # SQLite would leave a log beside a write-ahead database even where it only reads
        mode = "mode=ro&immutable=1" if write_ahead else "mode=ro"
        try:
            with closing(sqlite3.connect(f"{plain.absolute().as_uri()}?{mode}", uri=True)) as database:
                database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_BLOB_BYTES)
                database.text_factory = bytes  # text that is no UTF-8 spoils its own row alone
                _refuse_others(database)
                for values in database.execute(f"SELECT {', '.join(COLUMNS)} FROM {TABLE} ORDER BY id"):  # noqa: S608
                    yield dict(zip(COLUMNS, values, strict=True))
        # UnicodeDecodeError: SQLite's own words on a damaged name
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise Broken(f"this SQLite database is cut off, damaged or in use ({error})") from error


def _refuse_others(database: sqlite3.Connection) -> None:
    """Refuse a database that is not laid out as ASE 3.15 and later do."""
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not {TABLE.encode(), b"information"} <= tables:
        raise Broken(f"an SQLite database without ASE's tables {TABLE} and information")
    found = database.execute("SELECT CAST(value AS TEXT) FROM information WHERE name = 'version'").fetchone()
    version = ((found and found[0]) or b"unknown").decode(errors="replace")
    if version not in map(str, range(OLDEST_VERSION, NEWEST_VERSION + 1)):
        raise Broken(
            f"ASE's database layout {version}, {OLDEST_VERSION} to {NEWEST_VERSION} are understood: "
            "convert it with ase.db.convert"
        )


def _decoded(name: str, value: Any) -> Any:
    """Return a column's value as numbers, from SQLite's bytes or JSON's lists; None stays None."""
    if value is None or name in STATED_NAMES:
        return _stated(value)
    if name == "pbc" and isinstance(value, int):
        return [bool(value >> axis & 1) for axis in range(3)]
    if isinstance(value, bytes):
        return np.frombuffer(value, dtype="<i4" if name == "numbers" else "<f8")
    return _array(value)


def _stated(value: Any) -> Any:
    """Return data or key-value pairs; SQLite holds them as JSON or, since version 9, in ASE's own bytes."""
    from ase.db.core import bytes_to_object

    if isinstance(value, bytes):
        return json.loads(value) if value.startswith(b"{") else bytes_to_object(value)
    return value


def _array(value: Any) -> Any:
    """Return what ASE's JSON says of an array or a cell as an array, other values as they are."""
    if isinstance(value, Mapping) and "__ndarray__" in value:
        shape, _, flat = value["__ndarray__"]
        return np.array(flat).reshape(shape)
    if isinstance(value, Mapping) and "array" in value:
        return _array(value["array"])
    return value


def _candidate(path: Path, place: int, row: Mapping[str, Any]) -> Candidate:
    stated = {**(row["data"] or {}), **(row["key_value_pairs"] or {})}
    found = {key: _array(value) for key, value in stated.items()}
    if not names.has_reference(found):
        found |= {name: row[name] for name in RESULT_NAMES if row[name] is not None}
    atoms = _atoms(row)
    atoms.info = dict(row["key_value_pairs"] or {})
    for name in (prefix + name for prefix in names.PREFIXES for name in names.FORCES_NAMES):
        if found.get(name) is not None:
            found[name] = _vectors(found[name], len(atoms), "forces")
    return names.candidate(path, place, atoms, found)


def _atoms(row: Mapping[str, Any]) -> Atoms:
    numbers = np.atleast_1d(np.asarray(row["numbers"], dtype=int))
    strange = numbers[(numbers < 1) | (numbers >= len(chemical_symbols))]
    if strange.size:
        raise Broken(f"an atom has number {strange[0]}: that is no element")
    cell = np.zeros(9) if row["cell"] is None else np.asarray(row["cell"], dtype=float)
    return Atoms(
        numbers=numbers,
        positions=_vectors(row["positions"], len(numbers), "positions"),
        cell=cell.reshape(3, 3),
        pbc=False if row["pbc"] is None else row["pbc"],
    )


def _vectors(value: Any, n_atoms: int, name: str) -> NDArray[np.float64]:
    array = np.asarray(value, dtype=float)
    if array.size != 3 * n_atoms:
        raise Broken(f"its {name} are {array.size} numbers, {3 * n_atoms} are expected")
    return array.reshape(n_atoms, 3)
