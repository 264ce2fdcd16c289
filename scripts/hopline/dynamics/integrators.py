"""Steps of molecular dynamics at constant volume: velocity Verlet, BAOAB Langevin, Nose-Hoover chain.

Products, sums and roots are taken one at a time, without fused forms: a system's numbers on a CPU are then the same,
bit for bit, whatever its place in the batch.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hopline.console import InputError
from hopline.dynamics.state import BatchState, Forces, Noise, kinetic_energies_eV, of_atoms, sum_over_atoms
from hopline.units import ASE_TIME_PER_FS, BOLTZMANN_EV_PER_K, FS_PER_PS

YOSHIDA_SUZUKI = {
    1: (1.0,),
    3: (1.0 / (2.0 - 2.0 ** (1 / 3)), 1.0 - 2.0 / (2.0 - 2.0 ** (1 / 3)), 1.0 / (2.0 - 2.0 ** (1 / 3))),
    5: (
        *(1.0 / (4.0 - 4.0 ** (1 / 3)),) * 2,
        1.0 - 4.0 / (4.0 - 4.0 ** (1 / 3)),
        *(1.0 / (4.0 - 4.0 ** (1 / 3)),) * 2,
    ),
}
"""Weights of the parts a step of the chain is cut into, by their number (Martyna et al. 1996, eq. 24)."""
MOMENTUM_AT_REST = 1e-8
"""Total momentum over the sum of the atoms' that counts as zero: rounding leaves less."""


class Integrator(ABC):
    """A rule by which a batch of systems goes on by one timestep, with one call of the model."""

    needs_stress: ClassVar[bool] = False
    conserves_momentum: ClassVar[bool] = False
    """Whether 3 of the 3 N degrees of freedom, those of the centre of mass, are at rest."""
    timestep_fs: float

    def begin(self, state: BatchState) -> BatchState:
        """Return the state with the integrator's own variables added, at their start."""
        return state

    @abstractmethod
    def step(self, state: BatchState, forces: Forces, *, temperatures_K: Tensor, noise: Noise) -> BatchState:
        """Return the state one timestep later; ``temperatures_K`` (n_systems,) may change from step to step."""

    @abstractmethod
    def conserved_eV(self, state: BatchState) -> Tensor | None:
        """Return what only errors of the timestep change, in eV, (n_systems,); None where there is no such thing.

        Its zero is arbitrary. With a heat bath it is the energy less the heat taken in, while temperatures are
        constant and while they change.
        """


def require_positive(**settings: float) -> None:
    """Refuse a setting that is not a positive number."""
    for name, value in settings.items():
        if not 0 < value < np.inf:
            raise InputError(f"{name} must be positive, got {value}")


def require_finite(**settings: float) -> None:
    """Refuse a setting that is no finite number."""
    for name, value in settings.items():
        if not np.isfinite(value):
            raise InputError(f"{name} must be a finite number, got {value}")


@dataclass(frozen=True)
class VelocityVerlet(Integrator):
    """Constant energy: velocity Verlet, operation by operation as ASE's."""

    conserves_momentum: ClassVar[bool] = True
    timestep_fs: float

    def __post_init__(self) -> None:
        """Refuse settings no integrator can follow."""
        require_positive(timestep_fs=self.timestep_fs)

    def step(self, state: BatchState, forces: Forces, *, temperatures_K: Tensor, noise: Noise) -> BatchState:
        """Return the state one timestep later; temperatures and noise play no part."""
        del temperatures_K, noise
        return verlet_step(state, forces, self.timestep_fs * ASE_TIME_PER_FS, state.momenta)

    def conserved_eV(self, state: BatchState) -> Tensor:
        """Return the total energy."""
        return state.energies_eV + kinetic_energies_eV(state)


def verlet_step(state: BatchState, forces: Forces, timestep: float, momenta: Tensor) -> BatchState:
    """Return the state a velocity Verlet step (ASE's time units) later, from ``momenta`` in place of the state's."""
    half = 0.5 * timestep
    momenta = momenta + state.forces_eV_per_A * half
    positions_A = state.positions_A + momenta * timestep / state.masses
    found = forces(positions_A, state.cells_A)
    return state.moved(found, positions_A=positions_A, momenta=momenta + found.forces_eV_per_A * half)


