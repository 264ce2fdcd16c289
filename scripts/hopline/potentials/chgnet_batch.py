"""CHGNet on batches of graphs: energies, forces and stresses by one differentiation, ready to be trained on.

Upstream builds a batch graph by graph, multiplies its weights with the joined features of every edge and every angle,
and differentiates once for the forces and once more for the stress. Here a batch is one set of tensors; a weight of
joined features is applied to atoms and bonds before they are spread over edges and angles, of which there are many
more; and one differentiation gives both. The numbers are the same but for float32's rounding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from chgnet.model.layers import AtomConv, BondConv
from chgnet.model.model import CHGNet
from torch import Tensor
from torch.nn.functional import linear, silu

from hopline.console import InputError
from hopline.potentials.chgnet_graphs import Angles, Batch, Bonds, Graphs
from hopline.potentials.edge_forcefield import forces_of, stresses_of
from hopline.units import GPA_PER_EV_PER_A3

KNOWN_LAYERS = {
    "mlp_first": True, "is_intensive": True, "update_bond": True, "update_angle": True, "non_linearity": "silu",
    "conv_dropout": 0, "mlp_dropout": 0, "conv_norm": None,
}  # fmt: skip
"""Arguments of a CHGNet whose layers are computed here; all shipped weights have them."""


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


def predict(model: CHGNet, batch: Batch, *, to_be_trained: bool) -> Properties:
    """Return what a CHGNet says about a batch; where it is ``to_be_trained`` all can be differentiated by weights.

    Else sums are float64: atoms of some DFT codes have energies of hundreds of eV, in whose sum float32 would lose
    what the atoms' motion changes.
    """
    atoms, bonds = batch.graphs.atoms, batch.graphs.bonds
    vectors = batch.vectors.detach().clone().requires_grad_()
    sites = site_energies(model, batch.graphs, vectors)
    [slopes] = torch.autograd.grad(sites.sum(), vectors, create_graph=to_be_trained)
    references = references_of(model).index_select(0, atoms.numbers)
    if not to_be_trained:
        sites, slopes, references = (part.detach().double() for part in (sites, slopes, references))
    forces = forces_of(slopes, bonds.centre, bonds.neighbour, len(atoms.numbers))
    stresses = stresses_of(slopes, batch.vectors, bonds.graph, batch.lattice) * GPA_PER_EV_PER_A3
    totals = _summed(sites + references, atoms.graph, len(atoms.sizes))
    return Properties(totals / atoms.sizes, forces, stresses)


def references_of(model: CHGNet) -> Tensor:
    """Return the reference energies in eV by atomic number; that of zero is zero."""
    return torch.nn.functional.pad(model.composition_model.fc.weight[0], (1, 0))


def _summed(rows: Tensor, owners: Tensor, n_owners: int) -> Tensor:
    """Return the sum of the rows of each owner."""
    return rows.new_zeros((n_owners, *rows.shape[1:])).index_add(0, owners, rows)


def site_energies(model: CHGNet, graphs: Graphs, vectors: Tensor) -> Tensor:
    """Return the energy (n_atoms,) of each atom in eV without its reference, from edge vectors (n_edges, 3) in A.

    Layers are as in CHGNet's ``_compute``.
    """
    lengths = torch.linalg.norm(vectors, dim=1)
    directions = vectors / lengths[:, None]
    bond_lengths = lengths.index_select(0, graphs.bonds.edge_of_bond)
    far = model.bond_basis_expansion.rbf_expansion_ag(bond_lengths)
    near = model.bond_basis_expansion.rbf_expansion_bg(bond_lengths)
    atoms, bonds = model.atom_embedding(graphs.atoms.numbers - 1), model.bond_embedding(far)
    edge_weights = model.bond_weights_ag(far).index_select(0, graphs.bonds.bond_of_edge)
    last = len(model.bond_conv_layers) - 1
    if len(graphs.angles.apex):
        angle_weights, angles = _angles(model, graphs.angles, near, directions)
    for layer, (bond_layer, angle_layer) in enumerate(
        zip(model.bond_conv_layers, model.angle_layers, strict=True)
    ):
        atoms = _convolve_atoms(model.atom_conv_layers[layer], graphs.bonds, atoms, bonds, edge_weights)
        if len(graphs.angles.apex):
            bonds = _convolve_bonds(bond_layer, graphs.angles, atoms, bonds, angles, angle_weights)
            # upstream updates the angles once more after the last bonds, and nothing reads them
            if layer < last:
                angles = angles + _gated_angles(angle_layer.twoBody_bond, graphs.angles, atoms, bonds, angles)
    atoms = _convolve_atoms(model.atom_conv_layers[-1], graphs.bonds, atoms, bonds, edge_weights)
    if model.readout_norm is not None:
        atoms = model.readout_norm(atoms)
    return model.mlp(atoms)[:, 0]


def _angles(model: CHGNet, between: Angles, near: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights of angles by the lengths of their two bonds, and their first features."""
    first, second = (directions.index_select(0, edges) for edges in between.edges)
    weights = model.bond_weights_bg(near)
    first_weights, second_weights = (weights.index_select(0, bonds) for bonds in between.bonds)
    return first_weights * second_weights, model.angle_embedding(model.angle_basis_expansion(first, second))


def _convolve_atoms(layer: AtomConv, edges: Bonds, atoms: Tensor, bonds: Tensor, weights: Tensor) -> Tensor:
    """Return new features of atoms, from messages along edges."""
    of_centre, of_bond, of_neighbour = _first_weights(layer.twoBody_atom).split(
        [atoms.shape[1], bonds.shape[1], atoms.shape[1]], dim=1
    )
    joined = linear(bonds, of_bond, _first_bias(layer.twoBody_atom)).index_select(0, edges.bond_of_edge)
    joined += linear(atoms, of_centre).index_select(0, edges.centre)
    joined += linear(atoms, of_neighbour).index_select(0, edges.neighbour)
    messages = _gated(layer.twoBody_atom, joined) * weights
    return layer.mlp_out(_summed(messages, edges.centre, len(atoms))) + atoms


def _convolve_bonds(
    layer: BondConv, between: Angles, atoms: Tensor, bonds: Tensor, angles: Tensor, weights: Tensor
) -> Tensor:
    """Return new features of bonds, from messages along angles."""
    messages = _gated_angles(layer.twoBody_bond, between, atoms, bonds, angles) * weights
    return layer.mlp_out(_summed(messages, between.bonds[0], len(bonds))) + bonds


def _gated_angles(block: Any, between: Angles, atoms: Tensor, bonds: Tensor, angles: Tensor) -> Tensor:
    """Apply a gated block to the joined features of an angle's two bonds, itself and its apex."""
    of_first, of_second, of_angle, of_apex = _first_weights(block).split(
        [bonds.shape[1], bonds.shape[1], angles.shape[1], atoms.shape[1]], dim=1
    )
    joined = linear(angles, of_angle, _first_bias(block))
    joined = joined + linear(bonds, of_first).index_select(0, between.bonds[0])
    joined += linear(bonds, of_second).index_select(0, between.bonds[1])
    joined += linear(atoms, of_apex).index_select(0, between.apex)
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
