"""CHGNet's graphs of a batch: atoms, edges between them, bonds of two edges each, and angles between short bonds."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from chgnet.graph.crystalgraph import CrystalGraph
from torch import Tensor

from hopline.potentials.neighbours import Pairs


@dataclass(frozen=True, eq=False)
class Atoms:
    """The atoms of a batch: atomic ``numbers`` and ``graph`` (n_atoms,) each, and the ``sizes`` (n_graphs,)."""

    numbers: Tensor
    graph: Tensor
    sizes: Tensor


@dataclass(frozen=True, eq=False)
class Bonds:
    """Directed edges (n_edges,) between atoms, and the undirected bonds (n_bonds,) they are two of each.

    Indices count through the whole batch. ``edge_of_bond`` is one of a bond's two.
    """

    centre: Tensor
    neighbour: Tensor
    graph: Tensor
    bond_of_edge: Tensor
    edge_of_bond: Tensor


@dataclass(frozen=True, eq=False)
class Angles:
    """Angles (n_angles,) at ``apex`` between two ``bonds``, seen along two ``edges`` that start there; both orders."""

    apex: Tensor
    bonds: tuple[Tensor, Tensor]
    edges: tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Graphs:
    """Graphs joined into one, as the model reads them."""

    atoms: Atoms
    bonds: Bonds
    angles: Angles


@dataclass(frozen=True, eq=False)
class Batch:
    """Graphs and, in A, the ``vectors`` (n_edges, 3) from centre to neighbour and the ``lattice`` (n_graphs, 3, 3)."""

    graphs: Graphs
    vectors: Tensor
    lattice: Tensor


def bonds_of(pairs: Pairs) -> Bonds:
    """Return neighbours' edges with the bonds they make."""
    edges = torch.arange(len(pairs.centre), device=pairs.centre.device)
    first = edges < pairs.reverse
    number = first.cumsum(0) - 1
    return Bonds(
        centre=pairs.centre, neighbour=pairs.neighbour, graph=pairs.system,
        bond_of_edge=number.index_select(0, torch.where(first, edges, pairs.reverse)),
        edge_of_bond=first.nonzero()[:, 0],
    )  # fmt: skip


def angles_of(bonds: Bonds, short: Tensor, n_atoms: int) -> Angles:
    """Return the angles between the bonds for which ``short`` (n_bonds,) is true; edges must be sorted by centre."""
    edges = short.index_select(0, bonds.bond_of_edge).nonzero()[:, 0]
    centre = bonds.centre.index_select(0, edges)
    at_atom = torch.bincount(centre, minlength=n_atoms)
    partners = at_atom.index_select(0, centre)
    left = torch.repeat_interleave(partners)
    # each edge is paired with all that start where it does, from the first of them on
    first_partner = (at_atom.cumsum(0) - at_atom).index_select(0, centre) - (partners.cumsum(0) - partners)
    right = torch.arange(len(left), device=left.device) + first_partner.index_select(0, left)
    other = left != right
    left, right = left[other], right[other]
    of_left, of_right = edges.index_select(0, left), edges.index_select(0, right)
    bond_of_edge = bonds.bond_of_edge
    return Angles(
        apex=centre.index_select(0, left),
        bonds=(bond_of_edge.index_select(0, of_left), bond_of_edge.index_select(0, of_right)),
        edges=(of_left, of_right),
    )


def collate(graphs: Sequence[CrystalGraph], device: str | torch.device = "cpu") -> Batch:
    """Join CHGNet's own graphs into a batch on a device."""
    sizes, n_edges, n_bonds = (
        torch.tensor([len(getattr(graph, name)) for graph in graphs])
        for name in ("atomic_number", "directed2undirected", "undirected2directed")
    )
    atoms, edges, bonds = ((counts.cumsum(0) - counts).tolist() for counts in (sizes, n_edges, n_bonds))

    def joined(name: str, starts: Sequence[int]) -> Tensor:
        parts = [getattr(graph, name).long() + start for graph, start in zip(graphs, starts, strict=True)]
        return torch.cat(parts).to(device)

    def spread(counts: Tensor) -> Tensor:
        return torch.repeat_interleave(torch.arange(len(graphs)), counts).to(device)

    centre, neighbour = joined("atom_graph", atoms).T.contiguous()
    # the graph of a frame without angles has no columns either
    angles = [
        graph.bond_graph.reshape(-1, 5).long() + torch.tensor(starts)
        for graph, *starts in zip(graphs, atoms, bonds, edges, bonds, edges, strict=True)
    ]
    apex, bond_i, edge_i, bond_j, edge_j = torch.cat(angles).to(device).T.contiguous()
    return Batch(
        Graphs(
            Atoms(joined("atomic_number", [0] * len(graphs)), spread(sizes), sizes.to(device)),
            Bonds(
                centre=centre, neighbour=neighbour, graph=spread(n_edges),
                bond_of_edge=joined("directed2undirected", bonds),
                edge_of_bond=joined("undirected2directed", edges),
            ),
            Angles(apex=apex, bonds=(bond_i, bond_j), edges=(edge_i, edge_j)),
        ),
        vectors=torch.cat([_vectors(graph) for graph in graphs]).to(device),
        lattice=torch.stack([graph.lattice for graph in graphs]).detach().to(device),
    )  # fmt: skip


def _vectors(graph: CrystalGraph) -> Tensor:
    """Return the vectors (n_edges, 3) in A from centre to neighbour, rounded once."""
    lattice, fractional = graph.lattice.detach().double(), graph.atom_frac_coord.detach().double()
    centre, neighbour = graph.atom_graph.long().T
    away = fractional.index_select(0, neighbour) - fractional.index_select(0, centre)
    return ((away + graph.neighbor_image) @ lattice).to(graph.lattice.dtype)
