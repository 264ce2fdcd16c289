"""DeePMD systems: a folder with type.raw, type_map.raw and set.*/*.npy, types per atom or per frame (mixed)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from hopline.labels import text
from hopline.labels.candidates import Broken, Candidate

FORMAT = "deepmd"
TYPES, TYPE_MAP, NOT_PERIODIC, SETS = "type.raw", "type_map.raw", "nopbc", "set.*"
COORD, BOX, ENERGY, FORCE, VIRIAL = "coord", "box", "energy", "force", "virial"
FRAME_TYPES = "real_atom_types"
VIRTUAL = -1
"""The type of an atom that only pads a frame of a mixed system to the others' length."""
MAX_TEXT_BYTES = 16 << 20
BLOCK_VALUES = 1 << 20
"""Numbers of one array in memory at a time; a file is mapped anew for each block, or its pages would pile up."""


def recognises(name: str, head: bytes) -> bool:  # noqa: ARG001  the readers' common signature
    """Tell that a file on its own is no DeePMD system: that is a folder, see `is_system`."""
    return False


def is_system(folder: Path) -> bool:
    """Tell whether a folder is a DeePMD system of npy sets."""
    return (folder / TYPES).is_file() and any(path.is_dir() for path in folder.glob(SETS))


def read(path: Path) -> Iterator[Candidate]:
    """Yield the frames of every set; one that cannot be read is one rejected row, the others are still read.

    Energies are in eV, forces in eV/A, virials in eV: minus the stress (ASE's sign) times the volume. All sets are
    one trajectory, since DeePMD's tools shuffle frames among them.

    Raises
    ------
    Broken
        If the atoms' elements cannot be told.
    """
    types, elements = _types(path), _elements(path)
    for folder in sorted(found for found in path.glob(SETS) if found.is_dir()):
        row = 0
        try:
            for candidate in _set(folder, types, elements, periodic=not (path / NOT_PERIODIC).exists()):
                row = candidate.frame + 1
                yield candidate
        except Broken as error:
            yield Candidate(str(folder), row, reason=str(error), trajectory=str(path))


def _types(folder: Path) -> NDArray[np.int64]:
    words = _words(folder / TYPES)
    if not words:
        raise Broken(f"{TYPES} is empty")
    wrong = next((word for word in words if not word.isdecimal()), None)
    if wrong is not None:
        raise Broken(f"{TYPES} holds {wrong[:20]!r} where the number of a type is expected")
    return np.array([min(int(word[:18]), len(atomic_numbers)) for word in words])


def _elements(folder: Path) -> list[str]:
    if not (folder / TYPE_MAP).is_file():
        raise Broken(
            f"there is no {TYPE_MAP} beside {TYPES}: write the elements there, in the order of the types"
        )
    return _words(folder / TYPE_MAP)


def _words(path: Path) -> list[str]:
    content = text.text(path, max_bytes=MAX_TEXT_BYTES)
    if content and not content.endswith("\n"):
        # Cl may be C by now, type 10 type 1
        raise Broken(f"{path.name} may be cut off: its last line has no end (add it if nothing is missing)")
    return content.split()


