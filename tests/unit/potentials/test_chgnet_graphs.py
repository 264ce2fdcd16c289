"""Graphs made of the neighbour list against those of CHGNet's own converter: the same edges, bonds and angles."""

from collections import Counter
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from scipy.spatial import cKDTree
from small import rocksalt_lif

from hopline.potentials import chgnet
from hopline.potentials.chgnet_graphs import angles_of, bonds_of, collate
from hopline.potentials.neighbours import NeighbourList

MPTRJ = Path(__file__).resolve().parents[4] / "shared/data/mptrj/replay_100.xyz"
SAME_EDGE_A = 1e-4


@pytest.fixture(scope="module")
def model():
    return chgnet.load_shipped("0.3.0")


def hydride():
    """Return Mg8H, one H between Mg."""
    atoms = bulk("Mg").repeat(2)
    atoms += Atoms("H", positions=[[1.6, 1.0, 1.3]])
    atoms.rattle(0.05, seed=1)
    return atoms


def one_atom():
    """Return a cell with nothing but images of its atom around it, bonds of an atom with itself."""
    return bulk("Cu", cubic=False)


def away():
    """Return atoms outside their cell."""
    atoms = rocksalt_lif(seed=5)
    atoms.positions[1] += 3 * atoms.cell[0]
    return atoms


def frames():
    known = [rocksalt_lif(), rocksalt_lif((2, 1, 1), seed=2), hydride(), one_atom(), away()]
    return known + (ase.io.read(MPTRJ, ":6") if MPTRJ.is_file() else [])


def contents(edges, bonds, angles):
    """Return edges, which edges are one bond, and angles, as multisets of named edges."""
    both = Counter()
    members = {}
    for edge, bond in zip(edges, bonds.bond_of_edge.tolist(), strict=True):
        members.setdefault(bond, []).append(edge)
    both.update(tuple(sorted(pair)) for pair in members.values())
    corners = Counter(
        (apex, edges[left], edges[right])
        for apex, left, right in zip(
            angles.apex.tolist(), angles.edges[0].tolist(), angles.edges[1].tolist(), strict=True
        )
    )
    return Counter(edges), both, corners


@pytest.mark.parametrize("atoms", frames(), ids=lambda atoms: atoms.get_chemical_formula())
def test_edges_bonds_and_angles_are_the_converters(model, atoms):
    theirs = collate([chgnet.graph_of(model, atoms)])
    neighbours = NeighbourList([len(atoms)], cutoff_A=6.0, skin_A=0.7)
    pairs, vectors, squares = neighbours.find(
        torch.tensor(atoms.positions), torch.tensor(atoms.cell.array)[None]
    )
    bonds = bonds_of(pairs)
    angles = angles_of(bonds, squares[bonds.edge_of_bond] < 9.0, len(atoms))
    # edges are told apart by their ends and vectors: give both orders the same numbers
    known = np.column_stack(
        [theirs.graphs.bonds.centre, theirs.graphs.bonds.neighbour, theirs.vectors.double()]
    )
    found = np.column_stack([pairs.centre, pairs.neighbour, vectors])
    assert len(found) == len(known)
    assert contents(matched(found, known), bonds, angles) == contents(
        range(len(known)), theirs.graphs.bonds, theirs.graphs.angles
    )
    for left, right in zip(angles.bonds, angles.edges, strict=True):
        assert torch.equal(bonds.bond_of_edge[right], left)
    assert torch.equal(bonds.bond_of_edge[bonds.edge_of_bond], torch.arange(len(bonds.edge_of_bond)))


def matched(found, known):
    """Return for each row of ``found`` the one row of ``known`` that has the same ends and vector."""
    far_A, numbers = cKDTree(known).query(found)
    assert far_A.max() < SAME_EDGE_A
    assert len(set(numbers)) == len(known)
    return numbers.tolist()


def test_a_kept_graph_says_what_a_fresh_one_does(model):
    """Atoms move so that the same are neighbours for some steps, and then others; two systems in a batch."""
    rng = np.random.default_rng(4)
    calculator = chgnet.ChgnetCalculator(model)
    moving = [rocksalt_lif(seed=1), hydride()]
    kept = calculator.join(moving)
    cells = torch.tensor(np.stack([atoms.cell.array for atoms in moving]))
    for step in range(12):
        for atoms in moving:
            atoms.positions += (1e-5 if step % 3 else 0.05) * rng.normal(size=atoms.positions.shape)
        positions = torch.tensor(np.concatenate([atoms.positions for atoms in moving]))
        found = kept.compute(positions, cells, stress=True)
        expected = calculator.join(moving, skin_A=0.0).compute(positions, cells, stress=True)
        for name in ("energies_eV", "forces_eV_per_A", "stresses_eV_per_A3", "shortest_A"):
            assert torch.equal(getattr(found, name), getattr(expected, name))
