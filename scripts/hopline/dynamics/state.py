"""The state of a batch of systems between two steps of molecular dynamics, and the noise that drives it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from torch import Tensor

from hopline.potentials.forcefield import BatchForces

Forces = Callable[[Tensor, Tensor], BatchForces]
"""Called with positions_A and cells_A; asks for stresses or not as the integrator needs them."""

EXTRA = "extra/"
"""Begins the name under which a thermostat's or barostat's variable is saved."""


@dataclass(frozen=True, eq=False)
class BatchState:
    """Everything that a step reads and writes, in float64 on one device; a step makes a new state.

    ``system_of_atom`` (n_atoms,) int64, ascending; ``masses`` (n_atoms, 1) in u; ``positions_A`` (n_atoms, 3),
    unwrapped; ``momenta`` (n_atoms, 3) in ASE's units, so time is ASE's too (``ASE_TIME_PER_FS``); ``cells_A``
    (n_systems, 3, 3), vectors as rows. Then the model's answer at these positions: ``energies_eV`` (n_systems,),
    ``forces_eV_per_A`` (n_atoms, 3), ``stresses_eV_per_A3`` (n_systems, 3, 3) or None, ``shortest_A`` (n_systems,).
    ``extra`` are variables of thermostat and barostat, one row a system, named by the integrator that makes them.
    """

    system_of_atom: Tensor
    masses: Tensor
    positions_A: Tensor
    momenta: Tensor
    cells_A: Tensor
    energies_eV: Tensor
    forces_eV_per_A: Tensor
    stresses_eV_per_A3: Tensor | None
    shortest_A: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def n_systems(self) -> int:
        """Number of systems in the batch."""
        return len(self.cells_A)

    def moved(self, found: BatchForces, **changes: Any) -> "BatchState":
        """Return this state with some fields changed and the model's answer at its new positions."""
        return replace(
            self,
            energies_eV=found.energies_eV,
            forces_eV_per_A=found.forces_eV_per_A,
            stresses_eV_per_A3=found.stresses_eV_per_A3,
            shortest_A=found.shortest_A,
            **changes,
        )

    def with_extra(self, **variables: Tensor) -> "BatchState":
        """Return this state with variables of a thermostat or barostat added or replaced."""
        return replace(self, extra={**self.extra, **variables})

    def select(self, rows: Sequence[int]) -> "BatchState":
        """Return the systems of these rows, in this order."""
        atoms = [torch.nonzero(self.system_of_atom == row).ravel() for row in rows]
        counts = torch.tensor([len(of_row) for of_row in atoms], device=self.system_of_atom.device)
        of_atoms = torch.cat(atoms)
        of_systems = torch.tensor(rows, dtype=torch.int64, device=self.system_of_atom.device)
        stresses = self.stresses_eV_per_A3
        return BatchState(
            system_of_atom=torch.repeat_interleave(counts),
            masses=self.masses[of_atoms],
            positions_A=self.positions_A[of_atoms],
            momenta=self.momenta[of_atoms],
            cells_A=self.cells_A[of_systems],
            energies_eV=self.energies_eV[of_systems],
            forces_eV_per_A=self.forces_eV_per_A[of_atoms],
            stresses_eV_per_A3=None if stresses is None else stresses[of_systems],
            shortest_A=self.shortest_A[of_systems],
            extra={name: variable[of_systems] for name, variable in self.extra.items()},
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all there is as numpy arrays by name, bit for bit; ``from_arrays`` is the way back."""
        named = {of.name: getattr(self, of.name) for of in fields(self) if of.name != "extra"}
        named |= {EXTRA + name: variable for name, variable in self.extra.items()}
        return {name: tensor.cpu().numpy().copy() for name, tensor in named.items() if tensor is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], device: torch.device) -> "BatchState":
        """Return the state that ``to_arrays`` was called on."""
        tensors: dict[str, Any] = {"stresses_eV_per_A3": None}
        extra = {}
        for name, array in arrays.items():
            tensor = torch.from_numpy(np.array(array)).to(device)
            if name.startswith(EXTRA):
                extra[name.removeprefix(EXTRA)] = tensor
            else:
                tensors[name] = tensor
        return cls(**tensors, extra=extra)


def joined(parts: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Return the arrays of one batch from those (``BatchState.to_arrays``) of several, in this order."""
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    firsts = np.cumsum([0, *(len(part["cells_A"]) for part in parts)])[:-1]
    counted = [part["system_of_atom"] + first for part, first in zip(parts, firsts, strict=True)]
    return arrays | {"system_of_atom": np.concatenate(counted)}


def state_of_atoms(systems: Sequence[Atoms], forces: Forces, device: torch.device) -> BatchState:
    """Return the state of a batch at the start: positions, momenta and cells of the atoms, forces by one call."""
    counts = torch.tensor([len(atoms) for atoms in systems], device=device)
    positions_A, momenta, masses = (
        torch.from_numpy(np.concatenate(parts)).to(device, torch.float64)
        for parts in (
            [atoms.get_positions() for atoms in systems],
            [atoms.get_momenta() for atoms in systems],
            [atoms.get_masses()[:, None] for atoms in systems],
        )
    )
    cells_A = torch.from_numpy(np.stack([atoms.cell.array for atoms in systems])).to(device, torch.float64)
    found = forces(positions_A, cells_A)
    return BatchState(
        system_of_atom=torch.repeat_interleave(counts),
        masses=masses,
        positions_A=positions_A,
        momenta=momenta,
        cells_A=cells_A,
        energies_eV=found.energies_eV,
        forces_eV_per_A=found.forces_eV_per_A,
        stresses_eV_per_A3=found.stresses_eV_per_A3,
        shortest_A=found.shortest_A,
    )


def sum_over_atoms(per_component: Tensor, state: BatchState) -> Tensor:
    """Return the sum of an (n_atoms, 3) tensor over the atoms and components of each system, (n_systems,).

    On a CPU atoms are added one after another, so a system's sum does not depend on its neighbours in the batch.
    """
    zeros = per_component.new_zeros(state.n_systems)
    return zeros.index_add_(0, state.system_of_atom, per_component.sum(1))


def of_atoms(per_system: Tensor, state: BatchState) -> Tensor:
    """Return the number of each atom's system, (n_atoms, 1)."""
    return per_system.index_select(0, state.system_of_atom)[:, None]


def kinetic_energies_eV(state: BatchState) -> Tensor:
    """Return the kinetic energy of each system in eV, (n_systems,)."""
    momenta = state.momenta
    return sum_over_atoms(momenta * momenta / state.masses, state) * 0.5


class Noise:
    """Standard normal numbers for a batch, from one generator a system: none hears of its neighbours in the batch."""

    def __init__(
        self, generators: Sequence[np.random.Generator], atoms_of_system: Sequence[int], device: torch.device
    ) -> None:
        self._generators = list(generators)
        self._atoms_of_system = [int(count) for count in atoms_of_system]
        self._ends = np.cumsum([0, *self._atoms_of_system]).tolist()
        self._device = device

    @classmethod
    def of_seeds(cls, seeds: Sequence[int], atoms_of_system: Sequence[int], device: torch.device) -> "Noise":
        """Return the noise of systems that start with these seeds, one a system."""
        generators = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]
        return cls(generators, atoms_of_system, device)

    def atoms(self) -> Tensor:
        """Return three numbers an atom, (n_atoms, 3)."""
        drawn = np.empty((self._ends[-1], 3))
        for generator, first, end in zip(self._generators, self._ends, self._ends[1:], strict=False):
            generator.standard_normal(out=drawn[first:end])
        return torch.from_numpy(drawn).to(self._device)

    def systems(self) -> Tensor:
        """Return one number a system, (n_systems,)."""
        drawn = np.array([generator.standard_normal() for generator in self._generators])
        return torch.from_numpy(drawn).to(self._device)

    def select(self, rows: Sequence[int]) -> "Noise":
        """Return the noise of some systems, which goes on where it is here and is shared with this one."""
        generators = [self._generators[row] for row in rows]
        return Noise(generators, [self._atoms_of_system[row] for row in rows], self._device)

    def states(self) -> list[dict[str, Any]]:
        """Return what each generator has to remember, as JSON can hold it."""
        return [dict(generator.bit_generator.state) for generator in self._generators]

    @classmethod
    def of_states(
        cls, states: Sequence[Mapping[str, Any]], atoms_of_system: Sequence[int], device: torch.device
    ) -> "Noise":
        """Return noise that goes on where the one that ``states`` was called on stood."""
        generators = []
        for state in states:
            generator = np.random.Generator(np.random.PCG64())
            generator.bit_generator.state = dict(state)
            generators.append(generator)
        return cls(generators, atoms_of_system, device)
