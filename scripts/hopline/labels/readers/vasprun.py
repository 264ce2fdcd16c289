"""VASP's vasprun.xml, one ionic step after the other."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hopline.labels import text, vasp_output
from hopline.labels.candidates import FREE, Broken, Candidate

FORMAT = "vasprun"
ROOT, STEP = "modeling", "calculation"
KEPT = {"incar", "kpoints", "parameters", "atominfo", STEP}
LEFT_OUT = {"eigenvalues", "projected", "dos", "dielectricfunction", "dynmat"}
"""Parts of an ionic step that grow with bands and k-points and hold no label."""
MAX_ELEMENTS = 1_000_000
"""XML elements in one part of the file, some 300 MB in memory; 100,000 atoms take 200,000."""


def recognises(name: str, head: bytes) -> bool:
    """Tell whether a file is a vasprun.xml; by name where its beginning does not tell."""
    by_name = "vasprun" in name and name.endswith(".xml")
    return f"<{ROOT}".encode() in head or (by_name and b"espresso" not in head)


def read(path: Path) -> Iterator[Candidate]:
    """Yield the ionic steps of a run, and one more with its reason if the file ends before VASP did.

    The energy is the ionic step's ``e_fr_energy`` (E - TS). Its ``e_0_energy`` and ``e_wo_entrp`` are wrong in some
    versions of VASP, and the energy of its last electronic step lacks the dispersion correction that the forces hold;
    ASE's and pymatgen's readers say the same. Stress: VASP's is positive where the crystal is compressed.

    Raises
    ------
    Broken
        If the file is no XML or another program's, or declares a document type or an entity, which VASP never does.
    """
    xml, run, row = _Xml(), _Run(), 0
    for line in text.lines(path):
        for part in xml.feed(line):
            if part.tag != STEP:
                run.take(part)
                continue
            if not run.is_predicted(part):
                try:
                    yield run.candidate(path, row, part)
                except (ValueError, IndexError) as error:
                    yield Candidate(str(path), row, reason=f"broken: {error}")
            row += 1
    if not xml.begun:
        raise Broken("it is empty" if not xml.fed else f"there is no <{ROOT}> in it")
    if xml.open_elements:
        yield Candidate(
            str(path),
            row,
            reason=vasp_output.CUT_INSIDE if STEP in xml.open_elements else vasp_output.CUT_BETWEEN,
        )
    elif not row:
        raise Broken("no ionic step in it")


class _Xml:
    """Reads XML piece by piece and hands out the wanted parts below the root, each once it is whole."""

    def __init__(self) -> None:
        self.fed = self.begun = False
        self.open_elements: list[str] = []
        self._whole: list[Element] = []
        self._builder: TreeBuilder | None = None
        self._elements = self._left_out_depth = 0
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._data
        self._parser.StartDoctypeDeclHandler = self._parser.EntityDeclHandler = _refuse

    def feed(self, piece: str) -> list[Element]:
        """Return the parts that this piece of the file completes."""
        self.fed = True
        self._whole = []
        try:
            self._parser.Parse(piece, False)
        except expat.ExpatError as error:
            raise Broken(f"broken XML: {error}") from error
        return self._whole

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if not self.begun and name != ROOT:
            raise Broken(f"XML of another kind: it begins with <{name[:40]}>, vasprun.xml with <{ROOT}>")
        self.begun = True
        self.open_elements.append(name)
        if len(self.open_elements) == 2 and name in KEPT:  # noqa: PLR2004
            self._builder, self._elements = TreeBuilder(), 0
        if self._builder is None or self._left_out_depth:
            return
        if name in LEFT_OUT:
            self._left_out_depth = len(self.open_elements)
            return
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise Broken(f"more than {MAX_ELEMENTS} elements in one <{self.open_elements[1]}>")
        self._builder.start(name, attributes)

    def _end(self, name: str) -> None:
        depth = len(self.open_elements)
        self.open_elements.pop()
        if self._builder is None:
            return
        if self._left_out_depth:
            self._left_out_depth = 0 if depth == self._left_out_depth else self._left_out_depth
            return
        self._builder.end(name)
        if depth == 2:  # noqa: PLR2004
            self._whole.append(self._builder.close())
            self._builder = None

    def _data(self, data: str) -> None:
        if self._builder is not None and not self._left_out_depth:
            self._builder.data(data)


def _refuse(*_declaration: object) -> NoReturn:
    raise Broken("it declares a document type or an entity: VASP writes neither, and they may be harmful")


@dataclass
class _Run:
    """What the parts before the ionic steps say of the run."""

    tags: dict[str, str] = field(default_factory=dict)
    incar: dict[str, str] = field(default_factory=dict)
    symbols: list[str] = field(default_factory=list)
    elements: list[str] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    valence_electrons: float = 0.0
    divisions: list[int] = field(default_factory=list)
    kpoints: NDArray[np.float64] | None = None
    theory: str | None = None

    def take(self, part: Element) -> None:
        """Note what a part says."""
        if part.tag == "incar":
            self.incar = _tags(part)
            self.tags = dict(self.incar)
        elif part.tag == "parameters":
            self.tags |= _tags(part)
        elif part.tag == "kpoints":
            self.kpoints = _varray(part, "kpointlist")
            divisions = part.find("generation/v[@name='divisions']")
            self.divisions = (
                [] if divisions is None else [int(word) for word in _words(divisions) if word.isdigit()]
            )
        elif part.tag == "atominfo":
            try:
                self._take_atoms(_rows(part, "atomtypes"), _rows(part, "atoms"))
            except (ValueError, IndexError) as error:
                raise Broken(f"its list of atoms cannot be read: {error}") from error

    def _take_atoms(self, kinds: Sequence[Sequence[str]], atoms: Sequence[Sequence[str]]) -> None:
        # some versions spell Zr as r and Xe as X, therefore the POTCAR's title
        self.titles = [kind[4] for kind in kinds]
        self.elements = [vasp_output.element(title) for title in self.titles]
        self.symbols = [self.elements[int(atom[1]) - 1] for atom in atoms]
        self.valence_electrons = sum(
            vasp_output.number(kind[0]) * vasp_output.number(kind[3]) for kind in kinds
        )

    def is_predicted(self, step: Element) -> bool:
        """Tell whether a step of on-the-fly training was left to the force field, as most are: it is no frame."""
        return vasp_output.is_true(self.tags, "ML_LMLFF") and step.find("scstep") is None

    def candidate(self, path: Path, row: int, step: Element) -> Candidate:
        """Return an ionic step as a frame."""
        cell = _varray(step, "basis", below="structure/crystal/")
        scaled = _varray(step, "positions", below="structure/")
        if cell is None or scaled is None or cell.shape != (3, 3) or scaled.shape != (len(self.symbols), 3):
            return Candidate(str(path), row, reason=f"no structure of {len(self.symbols)} atoms in it")
        if self.theory is None:  # of the first cell: VASP keeps its k-points when the cell changes
            charge = self.valence_electrons - vasp_output.number(self.tags.get("NELECT", "nan"))
            self.theory = vasp_output.level_of_theory(self.tags, self.titles, self._sampling(cell), charge)
        energy_eV = _energy(step)
        scf_energies_eV = [_energy(electronic) for electronic in step.findall("scstep")]
        stress_kbar = _varray(step, "stress")
        return Candidate(
            source=str(path),
            frame=row,
            atoms=Atoms(self.symbols, scaled_positions=scaled, cell=cell, pbc=True),
            reason=vasp_output.why_not(scf_energies_eV, energy_eV, self.tags),
            energy_eV=energy_eV,
            forces_eV_per_A=_varray(step, "forces"),
            stress=None if stress_kbar is None else vasp_output.stress(stress_kbar),
            level_of_theory=self.theory,
            energy_kind=FREE,
            pseudopotentials=vasp_output.pseudopotentials(self.elements, self.titles, self.tags),
        )

    def _sampling(self, cell: NDArray[np.float64]) -> str:
        """Return the k-points: as KSPACING if the mesh is what it makes of the cell (KPOINTS overrides it)."""
        if self.kpoints is None:
            return "k-points unknown"
        gamma = not self.kpoints[0].any()
        spacing = vasp_output.number(self.incar.get("KSPACING", "nan"))
        lengths = 2 * math.pi * np.linalg.norm(np.linalg.inv(cell).T, axis=1)
        if spacing > 0 and self.divisions == [
            max(1, math.ceil(length / spacing - 1e-6)) for length in lengths
        ]:
            return vasp_output.spacing_line(
                spacing, gamma=vasp_output.is_true({"KGAMMA": "T"} | self.incar, "KGAMMA")
            )
        return vasp_output.mesh_line(
            self.divisions or ([1, 1, 1] if gamma and len(self.kpoints) == 1 else []), self.kpoints
        )


def _tags(part: Element) -> dict[str, str]:
    """Return INCAR tags; of two of one name the first, since the block on response functions has a NELM of its own."""
    found: dict[str, str] = {}
    for entry in part.iter():
        if entry.tag in {"i", "v"} and "name" in entry.attrib:
            found.setdefault(entry.attrib["name"], " ".join(_words(entry)))
    return found


def _words(entry: Element) -> list[str]:
    return (entry.text or "").split()


def _rows(part: Element, name: str) -> list[list[str]]:
    rows = part.findall(f"array[@name='{name}']/set/rc")
    return [[(entry.text or "").strip() for entry in row.findall("c")] for row in rows]


def _varray(part: Element, name: str, *, below: str = "") -> NDArray[np.float64] | None:
    array = part.find(f"{below}varray[@name='{name}']")
    if array is None:
        return None
    rows = [[vasp_output.number(word) for word in _words(row)] for row in array.findall("v")]
    if not rows or any(len(row) != 3 for row in rows):  # noqa: PLR2004
        return np.full((max(1, len(rows)), 3), np.nan)
    return np.array(rows)


def _energy(part: Element) -> float | None:
    found = part.find("energy/i[@name='e_fr_energy']")
    return None if found is None else vasp_output.number((found.text or "").strip())
