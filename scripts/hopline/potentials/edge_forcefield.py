"""Forces on a batch by models that are functions of the vectors between neighbours: one differentiation gives all."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from hopline.potentials.forcefield import BatchForces, ForceField
from hopline.potentials.neighbours import NeighbourList, Pairs


class EdgeForceField(ForceField):
    """A model of edge vectors on a batch of systems.

    Vectors are taken in float64, whatever the positions are counted from, and rounded to the model's type once. The
    energy is differentiated by them alone; forces and stresses are sums of that in float64, and the forces add up to
    zero as exactly as float64 can.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        cutoff_A: float,
        skin_A: float,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.device, self.dtype = device, dtype
        self.neighbours = NeighbourList(sizes, cutoff_A=cutoff_A, skin_A=skin_A, device=device)

    @abstractmethod
    def energies(self, pairs: Pairs, vectors_A: Tensor) -> Tensor:
        """Return the energies (n_systems,) in eV, float64 where the model's sums allow, of ``vectors_A`` (n_edges, 3).

        ``pairs`` is the same object as in the call before where the same atoms are neighbours.
        """

    def compute(self, positions_A: Tensor, cells_A: Tensor, *, stress: bool) -> BatchForces:
        """Return energies, forces and, if wanted, stresses; see `ForceField.compute`."""
        pairs, vectors_A, squares_A2 = self.neighbours.find(positions_A, cells_A)
        leaf = vectors_A.to(self.dtype, copy=True).requires_grad_()
        with torch.enable_grad():
            energies = self.energies(pairs, leaf)
            # without any neighbour the energy may not hang on vectors
            [slopes] = torch.autograd.grad(energies.sum(), leaf, allow_unused=True, materialize_grads=True)
        slopes = slopes.double()
        return BatchForces(
            energies_eV=energies.detach().double(),
            forces_eV_per_A=forces_of(slopes, pairs.centre, pairs.neighbour, len(positions_A)),
            stresses_eV_per_A3=stresses_of(slopes, vectors_A, pairs.system, cells_A) if stress else None,
            shortest_A=shortest_of(squares_A2, pairs.system, len(cells_A)),
        )


def forces_of(slopes: Tensor, centre: Tensor, neighbour: Tensor, n_atoms: int) -> Tensor:
    """Return forces (n_atoms, 3) from the energy's derivatives (n_edges, 3) by the vectors from centre to neighbour."""
    forces = slopes.new_zeros((n_atoms, 3)).index_add(0, centre, slopes)
    return forces.index_add(0, neighbour, slopes, alpha=-1)


def stresses_of(slopes: Tensor, vectors: Tensor, system: Tensor, cells: Tensor) -> Tensor:
    """Return symmetric stresses (n_systems, 3, 3), energy per volume, from the energy's derivatives by edge vectors."""
    products = vectors[:, :, None] * slopes[:, None, :]
    virials = slopes.new_zeros((len(cells), 3, 3)).index_add(0, system, products)
    symmetric = (virials + virials.transpose(1, 2)) / 2
    return symmetric / torch.linalg.det(cells).abs()[:, None, None]


def shortest_of(squares_A2: Tensor, system: Tensor, n_systems: int) -> Tensor:
    """Return the shortest distance (n_systems,) in A of the edges' squared ones; infinite where there is no edge."""
    farthest = squares_A2.new_full((n_systems,), torch.inf)
    return farthest.scatter_reduce(0, system, squares_A2, "amin").sqrt()
