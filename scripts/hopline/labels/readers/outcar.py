"""VASP's OUTCAR, one ionic step after the other."""

import itertools
import math
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hopline.labels import text, vasp_output
from hopline.labels.candidates import FREE, Broken, Candidate
from hopline.labels.vasp_output import CUT_BETWEEN, CUT_INSIDE, number

FORMAT = "outcar"
START = re.compile(rb"\A\s*vasp\.\d")
ITERATION = re.compile(r"-+ Iteration\s+[\d*]+\(\s*(\d+)\)\s+-+")
FORCE_FIELD_STRESS, FORCE_FIELD_FORCES = "ML FORCE on cell", "(ML)"
"""Marks of what on-the-fly training prints of its force field, in steps with and without DFT."""
END = "General timing and accounting"
MAX_HEADER_LINES = MAX_ATOMS = 1_000_000
FIXED = re.compile(r"-?\d*\.\d+|\*+|NaN|Infinity", flags=re.IGNORECASE)
"""One number of a fixed-width column: two columns may touch."""
TAGS = (
    "PREC", "ENCUT", "ISPIN", "LNONCOLLINEAR", "LSORBIT", "ISMEAR", "SIGMA", "NELM", "EDIFF", "ICHARG", "GGA",
    "LHFCALC", "AEXX", "HFSCREEN", "LASPH", "LUSE_VDW", "PSTRESS", "NELECT",
)  # fmt: skip
LAST_LINES = 100
SUSPICIOUS = re.compile(r"E(RROR|rror)|WARNING|BAD NEWS|fatal|fail|problem|TOO FEW|was not found")
"""Worth a look at custodian's list, which takes six seconds; every OUTCAR has the error of its atoms' energies."""
ERROR_BANNER = "EEEEEEE"
MAX_REASON_LENGTH = 200


def recognises(name: str, head: bytes) -> bool:
    """Tell whether a file is an OUTCAR; by name where its beginning does not tell."""
    other = head.lstrip()[:1] in {b"<", b"{", b"["} or head.lstrip()[:1].isdigit()
    return START.match(head) is not None or ("OUTCAR" in name and not other)


def read(path: Path) -> Iterator[Candidate]:
    """Yield the ionic steps that DFT computed, and one more with its reason if the file ends before VASP did.

    The energy is the ionic step's TOTEN (E - TS). Positions have five digits, forces six. What a force field
    predicted in on-the-fly training is passed over.

    Raises
    ------
    Broken
        If the file is no OUTCAR.
    """
    lines = _whole_lines(path)
    header = _header(lines)
    last = deque(header, maxlen=LAST_LINES)
    try:
        run = _run(header) if _begins(header[-1]) else _Run()
    except ValueError as error:
        raise Broken(f"its header cannot be read: {error}") from error
    step: _Step | None = None
    row = 0
    ended = False
    for line in itertools.chain(header[-1:], lines):
        last.append(line)
        electronic = ITERATION.search(line)
        begins = electronic is not None and int(electronic[1]) == 1
        ended = ended or END in line
        if step is not None and (begins or ended or line.lstrip().startswith("LOOP+:")):
            yield step.candidate(path, row, run)
            row, step = row + 1, None
        if begins:
            step = _Step()
        elif step is not None:
            step.take(line, lines, len(run.symbols))
    if not ended:
        yield Candidate(str(path), row, reason=_stop(last) or (CUT_BETWEEN if step is None else CUT_INSIDE))
    elif not row:
        raise Broken("no ionic step in it that DFT computed")


def _header(lines: Iterable[str]) -> list[str]:
    """Return the lines up to the first step, with its first line; all if there is no step."""
    header: list[str] = []
    for line in lines:
        header.append(line)
        if len(header) == 1 and not START.match(line.encode()):
            raise Broken(
                f"it does not begin as an OUTCAR does, with VASP's version, but: {line.strip()[:40]!r}"
            )
        if len(header) == MAX_HEADER_LINES:
            raise Broken(f"no electronic step in its first {MAX_HEADER_LINES} lines")
        if _begins(line) or END in line:
            break
    if not header:
        raise Broken("it is empty, or its only line has no end")
    return header


