"""VASP's ML_AB and ML_ABN: the DFT data that on-the-fly training of a force field has gathered.

Written to version 1.0 of the format as VASP's wiki describes it (page ML_AB).
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from hopline import frames
from hopline.labels import text
from hopline.labels.candidates import FREE, Broken, Candidate
from hopline.labels.vasp_output import number, stress

FORMAT = "ml_ab"
VERSION = "1.0 Version"
ANNOUNCED = "The number of configurations"
CONFIGURATION = "Configuration num."
N_KINDS, N_ATOMS, KINDS = "The number of atom types", "The number of atoms", "Atom types and atom numbers"
TOLERANCE = "CTIFOR"
LATTICE, POSITIONS = "Primitive lattice vectors (ang.)", "Atomic positions (ang.)"
ENERGY, FORCES, STRESS = "Total energy (eV)", "Forces (eV ang.^-1)", "Stress (kbar)"
RULE = re.compile(r"[*=-]{10,}")
"""A line of stars or equals signs stands before a section's title, a line of dashes before what is in it."""
MAX_ATOMS = 1_000_000
MAX_LINES = 3 * MAX_ATOMS
CUT = "cut off: the file ends inside this configuration (the last line of a whole file has an end)"

Sections = Mapping[str, list[list[str]]]


def recognises(name: str, head: bytes) -> bool:
    """Tell whether a file is an ML_AB; by name where its beginning does not tell."""
    other = head.lstrip()[:1] in {b"<", b"{", b"["}
    return ANNOUNCED.encode() in head or (name.startswith("ML_AB") and not other)


def read(path: Path) -> Iterator[Candidate]:
    """Yield the configurations, in their order and with their atoms in the file's.

    Energy: the free energy E - TS of which the forces are derivatives, where the configuration holds the tolerance
    (CTIFOR) that VASP was at. That rests on VASP's wiki, which takes the atoms' reference energies from OSZICAR's F,
    and on VASP naming what the force field predicts TOTEN. Converters leave CTIFOR out and differ: one that is public
    writes the free energy, another the energy without entropy; there the kind of energy is unstated.

    Stress: VASP's "in kB", positive under compression. That rests on public programs that make an ML_AB from
    vasprun.xml for VASP to train on: they keep the sign. Some readers keep it too, which is wrong for ASE.

    Raises
    ------
    Broken
        If the file is no ML_AB, or of another version.
    """
    blocks = _blocks(path)
    header, _ = next(blocks)
    if not header or header[0].strip() != VERSION:
        found = header[0].strip()[:40] if header else "nothing"
        raise Broken(f"{VERSION!r} is understood, this one begins with {found!r}")
    row, cut = 0, False
    for row, (block, last) in enumerate(blocks, start=1):
        sections = _sections(block)
        try:
            yield _configuration(path, row - 1, sections)
        except _Short as error:
            cut = last
            yield Candidate(str(path), row - 1, reason=CUT if last else f"broken: {error}")
        except Broken as error:
            yield Candidate(str(path), row - 1, reason=f"broken: {error}")
    try:
        announced = _integer(_sections(header), ANNOUNCED)
    except _Short as error:
        raise Broken("cut off: the file ends before it says how many configurations there are") from error
    if row < announced and not cut:
        yield Candidate(str(path), row, reason=f"cut off: of {announced} configurations {row} are there")
    elif not row:
        raise Broken("no configuration in it")


class _Short(Broken):
    """Fewer lines than there must be."""


def _blocks(path: Path) -> Iterator[tuple[list[str], bool]]:
    """Yield the header, then each configuration's lines, and whether they are the file's last.

    A last line without an end is left out: a number may have been cut short.
    """
    block: list[str] = []
    for line in text.lines(path):
        if not line.endswith("\n"):
            break
        if line.lstrip().startswith(CONFIGURATION):
            yield block, False
            block = []
            continue
        block.append(line)
        if len(block) > MAX_LINES:
            raise Broken(f"more than {MAX_LINES} lines without another {CONFIGURATION!r}")
    yield block, True


