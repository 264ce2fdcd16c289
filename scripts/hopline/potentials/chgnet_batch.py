"""CHGNet on batches of graphs: energies, forces and stresses by one differentiation, ready to be trained on.

Upstream builds a batch graph by graph, multiplies its weights with the joined features of every edge and every angle,
and differentiates once for the forces and once more for the stress. Here a batch is one set of tensors; a weight of
joined features is applied to atoms and bonds before they are spread over edges and angles, of which there are many
more; and one differentiation gives both. The numbers are the same but for float32's rounding.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from chgnet.graph.crystalgraph import CrystalGraph
from chgnet.model.layers import AtomConv, BondConv
from chgnet.model.model import CHGNet
from torch import Tensor
from torch.nn.functional import linear, silu

from hopline.console import InputError
from hopline.units import GPA_PER_EV_PER_A3

KNOWN_LAYERS = {
    "mlp_first": True, "is_intensive": True, "update_bond": True, "update_angle": True, "non_linearity": "silu",
    "conv_dropout": 0, "mlp_dropout": 0, "conv_norm": None,
}  # fmt: skip
"""Arguments of a CHGNet whose layers are computed here; all shipped weights have them."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Graphs joined into one: atoms, directed edges between them, undirected bonds (two edges each), and angles.

    Indices count through the whole batch. ``image`` is the lattice vector, in cells, that an edge's neighbour is moved
    by. An angle lies at ``apex`` between two bonds, seen along two edges.
    """

    numbers: Tensor  # (n_atoms)
    graph_of_atom: Tensor  # (n_atoms)
    fractional: Tensor  # (n_atoms, 3)
    sizes: Tensor  # (n_graphs)
    lattice: Tensor  # (n_graphs, 3, 3), A, a row a vector
    centre: Tensor  # (n_edges)
    neighbour: Tensor  # (n_edges)
    image: Tensor  # (n_edges, 3)
    graph_of_edge: Tensor  # (n_edges)
    bond_of_edge: Tensor  # (n_edges)
    edge_of_bond: Tensor  # (n_bonds)
    apex: Tensor  # (n_angles)
    bonds: tuple[Tensor, Tensor]  # (n_angles) each
    edges: tuple[Tensor, Tensor]  # (n_angles) each


class Properties(NamedTuple):
    """Energies (n_graphs) in eV/atom, forces (n_atoms, 3) in eV/A, stresses (n_graphs, 3, 3) in GPa, ASE's sign."""

    energies: Tensor
    forces: Tensor
    stresses: Tensor


class _Flushing:
    """How many blocks want denormal numbers flushed; torch does not tell."""

    depth = 0


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Let numbers below 1e-38 be zero within the block: CHGNet's activations make them, and each costs 100 cycles."""
    _Flushing.depth += 1
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        _Flushing.depth -= 1
        # the end of an inner block is not that of the outer one
        torch.set_flush_denormal(_Flushing.depth > 0)


def refuse_other_layers(model: CHGNet) -> None:
    """Refuse a CHGNet that has layers which `predict` does not compute."""
    arguments = model.model_args
    other = [name for name, value in KNOWN_LAYERS.items() if arguments.get(name, value) != value]
    other += [
        name
        for name, value in arguments.items()
        if name.endswith("hidden_dim") and not isinstance(value, int)
    ]
    if arguments.get("gMLP_norm") not in {None, "layer"}:
        other.append("gMLP_norm")
    if other:
        raise InputError(
            f"this CHGNet has layers that are not computed here ({', '.join(other)}): take a shipped one"
        )


