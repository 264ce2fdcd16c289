"""Extended XYZ with any of the usual key names, in any of the usual units, whole or cut off."""

import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from ase import Atoms

from hopline.labels import names, text
from hopline.labels.candidates import Broken, Candidate

FORMAT = "extxyz"
MAX_ATOMS = 1_000_000


def recognises(name: str, head: bytes) -> bool:
    """Tell whether a file is extended XYZ: a number of atoms, then a line of keys."""
    first, _, rest = head.partition(b"\n")
    if first.strip().isdigit() and b"=" in rest.partition(b"\n")[0]:
        return True
    return name.endswith((".xyz", ".extxyz")) and not first.strip().isdigit()


def read(path: Path) -> Iterator[Candidate]:
    """Yield frames one by one, so that a broken one does not take the others with it."""
    lines = text.lines(path)
    for row in itertools.count():
        heading = next((line for line in lines if line.strip()), None)
        if heading is None:
            return
        if not heading.strip().isdecimal():
            raise Broken(f"{heading.strip()[:40]!r} is no number of atoms")
        n_atoms = int(heading[:20])
        if n_atoms > MAX_ATOMS:
            raise Broken(f"{heading.strip()[:40]} atoms in one frame")
        frame = list(itertools.islice(lines, n_atoms + 1))
        if len(frame) < n_atoms + 1:
            raise Broken("cut off: the file ends inside this frame")
        if not frame[-1].endswith("\n"):
            raise Broken("cut off: the last line has no end (a whole file has: add it if nothing is missing)")
        yield _parse(path, row, heading + "".join(frame))


def _parse(path: Path, row: int, block: str) -> Candidate:
    import ase.io

    # ASE takes a plain stress or virial for nine numbers and gives up on six
    block = re.sub(r"(?<!\w)(stress|virials?)=", r"plain_\1=", block)
    try:
        atoms = ase.io.read(io.StringIO(block), format="extxyz")
        if not isinstance(atoms, Atoms):
            raise TypeError("no frame in it")  # noqa: TRY301
    except Exception as error:  # noqa: BLE001  ASE's parsers raise whatever they stumble over
        return Candidate(str(path), row, reason=f"broken: {type(error).__name__}: {error}")
    # ASE moves plain energy and forces into a calculator
    found = {**atoms.info, **atoms.arrays, **(atoms.calc.results if atoms.calc else {})}
    return names.candidate(path, row, atoms, found)