def _begins(line: str) -> bool:
    return ITERATION.search(line) is not None or FORCE_FIELD_STRESS in line


def _whole_lines(path: Path) -> Iterator[str]:
    """Yield the lines that have an end: a number at the end of the file may have been cut short."""
    return (line for line in text.lines(path) if line.endswith("\n"))


@dataclass
class _Run:
    """What the lines before the first electronic step say of the run."""

    symbols: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    theory: str = ""
    pseudopotentials: dict[str, str] = field(default_factory=dict)


def _run(header: list[str]) -> _Run:
    whole = "".join(header)
    # VASP 6 repeats the INCAR first, as its author spelt it
    echoed, _, used = whole.rpartition("Startparameter for this run")
    counts = [int(word) for word in _found(r"ions per type =((?:[ ]+\d+)+)", whole).split()]
    if not 0 < sum(counts) <= MAX_ATOMS or str(sum(counts)) != _found(
        r"number of ions\s+NIONS =\s*(\d+)", whole
    ):
        raise Broken("it does not say how many ions of each type there are")
    listed = [
        re.findall(rf"^ *{word} *(\S.*)$", whole, flags=re.MULTILINE) for word in ("TITEL *=", "POTCAR:")
    ]
    titles = next((list(names[: len(counts)]) for names in listed if len(names) >= len(counts)), [])
    titles = [" ".join(title.split()) for title in titles]
    elements = [vasp_output.element(title) for title in titles]
    if not elements:
        raise Broken("it does not name its POTCARs")
    tags = {name: _found(rf"\b{name}\s*=\s*([^\s;]+)", used) for name in TAGS}
    tags |= {name: _found(rf"{name} =([ \d.-]+)", used) for name in ("LDAUU", "LDAUJ")}
    tags |= {name: _found(rf"\b{name}\s*=\s*(\S+)", whole) for name in ("IVDW", "ML_LMLFF")}
    meta = [word for word in re.findall(r"\bMETAGGA\s*=\s*([A-Za-z]\w+)", whole) if word.upper() != "NONE"]
    tags["METAGGA"], tags["LDAU"] = next(iter(meta), ""), "T" if tags["LDAUU"] else ""
    tags = {name: value for name, value in tags.items() if value}
    valences = FIXED.findall(_found(r"ZVAL\s*=(.*)", used))
    charge = math.nan
    if len(valences) == len(counts):
        charge = sum(n * float(z) for n, z in zip(counts, valences, strict=True)) - number(
            tags.get("NELECT", "")
        )
    return _Run(
        symbols=[symbol for symbol, count in zip(elements, counts, strict=True) for _ in range(count)],
        tags=tags,
        theory=vasp_output.level_of_theory(tags, titles, _sampling(echoed, whole), charge),
        pseudopotentials=vasp_output.pseudopotentials(elements, titles, tags),
    )


def _found(pattern: str, within: str) -> str:
    match = re.search(pattern, within)
    return "" if match is None else match[1]


def _sampling(echoed: str, whole: str) -> str:
    """Return the k-points; VASP 5 does not print the KSPACING that made the mesh, so there the mesh is named."""
    spacing = _found(r"\bKSPACING\s*=\s*([\d.]+)", echoed)
    if spacing and "derived from KSPACING" in whole:
        gamma = vasp_output.is_true({"KGAMMA": _found(r"\bKGAMMA\s*=\s*(\S+)", echoed) or "T"}, "KGAMMA")
        return vasp_output.spacing_line(number(spacing), gamma=gamma)
    block = _found(r"k-points in reciprocal lattice and weights:.*\n((?:[ \d.*-]+\d *\n)+)", whole)
    kpoints = np.array([_numbers(line, 3) for line in block.splitlines()])
    if not len(kpoints):
        return "k-points unknown"
    divisions = [int(word) for word in _found(r"generate k-points for:((?: +\d+){3})", whole).split()]
    return vasp_output.mesh_line(
        divisions or ([1, 1, 1] if len(kpoints) == 1 and not kpoints.any() else []), kpoints
    )