def langevin_kick(
    momenta: Tensor, state: BatchState, keep: float, temperatures_K: Tensor, noise: Noise
) -> Tensor:
    """Return momenta after friction left a share ``keep`` of them and noise made up for it (exact in time)."""
    variances = of_atoms(temperatures_K * (BOLTZMANN_EV_PER_K * (1.0 - keep * keep)), state)
    return momenta * keep + (state.masses * variances).sqrt_() * noise.atoms()


@dataclass(frozen=True)
class Langevin(Integrator):
    """Constant temperature: Langevin dynamics in the BAOAB splitting (Leimkuhler and Matthews 2013).

    All 3 N degrees of freedom are thermostatted, the centre of mass too. ``heat_eV`` is the heat taken in.
    """

    timestep_fs: float
    friction_per_ps: float

    def __post_init__(self) -> None:
        """Refuse settings no integrator can follow."""
        require_positive(timestep_fs=self.timestep_fs, friction_per_ps=self.friction_per_ps)

    def begin(self, state: BatchState) -> BatchState:
        """Return the state with no heat taken in so far."""
        return state.with_extra(heat_eV=torch.zeros_like(state.energies_eV))

    def step(self, state: BatchState, forces: Forces, *, temperatures_K: Tensor, noise: Noise) -> BatchState:
        """Return the state one timestep later."""
        half = 0.5 * self.timestep_fs * ASE_TIME_PER_FS
        keep = float(np.exp(-self.friction_per_ps * self.timestep_fs / FS_PER_PS))
        momenta = state.momenta + state.forces_eV_per_A * half
        kicked = langevin_kick(momenta, state, keep, temperatures_K, noise)
        # both half moves at once: nothing is asked of the positions between them
        velocities = (momenta + kicked) / state.masses
        positions_A = state.positions_A + velocities * half
        heat_eV = state.extra["heat_eV"] + sum_over_atoms((kicked - momenta) * velocities, state) * 0.5
        found = forces(positions_A, state.cells_A)
        return state.moved(
            found,
            positions_A=positions_A,
            momenta=kicked + found.forces_eV_per_A * half,
            extra={**state.extra, "heat_eV": heat_eV},
        )

    def conserved_eV(self, state: BatchState) -> Tensor:
        """Return the energy less the heat taken in (effective energy, Bussi and Parrinello 2007)."""
        return state.energies_eV + kinetic_energies_eV(state) - state.extra["heat_eV"]


