"""Labelled frames written in every format that Hopline reads, by the formats' own libraries where there are any."""

import gzip
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import ase.build
import ase.db
import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from hopline.frames import stress_matrix
from hopline.labels.candidates import Candidate
from hopline.units import KBAR_PER_EV_PER_A3

STARS, EQUALS, DASHES = "*" * 50, "=" * 50, "-" * 50


def labelled_frames(count: int, seed: int = 0) -> list[Atoms]:
    """Return LiF frames, Li and F in turn, with labels of no meaning but of full precision in a calculator."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        atoms = ase.build.bulk("LiF", "rocksalt", a=4.08, cubic=True)
        atoms.set_cell(atoms.cell.array + rng.normal(0, 0.02, (3, 3)), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.03, (len(atoms), 3))
        atoms.calc = SinglePointCalculator(
            atoms,
            energy=float(rng.normal(-40, 0.1)),
            forces=rng.normal(0, 1, (len(atoms), 3)),
            stress=rng.normal(0, 0.01, 6),
        )
        made.append(atoms)
    return made


def write_extxyz(folder: Path, frames: Sequence[Atoms], _shared: Path) -> Path:
    ase.io.write(folder / "frames.xyz", frames, format="extxyz")
    return folder / "frames.xyz"


def write_ase_db(folder: Path, frames: Sequence[Atoms], _shared: Path) -> Path:
    with ase.db.connect(folder / "frames.db") as database:
        for atoms in frames:
            database.write(atoms)
    return folder / "frames.db"


def write_deepmd(folder: Path, frames: Sequence[Atoms], _shared: Path) -> Path:
    import dpdata

    system = dpdata.MultiSystems()
    for atoms in frames:
        system.append(dpdata.LabeledSystem(atoms, fmt="ase/structure"))
    system.to("deepmd/npy", str(folder / "deepmd"), prec=np.float64)
    return folder / "deepmd"


def write_mptrj(folder: Path, frames: Sequence[Atoms], _shared: Path) -> Path:
    """Write MPtrj's JSON: total energies (eV), forces (eV/A), stresses in kbar with VASP's sign."""
    from pymatgen.io.ase import AseAtomsAdaptor

    content = {}
    for index, atoms in enumerate(frames):
        bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
        energy = atoms.get_potential_energy()
        content[f"mp-{index}"] = {
            f"mp-{index}-0-0": {
                "structure": AseAtomsAdaptor.get_structure(bare).as_dict(),
                "uncorrected_total_energy": energy,
                "corrected_total_energy": energy - 1.0,
                "energy_per_atom": (energy - 1.0) / len(atoms),
                "ef_per_atom": 0.0,
                "e_per_atom_relaxed": 0.0,
                "ef_per_atom_relaxed": 0.0,
                "force": atoms.get_forces().tolist(),
                "stress": (-KBAR_PER_EV_PER_A3 * atoms.get_stress(voigt=False)).tolist(),
                "magmom": None,
                "bandgap": 0.0,
                "mp_id": f"mp-{index}",
            }
        }
    (folder / "MPtrj.json").write_text(json.dumps(content))
    return folder / "MPtrj.json"


def write_ml_ab(folder: Path, frames: Sequence[Atoms], _shared: Path) -> Path:
    """Write VASP's ML_AB, version 1.0, atoms grouped by element in each configuration as VASP has them."""
    grouped = [(atoms, np.argsort(atoms.numbers, kind="stable")) for atoms in frames]
    elements = sorted({symbol for atoms in frames for symbol in atoms.symbols})
    blocks = [
        _section("The number of configurations", [str(len(frames))], DASHES),
        _section("The maximum number of atom type", [str(len(elements))], DASHES),
        _section("The atom types in the data file", _threes(elements), DASHES),
        _section("The maximum number of atoms per system", [str(max(map(len, frames)))], DASHES),
        _section("The maximum number of atoms per atom type", [str(max(map(len, frames)))], DASHES),
        _section("Reference atomic energy (eV)", _threes(["0.0"] * len(elements)), DASHES),
        _section("Atomic mass", _threes(["1.0"] * len(elements)), DASHES),
        _section("The numbers of basis sets per atom type", _threes(["1"] * len(elements)), DASHES),
        *(_section(f"Basis set for {element}", ["1      1"], DASHES) for element in elements),
    ]
    text = " 1.0 Version\n" + "".join(f"{STARS}\n{block}" for block in blocks)
    for number, (atoms, order) in enumerate(grouped, start=1):
        text += f"{STARS}\n     Configuration num. {number:6d}\n" + _configuration(atoms, order)
    (folder / "ML_ABN").write_text(text)
    return folder / "ML_ABN"


