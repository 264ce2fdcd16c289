"""Which frames are the same structure, and which move alike, whatever their labels, digits or order of atoms."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]

SAME_A = 1e-3
"""No atom and no cell vector further off than this: the same frame, written with other digits."""
HARMONICS, WAVE_PHASES = (1, 2), (0.3, 1.1, 2.3)
SEARCHED, PAIRS_AT_ONCE = 6, 20_000
"""More numbers make a search tree slower, not sharper; pairs are taken in lots that fit in memory."""
OPEN_BOX_A = 1e4
"""Stands for the missing vectors of a frame without a three-dimensional cell: its atoms cannot wrap there."""
SAME_SITE_A = 1.0
"""Root mean square distance of atoms from another frame's beyond which the two share no lattice."""
DIFFUSING_A = 1.5
"""An atom that is ever this far from its mean place hops; its jumps would outweigh the vibrations of the others."""
ALIKE = 0.5
"""Half the correlation is lost within a vibration or two."""
NOISE, COLLECTIVE = 4.0, 2.0
"""Standard deviations that independent frames may reach (a Gaussian passes them once in 30,000 pairs), of cosines that
scatter more than those of independent coordinates: LiF with 16 atoms by 1.9, with 216 by 1.4."""
ROWS_AT_ONCE = 500
MIN_FRAMES = 10
"""A mean structure of fewer frames is too near each of them."""


def first_of_kind(frames: Sequence[Atoms]) -> NDArray[np.int64]:
    """Return for each frame the row of the first frame that is the same structure, (n_frames).

    Two frames are the same where cells and positions agree within `SAME_A`, whatever the order of their atoms, the
    lattice vectors that atoms are wrapped by, or a rotation of the whole. Candidates are found by numbers that none
    of these changes and that move by no more than the atoms do (see `_Structures.marks`), then compared in full.
    """
    first = np.arange(len(frames))
    for rows in _by_formula(frames):
        if len(rows) > 1:
            structures = _Structures.of([frames[row] for row in rows])
            for early, late in structures.candidates():
                new = first[rows[late]] == rows[late] and first[rows[early]] == rows[early]
                if new and structures.agree(early, late):
                    first[rows[late]] = rows[early]
    return first


def found_in(frames: Sequence[Atoms], sets: Mapping[str, Sequence[Atoms]]) -> list[str | None]:
    """Return for each frame the name of a set that holds the same structure (`first_of_kind`), None where none does."""
    every = [atoms for part in sets.values() for atoms in part]
    names = [name for name, part in sets.items() for _ in part]
    first = first_of_kind([*every, *frames])[len(every) :]
    return [names[row] if row < len(every) else None for row in first.tolist()]