@dataclass(frozen=True)
class NoseHooverChain(Integrator):
    """Constant temperature without noise: a chain of three Nose-Hoover thermostats (Martyna et al. 1996).

    The systems' total momentum is zero and stays so: 3 N - 3 degrees of freedom. Masses of the chain follow from
    ``thermostat_time_fs`` tau and the temperature: Q_1 = (3 N - 3) kT tau^2, Q_2 = Q_3 = kT tau^2; with velocities
    instead of momenta a change of temperature leaves the chain's motion as it is. ``chain_velocities``
    (n_systems, 3) per unit of ASE's time, ``bath_eV`` (n_systems,) the chain's energy, less what it was at the start.
    """

    conserves_momentum: ClassVar[bool] = True
    timestep_fs: float
    thermostat_time_fs: float
    parts: int = 3

    def __post_init__(self) -> None:
        """Refuse settings no integrator can follow."""
        require_positive(timestep_fs=self.timestep_fs, thermostat_time_fs=self.thermostat_time_fs)
        if self.parts not in YOSHIDA_SUZUKI:
            known = ", ".join(map(str, YOSHIDA_SUZUKI))
            raise InputError(f"a step of the chain is cut into {known} parts, not {self.parts}")

    def begin(self, state: BatchState) -> BatchState:
        """Return the state with the chain at rest.

        Raises
        ------
        InputError
            If a system has one atom only, or its total momentum is not zero.
        """
        counts = torch.bincount(state.system_of_atom, minlength=state.n_systems)
        if counts.min() < 2:  # noqa: PLR2004
            raise InputError(
                "a Nose-Hoover chain needs two atoms or more: one alone has no motion of its own"
            )
        total = state.momenta.new_zeros((state.n_systems, 3)).index_add_(
            0, state.system_of_atom, state.momenta
        )
        sizes = sum_over_atoms(state.momenta.abs(), state)
        moving = torch.nonzero(total.abs().sum(1) > MOMENTUM_AT_REST * sizes).ravel().tolist()
        if moving:
            raise InputError(
                f"a Nose-Hoover chain needs a total momentum of zero and system {moving[0] + 1} moves as a whole: "
                "remove it first (protocol.remove_total_momentum)"
            )
        return state.with_extra(
            chain_velocities=state.momenta.new_zeros((state.n_systems, 3)),
            bath_eV=torch.zeros_like(state.energies_eV),
            degrees_of_freedom=3.0 * counts.to(torch.float64) - 3.0,
        )

    def step(self, state: BatchState, forces: Forces, *, temperatures_K: Tensor, noise: Noise) -> BatchState:
        """Return the state one timestep later; noise plays no part."""
        del noise
        state = self._couple(state, temperatures_K)
        state = verlet_step(state, forces, self.timestep_fs * ASE_TIME_PER_FS, state.momenta)
        return self._couple(state, temperatures_K)

    def conserved_eV(self, state: BatchState) -> Tensor:
        """Return the energy of systems and chains."""
        return state.energies_eV + kinetic_energies_eV(state) + state.extra["bath_eV"]

    def _couple(self, state: BatchState, temperatures_K: Tensor) -> BatchState:
        """Return the state after half a timestep of the chain and of the momenta's scaling by it.

        The chain is a handful of numbers: it is moved by numpy, several times as quick as torch at that size.
        """
        columns = (kinetic_energies_eV(state), temperatures_K, state.extra["degrees_of_freedom"])
        gathered = torch.cat((torch.stack(columns, 1), state.extra["chain_velocities"]), 1)
        kinetic_eV, temperatures, freedom, *chain = np.ascontiguousarray(gathered.cpu().numpy().T)
        thermal_eV = BOLTZMANN_EV_PER_K * temperatures
        scales, bath = self._move_chain(2.0 * kinetic_eV / (freedom * thermal_eV), freedom, chain)
        moved = np.stack((scales, bath * thermal_eV, *chain), 1)
        back = torch.from_numpy(moved).to(state.momenta.device)
        extra = {
            **state.extra,
            "bath_eV": state.extra["bath_eV"] + back[:, 1],
            "chain_velocities": back[:, 2:],
        }
        momenta = state.momenta * of_atoms(back[:, 0], state)
        return replace(state, momenta=momenta, extra=extra)

    def _move_chain(
        self, hotness: NDArray[np.float64], freedom: NDArray[np.float64], chain: list[NDArray[np.float64]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Move the chain's velocities in place by half a timestep (Martyna et al. 1996, eqs 21 to 29).

        ``hotness`` is the kinetic energy over its mean at the bath's temperature. Returned are the factors on the
        momenta and the energy, in kT, that went into the chain.
        """
        first, second, third = chain
        rate = (self.thermostat_time_fs * ASE_TIME_PER_FS) ** -2.0
        start = freedom * first * first + second * second + third * third
        scales, turned = np.ones_like(hotness), np.zeros_like(hotness)
        for weight in YOSHIDA_SUZUKI[self.parts]:
            part = 0.5 * weight * self.timestep_fs * ASE_TIME_PER_FS
            kick, drag = 0.5 * part, -0.25 * part
            third += (second * second - rate) * kick
            keep = np.exp(third * drag)
            second[:] = (second * keep + (freedom * first * first - rate) * kick) * keep
            keep = np.exp(second * drag)
            first[:] = (first * keep + (hotness - 1.0) * rate * kick) * keep
            scale = np.exp(-part * first)
            scales *= scale
            hotness = hotness * scale * scale
            turned += (freedom * first + second + third) * part
            first[:] = (first * keep + (hotness - 1.0) * rate * kick) * keep
            keep = np.exp(third * drag)
            second[:] = (second * keep + (freedom * first * first - rate) * kick) * keep
            third += (second * second - rate) * kick
        end = freedom * first * first + second * second + third * third
        return scales, turned + (end - start) / (2.0 * rate)