def _sections(lines: list[str]) -> Sections:
    """Return what stands under each title, in the parts that lines of dashes make of it."""
    sections: dict[str, list[list[str]]] = {}
    parts: list[list[str]] | None = None
    for line in lines:
        words = line.strip()
        if RULE.fullmatch(words) is None:
            if parts is None:
                parts = sections.setdefault(words, [])
            elif parts and words:
                parts[-1].append(words)
        elif words[0] != "-":
            parts = None
        elif parts is not None:
            parts.append([])
    return sections


def _configuration(path: Path, row: int, sections: Sections) -> Candidate:
    symbols = _symbols(sections)
    n_atoms = len(symbols)
    return Candidate(
        source=str(path),
        frame=row,
        atoms=Atoms(
            symbols,
            positions=_numbers(sections, POSITIONS, n_atoms),
            cell=_numbers(sections, LATTICE, 3),
            pbc=True,
        ),
        energy_eV=float(_numbers(sections, ENERGY, 1, columns=1)[0, 0]),
        forces_eV_per_A=_numbers(sections, FORCES, n_atoms),
        stress=_stress(sections),
        energy_kind=FREE if TOLERANCE in sections else frames.UNSTATED,
    )


def _symbols(sections: Sections) -> list[str]:
    """Return the atoms' elements; one that stands twice in the list has two groups of atoms."""
    n_atoms = _integer(sections, N_ATOMS)
    groups: list[tuple[str, int]] = []
    for line in _part(sections, KINDS, 0, _integer(sections, N_KINDS)):
        group = re.fullmatch(r"([A-Z][a-z]?)\d*\s+(\d{1,7})", line)
        if group is None or not atomic_numbers.get(group[1], 0):
            raise Broken(f"{line[:40]!r} is no element with its number of atoms")
        groups.append((group[1], int(group[2])))
    if sum(count for _, count in groups) != n_atoms or n_atoms > MAX_ATOMS:
        raise Broken(
            f"{n_atoms} atoms are announced, the elements' add up to {sum(count for _, count in groups)}"
        )
    return [symbol for symbol, count in groups for _ in range(count)]


def _stress(sections: Sections) -> NDArray[np.float64]:
    parts = sections.get(STRESS, [])
    for place, title in ((0, "XX YY ZZ"), (2, "XY YZ ZX")):
        if len(parts) > place and parts[place] and parts[place] != [title]:
            raise Broken(f"{parts[place][0][:40]!r} stands where {title} of the stress is expected")
    (xx, yy, zz), (xy, yz, zx) = (_numbers(sections, STRESS, 1, place=place)[0] for place in (1, 3))
    return stress(np.array([[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]]))


def _part(sections: Sections, title: str, place: int, n_lines: int) -> list[str]:
    parts = sections.get(title, [])
    lines = parts[place] if len(parts) > place else []
    if len(lines) < n_lines:
        raise _Short(f"{len(lines)} of {n_lines} lines under {title!r}")
    if len(lines) > n_lines:
        raise Broken(f"{len(lines)} lines under {title!r}, {n_lines} are expected")
    return lines


def _integer(sections: Sections, title: str) -> int:
    (line,) = _part(sections, title, 0, 1)
    if re.fullmatch(r"\d{1,9}", line) is None:
        raise Broken(f"{line[:40]!r} under {title!r} is no number")
    return int(line)


def _numbers(
    sections: Sections, title: str, n_lines: int, *, columns: int = 3, place: int = 0
) -> NDArray[np.float64]:
    """Return the numbers under a title, (n_lines, columns)."""
    rows = [[number(word) for word in line.split()] for line in _part(sections, title, place, n_lines)]
    if any(len(row) != columns for row in rows):
        raise Broken(f"a line under {title!r} has not {columns} numbers")
    return np.array(rows).reshape(-1, columns)
