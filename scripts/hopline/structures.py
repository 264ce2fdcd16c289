"""Host crystals, supercells and interstitial sites."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ase.build
import ase.io
import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.geometry import find_mic, minkowski_reduce
from numpy.typing import NDArray
from scipy.spatial import Voronoi, cKDTree

from hopline.console import InputError

SITE_TOLERANCE_A = 0.1
"""Two voids closer than this are one site: Voronoi vertices of a symmetric crystal coincide within rounding."""

ROUNDING = 1e-6
"""A vertex this close to a cell face lies on it; it is counted at the lower face only."""


@dataclass(frozen=True, eq=False)
class Void:
    """An empty site: Cartesian position (3,) in A and the distance to the nearest atom in A."""

    position_A: NDArray[np.float64]
    radius_A: float


def build_prototype(
    prototype: str, species: Sequence[str], lattice_constants_A: Sequence[float], *, conventional: bool = True
) -> Atoms:
    """Build a crystal from its prototype name, as ``ase.build.bulk`` knows it (rocksalt, fcc, bcc, hcp, ...).

    Parameters
    ----------
    prototype
        Prototype's name.
    species
        Chemical symbols in the prototype's order, e.g. ``["Li", "F"]``.
    lattice_constants_A
        a, or (a, c) for hexagonal prototypes, in A.
    conventional
        Whether to return the cubic conventional cell where there is one.
    """
    if not all(0.0 < constant_A < np.inf for constant_A in lattice_constants_A):
        raise InputError(f"lattice constants must be positive lengths in A, got {lattice_constants_A}")
    a_A, c_A = lattice_constants_A[0], (lattice_constants_A[1] if len(lattice_constants_A) > 1 else None)
    cubic = conventional and prototype not in {"hcp", "wurtzite"}
    try:
        return ase.build.bulk("".join(species), prototype, a=a_A, c=c_A, cubic=cubic)
    except (ValueError, RuntimeError, KeyError) as error:
        raise InputError(f"cannot build prototype {prototype} of {' '.join(species)}: {error}") from error


def read_host(path: str | os.PathLike[str]) -> Atoms:
    """Read a host crystal from any structure file that ASE reads (CIF, POSCAR, extended XYZ, ...)."""
    if not Path(path).is_file():
        raise InputError(f"host file {path} does not exist")
    try:
        host = ase.io.read(path)
    except Exception as error:  # ASE's parsers raise whatever they stumble over
        raise InputError(f"cannot read host file {path}: {error}") from error
    if not host.cell.rank == 3:  # noqa: PLR2004
        raise InputError(f"host file {path} has no three-dimensional cell")
    host.pbc = True
    return host


def find_voids(crystal: Atoms) -> list[Void]:
    """Find the interstitial voids of a periodic crystal, widest first.

    A void's centre is as far from its nearest atoms as can be: a vertex of the Voronoi diagram of the atoms and
    their periodic images. Coinciding vertices are merged.
    """
    # in the most compact cell of the lattice a void's nearest atoms lie in the cells around its own
    compact = Atoms(crystal.numbers, crystal.positions, cell=minkowski_reduce(crystal.cell)[0], pbc=True)
    compact.wrap()
    images = compact.repeat((3, 3, 3)).positions - compact.cell.array.sum(axis=0)
    vertices = Voronoi(images).vertices
    inside = compact.cell.scaled_positions(vertices)
    vertices = vertices[((inside > -ROUNDING) & (inside < 1 - ROUNDING)).all(axis=1)]
    nearest_A = cKDTree(images).query(vertices, k=4)[0]
    # of four atoms in one plane, as in an octahedron's waist, Qhull makes a vertex that is nowhere
    true = nearest_A[:, 3] - nearest_A[:, 0] < SITE_TOLERANCE_A
    vertices, radii = vertices[true], nearest_A[true, 0]
    fractional = crystal.cell.scaled_positions(vertices)
    fractional -= np.floor(fractional + ROUNDING)
    vertices = crystal.cell.cartesian_positions(fractional)
    order = np.lexsort((*fractional.round(4).T[::-1], -radii.round(4)))
    voids: list[Void] = []
    for row in order:
        near = [np.linalg.norm(_minimum_image(crystal, vertices[row] - void.position_A)) for void in voids]
        if not near or min(near) > SITE_TOLERANCE_A:
            voids.append(Void(position_A=vertices[row], radius_A=float(radii[row])))
    return voids


def add_interstitials(crystal: Atoms, species: str, count: int) -> Atoms:
    """Return the crystal with ``count`` atoms of ``species`` in its widest voids, as far apart as can be.

    Raises
    ------
    InputError
        If the crystal has fewer voids than atoms to place, or ``species`` is no element.
    """
    if species not in atomic_numbers or count < 0:
        raise InputError(
            f"{count} atoms of {species!r} cannot be placed: give an element and 0 or more atoms"
        )
    filled = crystal.copy()
    if count == 0:
        return filled
    voids = find_voids(crystal)
    widest = [void for void in voids if void.radius_A > voids[0].radius_A - SITE_TOLERANCE_A]
    if len(widest) < count:
        raise InputError(
            f"the crystal has {len(widest)} widest voids, {count} {species} do not fit: enlarge the supercell"
        )
    chosen = [widest[0]]
    while len(chosen) < count:
        rest = [void for void in widest if void not in chosen]
        apart = [
            min(
                np.linalg.norm(_minimum_image(crystal, void.position_A - other.position_A))
                for other in chosen
            )
            for void in rest
        ]
        chosen.append(rest[int(np.argmax(np.round(apart, 6)))])
    filled += Atoms([species] * count, positions=[void.position_A for void in chosen])
    return filled


def _minimum_image(crystal: Atoms, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    shortest: NDArray[np.float64] = find_mic(vectors, crystal.cell, pbc=True)[0]
    return shortest