@dataclass(frozen=True)
class _Array:
    """One npy file of a set, a row a frame, read a few rows at a time."""

    path: Path
    rows: int
    row_values: int

    def read(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return some rows, (stop - start, row_values)."""
        return np.array(_mapped(self.path)[start:stop], dtype=float).reshape(stop - start, self.row_values)


def _mapped(path: Path) -> NDArray[np.generic]:
    """Return an npy file as an array on disk; one of objects (a pickle) is refused by numpy's mapping itself."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # numpy's header parser raises whatever it stumbles over
        raise Broken(f"{path.name} is cut off, damaged or no array of numbers ({error})") from error
    if array.dtype.kind not in "fiu" or array.ndim == 0:
        raise Broken(
            f"{path.name} holds {array.dtype} of shape {array.shape}, a row of numbers a frame is expected"
        )
    size = path.stat().st_size
    if size != array.offset + array.nbytes:
        raise Broken(
            f"{path.name} is damaged: {size} bytes, its header announces {array.offset + array.nbytes}"
        )
    return array


def _array(folder: Path, name: str, row_values: int) -> _Array | None:
    path = folder / f"{name}.npy"
    if not path.is_file():
        return None
    array = _mapped(path)
    rows = array.shape[0]
    if array.size != rows * row_values:
        raise Broken(f"{path.name} has shape {array.shape}: {row_values} numbers a frame are expected")
    return _Array(path, rows, row_values)


def _set(
    folder: Path, types: NDArray[np.int64], elements: list[str], *, periodic: bool
) -> Iterator[Candidate]:
    n_atoms = len(types)
    widths = {COORD: 3 * n_atoms, BOX: 9, ENERGY: 1, FORCE: 3 * n_atoms, VIRIAL: 9, FRAME_TYPES: n_atoms}
    found = {name: _array(folder, name, width) for name, width in widths.items()}
    arrays = {name: array for name, array in found.items() if array is not None}
    if COORD not in arrays:
        raise Broken(f"there is no {COORD}.npy")
    if periodic and BOX not in arrays:
        raise Broken(f"there is no {BOX}.npy, and no file {NOT_PERIODIC} that says there need not be")
    if len({array.rows for array in arrays.values()}) > 1:
        counts = ", ".join(f"{array.path.name} {array.rows}" for array in arrays.values())
        raise Broken(f"its files hold different numbers of frames: {counts}")
    step = max(1, BLOCK_VALUES // (3 * n_atoms))
    for start in range(0, arrays[COORD].rows, step):
        stop = min(start + step, arrays[COORD].rows)
        block = {name: array.read(start, stop) for name, array in arrays.items()}
        for row in range(stop - start):
            frame = {name: values[row] for name, values in block.items()}
            yield _candidate(folder, start + row, frame, types, elements, periodic=periodic)


# numbers of a damaged file may be of any size; the judge refuses what is not finite
@np.errstate(all="ignore")
def _candidate(
    folder: Path,
    row: int,
    frame: dict[str, NDArray[np.float64]],
    types: NDArray[np.int64],
    elements: list[str],
    *,
    periodic: bool,
) -> Candidate:
    trajectory = str(folder.parent)
    own = frame.get(FRAME_TYPES, types)
    real = own != VIRTUAL
    try:
        numbers = _numbers(own[real], elements)
    except Broken as error:
        return Candidate(str(folder), row, reason=str(error), trajectory=trajectory)
    cell = frame[BOX].reshape(3, 3) if periodic else np.zeros((3, 3))
    atoms = Atoms(numbers=numbers, positions=frame[COORD].reshape(-1, 3)[real], cell=cell, pbc=periodic)
    volume_A3 = abs(np.linalg.det(cell))
    has_stress = VIRIAL in frame and volume_A3 > 0
    return Candidate(
        source=str(folder),
        frame=row,
        atoms=atoms,
        energy_eV=float(frame[ENERGY][0]) if ENERGY in frame else None,
        forces_eV_per_A=frame[FORCE].reshape(-1, 3)[real] if FORCE in frame else None,
        stress=-frame[VIRIAL].reshape(3, 3) / volume_A3 if has_stress else None,
        trajectory=trajectory,
    )


def _numbers(types: NDArray[np.generic], elements: list[str]) -> NDArray[np.int64]:
    """Return atomic numbers, or refuse types that name no element."""
    kinds, places = np.unique(types, return_inverse=True)
    wrong = next((kind for kind in kinds if kind not in range(len(elements))), None)
    if wrong is not None:
        raise Broken(
            f"an atom is of type {wrong:g}, {TYPE_MAP} names {len(elements)} (0 to {len(elements) - 1})"
        )
    symbols = [elements[int(kind)] for kind in kinds]
    strange = next((symbol for symbol in symbols if not atomic_numbers.get(symbol)), None)
    if strange is not None:
        raise Broken(f"{TYPE_MAP} names {strange[:20]!r}: that is no element")
    return np.array([atomic_numbers[symbol] for symbol in symbols])[places]