def collate(graphs: Sequence[CrystalGraph], device: str | torch.device = "cpu") -> Batch:
    """Join graphs into a batch on a device."""
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
        numbers=joined("atomic_number", [0] * len(graphs)), graph_of_atom=spread(sizes), sizes=sizes.to(device),
        fractional=torch.cat([graph.atom_frac_coord for graph in graphs]).detach().to(device),
        lattice=torch.stack([graph.lattice for graph in graphs]).detach().to(device),
        centre=centre, neighbour=neighbour, graph_of_edge=spread(n_edges),
        image=torch.cat([graph.neighbor_image for graph in graphs]).to(device),
        bond_of_edge=joined("directed2undirected", bonds), edge_of_bond=joined("undirected2directed", edges),
        apex=apex, bonds=(bond_i, bond_j), edges=(edge_i, edge_j),
    )  # fmt: skip


def predict(model: CHGNet, batch: Batch, *, to_be_trained: bool) -> Properties:
    """Return what a CHGNet says about a batch; where it is ``to_be_trained`` all can be differentiated by weights.

    Else energies are float64: atoms of some DFT codes have energies of hundreds of eV, in whose sum float32 would lose
    what the atoms' motion changes.
    """
    strain = torch.zeros_like(batch.lattice, requires_grad=True)
    lattice = batch.lattice + batch.lattice @ strain
    positions = _by_row(batch.fractional, lattice, batch.graph_of_atom)
    sites = _site_energies(model, batch, positions, lattice)
    totals = _summed(sites, batch.graph_of_atom, len(batch.sizes))
    by_position, by_strain = torch.autograd.grad(
        totals.sum(), [positions, strain], create_graph=to_be_trained
    )
    references = model.composition_model.fc.weight[0].index_select(0, batch.numbers - 1)
    if not to_be_trained:
        totals, references = totals.detach().double(), references.detach().double()
    energies = (totals + _summed(references, batch.graph_of_atom, len(batch.sizes))) / batch.sizes
    volumes = torch.linalg.det(batch.lattice).abs()[:, None, None]
    stresses = by_strain / volumes * GPA_PER_EV_PER_A3
    return Properties(energies, -by_position, stresses)


def _by_row(rows: Tensor, matrices: Tensor, owners: Tensor) -> Tensor:
    """Return each row (n, 3) times the matrix (3, 3) of its owner."""
    return torch.bmm(rows[:, None, :], matrices.index_select(0, owners))[:, 0]


def _summed(rows: Tensor, owners: Tensor, n_owners: int) -> Tensor:
    """Return the sum of the rows of each owner."""
    return rows.new_zeros((n_owners, *rows.shape[1:])).index_add(0, owners, rows)


def _site_energies(model: CHGNet, batch: Batch, positions: Tensor, lattice: Tensor) -> Tensor:
    """Return the energy of each atom (eV) without its reference; layers as in CHGNet's ``_compute``."""
    vectors = positions.index_select(0, batch.centre) - positions.index_select(0, batch.neighbour)
    vectors = vectors - _by_row(batch.image, lattice, batch.graph_of_edge)
    lengths = torch.linalg.norm(vectors, dim=1)
    directions = vectors / lengths[:, None]
    bond_lengths = lengths.index_select(0, batch.edge_of_bond)
    far = model.bond_basis_expansion.rbf_expansion_ag(bond_lengths)
    near = model.bond_basis_expansion.rbf_expansion_bg(bond_lengths)
    atoms, bonds = model.atom_embedding(batch.numbers - 1), model.bond_embedding(far)
    edge_weights = model.bond_weights_ag(far).index_select(0, batch.bond_of_edge)
    last = len(model.bond_conv_layers) - 1
    if len(batch.apex):
        angle_weights, angles = _angles(model, batch, near, directions)
    for layer, (bond_layer, angle_layer) in enumerate(
        zip(model.bond_conv_layers, model.angle_layers, strict=True)
    ):
        atoms = _convolve_atoms(model.atom_conv_layers[layer], batch, atoms, bonds, edge_weights)
        if len(batch.apex):
            bonds = _convolve_bonds(bond_layer, batch, atoms, bonds, angles, angle_weights)
            # upstream updates the angles once more after the last bonds, and nothing reads them
            if layer < last:
                angles = angles + _gated_angles(angle_layer.twoBody_bond, batch, atoms, bonds, angles)
    atoms = _convolve_atoms(model.atom_conv_layers[-1], batch, atoms, bonds, edge_weights)
    if model.readout_norm is not None:
        atoms = model.readout_norm(atoms)
    return model.mlp(atoms)[:, 0]