@dataclass
class _Step:
    """What VASP printed in one ionic step."""

    scf_energies_eV: list[float | None] = field(default_factory=list)
    energy_eV: float | None = None
    stress_kbar: NDArray[np.float64] | None = None
    cell: NDArray[np.float64] | None = None
    table: NDArray[np.float64] | None = None
    unconverged: bool = False
    dispersion: bool = False
    of_force_field: bool = False
    cell_follows: bool = False

    def take(self, line: str, following: Iterator[str], n_atoms: int) -> None:
        """Note what a line says; ``following`` are the lines after it."""
        words = line.strip()
        if words.startswith("free energy    TOTEN"):
            self.scf_energies_eV.append(_numbers(line, 1)[0])
        elif words.startswith("free  energy   TOTEN"):
            self.energy_eV = _numbers(line, 1)[0]
        elif "EDIFF was not reached" in line:
            self.unconverged = True
        elif words.startswith("Edisp (eV)"):
            self.dispersion = True
        elif "FORCE on cell" in line:
            self.of_force_field = FORCE_FIELD_STRESS in line
        elif words.startswith("in kB") and not self.of_force_field:
            xx, yy, zz, xy, yz, zx = _numbers(line, 6)
            self.stress_kbar = np.array([[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]])
        elif "VOLUME and BASIS-vectors are now" in line:
            self.cell_follows = True
        elif self.cell_follows and "direct lattice vectors" in line:
            self.cell_follows = False
            self.cell = np.array([_numbers(row, 3) for row in itertools.islice(following, 3)])
        elif "TOTAL-FORCE (eV/Angst)" in line and FORCE_FIELD_FORCES not in line:
            next(following, "")
            rows = itertools.islice(following, n_atoms)
            self.table = np.array([_numbers(row, 6) for row in rows]).reshape(-1, 6)

    def candidate(self, path: Path, row: int, run: _Run) -> Candidate:
        """Return this step as a frame."""
        if self.table is None or self.cell is None or len(self.table) != len(run.symbols):
            return Candidate(str(path), row, reason="no forces with positions and lattice vectors printed")
        # VASP 5 does not print IVDW
        unnamed = self.dispersion and "IVDW" not in run.tags
        tags = run.tags | {"IVDW": "1"} if unnamed else run.tags
        reason = f"SCF not converged after {len(self.scf_energies_eV)} steps" if self.unconverged else ""
        return Candidate(
            source=str(path),
            frame=row,
            atoms=Atoms(run.symbols, positions=self.table[:, :3], cell=self.cell, pbc=True),
            reason=reason or vasp_output.why_not(self.scf_energies_eV, self.energy_eV, tags),
            energy_eV=self.energy_eV,
            forces_eV_per_A=self.table[:, 3:],
            stress=None if self.stress_kbar is None else vasp_output.stress(self.stress_kbar),
            level_of_theory=run.theory + ("; dispersion" if unnamed else ""),
            energy_kind=FREE,
            pseudopotentials=run.pseudopotentials,
        )


def _numbers(line: str, count: int) -> list[float]:
    """Return the first ``count`` numbers of a line, all NaN if there are fewer."""
    found = [number(word) for word in FIXED.findall(line)[:count]]
    return found if len(found) == count else [math.nan] * count


def _stop(last: Iterable[str]) -> str:
    """Return the error that VASP stopped with, from its last lines; empty where it printed none."""
    tail = "".join(last)
    banner = tail.rfind(ERROR_BANNER)
    message = " ".join(
        re.findall(r"^ *\| +(?!-)([^|\n]*[a-z][^|\n]*?) +\|", tail[max(banner, 0) :], flags=re.MULTILINE)
    )
    if banner < 0 or not message:
        message = _known_error(tail) if SUSPICIOUS.search(tail) else ""
    return f"VASP stopped with an error: {message[:MAX_REASON_LENGTH]}" if message else ""


def _known_error(tail: str) -> str:
    """Return the first line that holds an error message of VASP that custodian knows."""
    from custodian.vasp.handlers import VaspErrorHandler

    # custodian takes a changed number of bands for a warning as well
    by_name = {name: parts for name, parts in VaspErrorHandler.error_msgs.items() if name != "auto_nbands"}
    known = ["VERY BAD NEWS", *itertools.chain.from_iterable(by_name.values())]
    return next((line.strip(" |") for line in tail.splitlines() if any(part in line for part in known)), "")