def moving_alike(sets: Sequence[Sequence[Atoms]]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell which frames move like another frame: neighbours in time, where nothing says which run they come from.

    Two frames move alike where the cosine between their displacements from the mean structure is at least `ALIKE`,
    and in small cells, which have few modes, further off than `NOISE` standard deviations (as Fisher's z). It is 0
    for independent frames, the time correlation of the displacements for two frames of one run. Frames are compared
    in fractional coordinates, free of rigid shifts, atoms of one element matched where their order differs; atoms
    that hop are left out.

    Returns
    -------
    alike, comparable
        For the frames of all sets in their order, (n_frames, n_sets): whether one moves like another of that set; and
        (n_frames): whether it shares its lattice with enough frames to be compared at all (a liquid does not).
    """
    frames = [frame for part in sets for frame in part]
    member = np.repeat(np.arange(len(sets)), [len(part) for part in sets])
    alike, comparable = np.zeros((len(frames), len(sets)), dtype=bool), np.zeros(len(frames), dtype=bool)
    for same_formula in _by_formula(frames):
        left = same_formula
        while len(left) >= MIN_FRAMES:
            moved = {row: _displacements(frames[left[0]], frames[row]) for row in left}
            found = {row: one for row, one in moved.items() if one is not None}
            rows = np.array(list(found))
            left = [row for row in left if row not in found]
            if len(rows) >= MIN_FRAMES:
                directions = _directions(np.array(list(found.values())))
                comparable[rows] = True
                scatter = COLLECTIVE / np.sqrt(max(directions.shape[1], 1))
                near = max(ALIKE, np.tanh(NOISE * scatter))
                for start in range(0, len(rows), ROWS_AT_ONCE):
                    some = slice(start, start + ROWS_AT_ONCE)
                    close = directions[some] @ directions.T >= near
                    close[np.arange(len(close)), start + np.arange(len(close))] = False
                    for number in range(len(sets)):
                        alike[rows[some], number] = close[:, member[rows] == number].any(axis=1)
    return alike, comparable


def _by_formula(frames: Sequence[Atoms]) -> list[list[int]]:
    """Return the rows of frames that hold the same atoms in any order."""
    groups: dict[bytes, list[int]] = {}
    for row, frame in enumerate(frames):
        groups.setdefault(np.sort(frame.numbers).tobytes(), []).append(row)
    return list(groups.values())


def _lattice(atoms: Atoms) -> Floats:
    missing = ~atoms.cell.array.any(axis=1)
    if not missing.any():
        return np.array(atoms.cell.array)
    cell = np.array(atoms.cell.complete().array)
    cell[missing] *= OPEN_BOX_A
    return cell


@dataclass(frozen=True, eq=False)
class _Structures:
    """Structures of one formula: cells (n, 3, 3), fractional coordinates (n, n_atoms, 3) ordered by element."""

    cells: Floats
    places: Floats
    elements: list[slice]

    @classmethod
    def of(cls, frames: Sequence[Atoms]) -> "_Structures":
        """Gather frames that hold the same atoms in any order."""
        cells = np.array([_lattice(frame) for frame in frames])
        order = [np.argsort(frame.numbers, kind="stable") for frame in frames]
        positions = np.array([frame.positions[at] for frame, at in zip(frames, order, strict=True)])
        ends = np.flatnonzero(np.diff(frames[0].numbers[order[0]])) + 1
        bounds = [0, *ends.tolist(), len(frames[0])]
        return cls(cells, positions @ np.linalg.inv(cells), [slice(*pair) for pair in pairwise(bounds)])

    def candidates(self) -> Iterator[tuple[int, int]]:
        """Yield pairs of rows (earlier, later) that may be the same, in the order of the later one."""
        marks, profiles = self.marks()
        telling = np.argsort(-marks.std(axis=0), kind="stable")[:SEARCHED]
        pairs = cKDTree(marks[:, telling]).query_pairs(2 * SAME_A, p=np.inf, output_type="ndarray")
        pairs = pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]
        for some in np.array_split(pairs, len(pairs) // PAIRS_AT_ONCE + 1):
            part = some
            for numbers in (marks, profiles):
                apart = np.abs(numbers[part[:, 0]] - numbers[part[:, 1]]).max(axis=1, initial=0)
                part = part[apart <= 2 * SAME_A]
            yield from part.tolist()

    def marks(self) -> tuple[Floats, NDArray[np.float32]]:
        """Return numbers (A) of each structure that change no more than its atoms move: few, and one for each atom.

        The few: lengths of the cell's edges and face diagonals, and for each element the mean of exp(2 pi i m s) over
        fractional coordinates s. The many: for each element the sorted values of a periodic function of the position
        (sorting brings no two lists further apart).
        """
        heights = 1 / np.linalg.norm(np.linalg.inv(self.cells), axis=1)
        edges = np.concatenate([self.cells, self.cells + np.roll(self.cells, 1, axis=1)], axis=1)
        few, many = [np.linalg.norm(edges, axis=2)], []
        for element in self.elements:
            turns = 2 * np.pi * self.places[:, element]
            for m in HARMONICS:
                scale = heights / (2 * np.pi * m)
                few += [np.cos(m * turns).mean(axis=1) * scale, np.sin(m * turns).mean(axis=1) * scale]
            waves = (np.cos(turns + WAVE_PHASES) * heights[:, None] / (2 * np.pi)).mean(axis=2)
            many.append(np.sort(waves, axis=1).astype(np.float32))
        return np.concatenate(few, axis=1), np.concatenate(many, axis=1)

    def agree(self, one: int, two: int) -> bool:
        """Tell whether two structures are the same atoms."""
        cell, mine, theirs = self.cells[one], self.places[one], self.places[two]
        if _distances(cell, mine - theirs).max() <= SAME_A:
            return True
        for element in self.elements:
            tree = cKDTree(_wrapped(theirs[element]), boxsize=1.0)
            nearest = tree.query(_wrapped(mine[element]))[1]
            apart = _distances(cell, mine[element] - theirs[element][nearest])
            if len(set(nearest.tolist())) < len(nearest) or apart.max() > SAME_A:
                return False
        return True


def _wrapped(places: Floats) -> Floats:
    inside = np.mod(places, 1.0)
    inside[inside >= 1.0] = 0.0  # what lies just below a whole number rounds up to it
    return inside


def _distances(cell: Floats, difference: Floats) -> Floats:
    """Return lengths (A) of differences of fractional coordinates, to the nearest image of a compact cell."""
    return np.asarray(np.linalg.norm((difference - np.round(difference)) @ cell, axis=1))


def _displacements(reference: Atoms, atoms: Atoms) -> Floats | None:
    """Return displacements (n_atoms, 3) from a reference, in its order of atoms and its cell; None if too far."""
    cell = _lattice(reference)
    here = np.linalg.solve(cell.T, reference.positions.T).T
    there = np.linalg.solve(_lattice(atoms).T, atoms.positions.T).T
    order = np.arange(len(atoms))
    same_order = np.array_equal(reference.numbers, atoms.numbers)
    if not same_order or np.sqrt((_distances(cell, there - here) ** 2).mean()) > SAME_SITE_A:
        for number in np.unique(reference.numbers):
            mine, theirs = (
                np.flatnonzero(reference.numbers == number),
                np.flatnonzero(atoms.numbers == number),
            )
            apart = there[theirs][None] - here[mine][:, None]
            squares = (((apart - np.round(apart)) @ cell) ** 2).sum(axis=-1)
            order[mine] = theirs[linear_sum_assignment(squares)[1]]
    moved = there[order] - here
    moved -= np.round(moved)
    moved -= np.median(moved, axis=0)
    moved = (moved - np.round(moved)) @ cell
    return moved if np.sqrt((moved**2).sum(axis=1).mean()) <= SAME_SITE_A else None


def _directions(moved: Floats) -> NDArray[np.float32]:
    """Return displacements (n_frames, n_atoms, 3) from their mean as vectors of length one, (n_frames, 3 n_staying)."""
    moved = moved - moved.mean(axis=0)
    staying = np.linalg.norm(moved, axis=2).max(axis=0) <= DIFFUSING_A
    moved = moved[:, staying]
    flat = (moved - moved.mean(axis=1, keepdims=True)).reshape(len(moved), -1)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)