def _angles(model: CHGNet, batch: Batch, near: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights of angles by the lengths of their two bonds, and their first features."""
    first, second = (directions.index_select(0, edges) for edges in batch.edges)
    weights = model.bond_weights_bg(near)
    first_weights, second_weights = (weights.index_select(0, bonds) for bonds in batch.bonds)
    return first_weights * second_weights, model.angle_embedding(model.angle_basis_expansion(first, second))


def _convolve_atoms(layer: AtomConv, batch: Batch, atoms: Tensor, bonds: Tensor, weights: Tensor) -> Tensor:
    """Return new features of atoms, from messages along edges."""
    of_centre, of_bond, of_neighbour = _first_weights(layer.twoBody_atom).split(
        [atoms.shape[1], bonds.shape[1], atoms.shape[1]], dim=1
    )
    joined = linear(bonds, of_bond, _first_bias(layer.twoBody_atom)).index_select(0, batch.bond_of_edge)
    joined += linear(atoms, of_centre).index_select(0, batch.centre)
    joined += linear(atoms, of_neighbour).index_select(0, batch.neighbour)
    messages = _gated(layer.twoBody_atom, joined) * weights
    return layer.mlp_out(_summed(messages, batch.centre, len(atoms))) + atoms


def _convolve_bonds(
    layer: BondConv, batch: Batch, atoms: Tensor, bonds: Tensor, angles: Tensor, weights: Tensor
) -> Tensor:
    """Return new features of bonds, from messages along angles."""
    messages = _gated_angles(layer.twoBody_bond, batch, atoms, bonds, angles) * weights
    return layer.mlp_out(_summed(messages, batch.bonds[0], len(bonds))) + bonds


def _gated_angles(block: Any, batch: Batch, atoms: Tensor, bonds: Tensor, angles: Tensor) -> Tensor:
    """Apply a gated block to the joined features of an angle's two bonds, itself and its apex."""
    of_first, of_second, of_angle, of_apex = _first_weights(block).split(
        [bonds.shape[1], bonds.shape[1], angles.shape[1], atoms.shape[1]], dim=1
    )
    joined = linear(angles, of_angle, _first_bias(block))
    joined = joined + linear(bonds, of_first).index_select(0, batch.bonds[0])
    joined += linear(bonds, of_second).index_select(0, batch.bonds[1])
    joined += linear(atoms, of_apex).index_select(0, batch.apex)
    return _gated(block, joined)


def _linears(mlp: Any) -> list[torch.nn.Linear]:
    return [layer for layer in mlp.layers if isinstance(layer, torch.nn.Linear)]


def _first_weights(block: Any) -> Tensor:
    """Return the first weights of core and gate, (2 n_hidden, n_joined)."""
    return torch.cat([_linears(mlp)[0].weight for mlp in (block.mlp_core, block.mlp_gate)])


def _first_bias(block: Any) -> Tensor:
    return torch.cat([_linears(mlp)[0].bias for mlp in (block.mlp_core, block.mlp_gate)])


def _gated(block: Any, joined: Tensor) -> Tensor:
    """Return silu(core) * sigmoid(gate) of CHGNet's gated block, from the first layer of both before activation."""
    seconds = [_linears(mlp)[1:] for mlp in (block.mlp_core, block.mlp_gate)]
    core, gate = joined.chunk(2, dim=1)
    if seconds[0]:
        core, gate = silu(joined).chunk(2, dim=1)
        core, gate = seconds[0][0](core), seconds[1][0](gate)
    if block.norm is not None:
        core, gate = block.bn1(core), block.bn2(gate)
    return silu(core) * torch.sigmoid(gate)