def _configuration(atoms: Atoms, order: np.ndarray) -> str:
    symbols = np.array(atoms.get_chemical_symbols())[order]
    kinds = list(dict.fromkeys(symbols))
    counts = [f"{kind} {np.count_nonzero(symbols == kind)}" for kind in kinds]
    stress = -KBAR_PER_EV_PER_A3 * atoms.get_stress(voigt=False)
    xx, yy, zz = np.diag(stress)
    sections = [
        ("System name", ["LiF in a test"]),
        ("The number of atom types", [str(len(kinds))]),
        ("The number of atoms", [str(len(atoms))]),
        ("Atom types and atom numbers", counts),
        ("CTIFOR", ["0.0020"]),
        ("Primitive lattice vectors (ang.)", _rows(atoms.cell.array)),
        ("Atomic positions (ang.)", _rows(atoms.positions[order])),
        ("Total energy (eV)", [f"{atoms.get_potential_energy():.15g}"]),
        ("Forces (eV ang.^-1)", _rows(atoms.get_forces()[order])),
    ]
    text = "".join(f"{EQUALS}\n{_section(name, lines, DASHES)}" for name, lines in sections)
    return (
        f"{text}{EQUALS}\n     Stress (kbar)\n{DASHES}\n     XX YY ZZ\n{DASHES}\n{_rows([[xx, yy, zz]])[0]}\n"
        f"{DASHES}\n     XY YZ ZX\n{DASHES}\n{_rows([[stress[0, 1], stress[1, 2], stress[2, 0]]])[0]}\n"
    )


def _section(name: str, lines: Sequence[str], rule: str) -> str:
    return f"     {name}\n{rule}\n" + "".join(f"     {line}\n" for line in lines)


def _threes(words: Sequence[str]) -> list[str]:
    return ["  ".join(words[first : first + 3]) for first in range(0, len(words), 3)]


def _rows(array: np.ndarray) -> list[str]:
    return ["  ".join(f"{value:.15e}" for value in row) for row in np.asarray(array)]


def copied(*parts: str, name: str) -> Callable[[Path, Sequence[Atoms], Path], Path]:
    """Return a writer that takes a real file instead of the frames."""

    def write(folder: Path, _frames: Sequence[Atoms], shared: Path) -> Path:
        return Path(shutil.copyfile(shared.joinpath("dft_outputs", *parts), folder / name))

    return write


WRITERS = {
    "extxyz": write_extxyz,
    "deepmd": write_deepmd,
    "ase-db": write_ase_db,
    "mptrj": write_mptrj,
    "ml_ab": write_ml_ab,
    "vasprun": copied("vasp", "vasprun.h2o.md.10.xml", name="vasprun.xml"),
    "outcar": copied("vasp", "OUTCAR.h2o.md.10", name="OUTCAR"),
    "espresso": copied("espresso", "lif_hi.out", name="pw.out"),
}
FORMATS = tuple(WRITERS)
INVENTED = ("extxyz", "deepmd", "ase-db", "mptrj", "ml_ab")
"""Formats that hold the frames given; the others hold a real run's."""


def gzipped(path: Path) -> Path:
    """Replace a file by its gzip."""
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return packed


def same(found: Candidate, atoms: Atoms, tolerance: float = 1e-8) -> None:
    """Check that a frame that was read is the one that was written, labels included."""
    assert found.reason == ""
    assert list(found.atoms.symbols) == list(atoms.symbols)
    assert found.atoms.pbc.all()
    pairs = [
        (found.atoms.positions, atoms.positions),
        (found.atoms.cell.array, atoms.cell.array),
        (found.energy_eV, atoms.get_potential_energy()),
        (found.forces_eV_per_A, atoms.get_forces()),
        (stress_matrix(found.stress), atoms.get_stress(voigt=False)),
    ]
    for got, wanted in pairs:
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance)


def reader_of(module: ModuleType, path: Path) -> Callable[[str | bytes], list[Candidate]]:
    """Return a function that writes text or bytes to a path and reads it as a format."""

    def read(content: str | bytes) -> list[Candidate]:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return list(module.read(path))

    return read


def replaced(text: str, old: str, new: str, count: int = 1) -> str:
    """Return a text with a word replaced that must be there."""
    assert old in text
    return text.replace(old, new, count)


def reasons(found: Sequence[Candidate]) -> list[str]:
    """Return why each frame is not believed, empty where it is."""
    return [candidate.reason for candidate in found]
