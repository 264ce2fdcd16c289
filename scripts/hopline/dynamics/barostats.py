"""Steps of molecular dynamics at constant pressure: isotropic, the cell keeps its shape.

All positions are scaled about the origin, the centre of mass with them, and all 3 N degrees of freedom are
thermostatted: N ideal atoms then sample P(V) ~ V^N exp(-P V / kT).
"""

from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from hopline.console import InputError
from hopline.dynamics.integrators import Integrator, langevin_kick, require_finite, require_positive
from hopline.dynamics.state import BatchState, Forces, Noise, kinetic_energies_eV, of_atoms, sum_over_atoms
from hopline.units import ASE_TIME_PER_FS, BOLTZMANN_EV_PER_K, FS_PER_PS, GPA_PER_EV_PER_A3

TYPICAL_BULK_MODULUS_GPA = 50.0
"""Sets the speed of a barostat only, not what it samples: within a factor of four it stays near critical damping."""


Volume = TypeVar("Volume", float, Tensor)


def piston_mass(volume_A3: Volume, barostat_time_fs: float) -> Volume:
    """Return the mass W of a piston on the length strain e of a cell, in eV times ASE's time squared.

    A crystal of bulk modulus B obeys W e'' = -9 B V e, so W = 9 B V tau^2 gives it the frequency 1 / tau, with tau
    the ``barostat_time_fs`` and B the typical one.
    """
    modulus_eV_per_A3 = TYPICAL_BULK_MODULUS_GPA / GPA_PER_EV_PER_A3
    return volume_A3 * (9.0 * modulus_eV_per_A3 * (barostat_time_fs * ASE_TIME_PER_FS) ** 2)


def critical_friction_per_ps(barostat_time_fs: float) -> float:
    """Return the friction in 1/ps that damps a piston of this time critically, for the typical bulk modulus.

    An undamped cell that starts off its volume overshoots to densities no potential knows.
    """
    return 2.0 * FS_PER_PS / barostat_time_fs


def volumes_A3(state: BatchState) -> Tensor:
    """Return the volume of each cell in A^3, (n_systems,)."""
    return torch.linalg.det(state.cells_A).abs()


def pressures_GPa(state: BatchState) -> Tensor:
    """Return the instantaneous pressure of each system in GPa, (n_systems,), the atoms' motion included.

    Raises
    ------
    ValueError
        If the state's forces came without stresses.
    """
    kinetic_eV_per_A3 = 2.0 * kinetic_energies_eV(state) / (3.0 * volumes_A3(state))
    return (kinetic_eV_per_A3 - _mean_stresses(state)) * GPA_PER_EV_PER_A3


def _mean_stresses(state: BatchState) -> Tensor:
    """Return a third of each stress' trace in eV/A^3, (n_systems,)."""
    stresses = state.stresses_eV_per_A3
    if stresses is None:
        raise ValueError("a barostat needs stresses, and these forces came without")
    return (stresses[:, 0, 0] + stresses[:, 1, 1] + stresses[:, 2, 2]) / 3.0


@dataclass(frozen=True)
class LangevinPiston(Integrator):
    """Constant pressure: a piston on the cell's length, with friction and noise on atoms and on the cell.

    Quigley and Probert (2004) with a fixed shape, in a BAOAB splitting. The piston's frequency in a typical crystal
    is 1 / tau (``piston_mass``), and a friction of 2 / tau, the default, damps it critically: an undamped cell that
    starts off its volume overshoots to densities no potential knows. Variables, all (n_systems,): ``piston_mass`` W,
    ``strain_rates`` e' per ASE's time, ``strain_forces_eV`` W e'' at the present positions, ``coupling`` 1 + 1 / N of
    the strain to the atoms' motion, ``heat_eV`` taken in by atoms and cell.
    """

    needs_stress: ClassVar[bool] = True
    timestep_fs: float
    friction_per_ps: float
    pressure_GPa: float
    barostat_time_fs: float
    barostat_friction_per_ps: float | None = None

    def __post_init__(self) -> None:
        """Refuse settings no integrator can follow; a friction of zero switches that heat bath off."""
        require_positive(timestep_fs=self.timestep_fs, barostat_time_fs=self.barostat_time_fs)
        for name in ("friction_per_ps", "barostat_friction_per_ps"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < np.inf:
                raise InputError(f"{name} must be zero or positive, got {value}")
        require_finite(pressure_GPa=self.pressure_GPa)

    def begin(self, state: BatchState) -> BatchState:
        """Return the state with the cell at rest, and the piston's mass after the present volume."""
        counts = torch.bincount(state.system_of_atom, minlength=state.n_systems).to(torch.float64)
        coupling = 1.0 + 1.0 / counts
        return state.with_extra(
            piston_mass=piston_mass(volumes_A3(state), self.barostat_time_fs),
            strain_forces_eV=self._strain_forces(state, coupling),
            coupling=coupling,
            strain_rates=torch.zeros_like(state.energies_eV),
            heat_eV=torch.zeros_like(state.energies_eV),
        )

    def step(self, state: BatchState, forces: Forces, *, temperatures_K: Tensor, noise: Noise) -> BatchState:
        """Return the state one timestep later."""
        half = 0.5 * self.timestep_fs * ASE_TIME_PER_FS
        masses, extra = state.masses, state.extra
        piston, coupling = extra["piston_mass"], extra["coupling"]
        rates = extra["strain_rates"] + extra["strain_forces_eV"] / piston * half
        momenta = _dragged_kick(state, state.momenta, coupling * rates, half)
        # O: both heat baths, between the two half moves
        kicked, kicked_rates = momenta, rates
        if self.friction_per_ps:
            keep = float(np.exp(-self.friction_per_ps * self.timestep_fs / FS_PER_PS))
            kicked = langevin_kick(momenta, state, keep, temperatures_K, noise)
        if self._cell_friction_per_ps:
            keep = float(np.exp(-self._cell_friction_per_ps * self.timestep_fs / FS_PER_PS))
            spread = (temperatures_K * (BOLTZMANN_EV_PER_K * (1.0 - keep * keep)) / piston).sqrt()
            kicked_rates = rates * keep + spread * noise.systems()
        heat_eV = sum_over_atoms((kicked - momenta) * (kicked + momenta) / masses, state)
        heat_eV += piston * (kicked_rates * kicked_rates - rates * rates)
        # A: cell and atoms move together, half a step before and half a step after the kicks
        before, after = torch.exp(rates * (0.5 * half)), torch.exp(kicked_rates * (0.5 * half))
        growths = before * after
        positions_A = state.positions_A * of_atoms(before, state) + momenta * half / masses
        positions_A = positions_A * of_atoms(growths, state) + kicked * half / masses
        positions_A = positions_A * of_atoms(after, state)
        cells_A = state.cells_A * (growths * growths)[:, None, None]
        found = forces(positions_A, cells_A)
        state = state.moved(found, positions_A=positions_A, cells_A=cells_A)
        state = replace(state, momenta=_dragged_kick(state, kicked, coupling * kicked_rates, half))
        strain_forces_eV = self._strain_forces(state, coupling)
        return state.with_extra(
            strain_rates=kicked_rates + strain_forces_eV / piston * half,
            strain_forces_eV=strain_forces_eV,
            heat_eV=extra["heat_eV"] + 0.5 * heat_eV,
        )

    def conserved_eV(self, state: BatchState) -> Tensor:
        """Return the enthalpy with the piston's motion, less the heat taken in by atoms and cell."""
        rates = state.extra["strain_rates"]
        cell_eV = 0.5 * state.extra["piston_mass"] * rates * rates
        work_eV = volumes_A3(state) * (self.pressure_GPa / GPA_PER_EV_PER_A3)
        return state.energies_eV + kinetic_energies_eV(state) + cell_eV + work_eV - state.extra["heat_eV"]

    @property
    def _cell_friction_per_ps(self) -> float:
        given = self.barostat_friction_per_ps
        return critical_friction_per_ps(self.barostat_time_fs) if given is None else given

    def _strain_forces(self, state: BatchState, coupling: Tensor) -> Tensor:
        """Return the forces on the length strains in eV, (n_systems,) (Quigley and Probert 2004, eq. 6)."""
        outside_eV_per_A3 = self.pressure_GPa / GPA_PER_EV_PER_A3
        pushed_eV = -3.0 * volumes_A3(state) * (_mean_stresses(state) + outside_eV_per_A3)
        return pushed_eV + 2.0 * coupling * kinetic_energies_eV(state)


def _dragged_kick(state: BatchState, momenta: Tensor, drags: Tensor, time: float) -> Tensor:
    """Return momenta after ``time`` of the state's forces, while a growing cell drags on them."""
    keep = of_atoms(torch.exp(drags * (-0.5 * time)), state)
    return (momenta * keep + state.forces_eV_per_A * time) * keep


@dataclass(frozen=True)
class StochasticCellRescaling(Integrator):
    """Constant pressure: the volume moves as an overdamped particle does (Bernetti and Bussi 2020), atoms by BAOAB.

    The step is in the root of the volume, where the noise does not depend on the volume. It stands between
    the first kick and the first move of the atoms, where pressure, momenta and positions all belong together.
    Noise of two following steps is averaged (Leimkuhler and Matthews 2013, the limit of BAOAB for large friction),
    for which ``cell_noise`` (n_systems,) is kept: the volume's fluctuations are then right to second order of the
    timestep. The typical bulk modulus stands for the compressibility, so ``barostat_time_fs`` is the relaxation
    time of a crystal that has it. Positions grow with the cell's length, momenta shrink with it.
    """

    needs_stress: ClassVar[bool] = True
    timestep_fs: float
    friction_per_ps: float
    pressure_GPa: float
    barostat_time_fs: float

    def __post_init__(self) -> None:
        """Refuse settings no integrator can follow."""
        require_positive(timestep_fs=self.timestep_fs, barostat_time_fs=self.barostat_time_fs)
        require_positive(friction_per_ps=self.friction_per_ps)
        require_finite(pressure_GPa=self.pressure_GPa)

    def begin(self, state: BatchState) -> BatchState:
        """Return the state with no noise of a step before."""
        return state.with_extra(cell_noise=torch.zeros_like(state.energies_eV))

    def step(self, state: BatchState, forces: Forces, *, temperatures_K: Tensor, noise: Noise) -> BatchState:
        """Return the state one timestep later."""
        half = 0.5 * self.timestep_fs * ASE_TIME_PER_FS
        keep = float(np.exp(-self.friction_per_ps * self.timestep_fs / FS_PER_PS))
        momenta = state.momenta + state.forces_eV_per_A * half
        cell_noise = noise.systems()
        growths = self._growths(
            state, momenta, temperatures_K, 0.5 * (cell_noise + state.extra["cell_noise"])
        )
        per_atom = of_atoms(growths, state)
        momenta = momenta / per_atom
        kicked = langevin_kick(momenta, state, keep, temperatures_K, noise)
        positions_A = state.positions_A * per_atom + (momenta + kicked) * half / state.masses
        cells_A = state.cells_A * growths[:, None, None]
        found = forces(positions_A, cells_A)
        return state.moved(
            found,
            positions_A=positions_A,
            cells_A=cells_A,
            momenta=kicked + found.forces_eV_per_A * half,
            extra={**state.extra, "cell_noise": cell_noise},
        )

    def conserved_eV(self, state: BatchState) -> None:
        """Return None: the energy a move of the cell costs is known to first order of the move only."""
        del state

    def _growths(self, state: BatchState, momenta: Tensor, temperatures_K: Tensor, drawn: Tensor) -> Tensor:
        """Return the factors on the cells' lengths (Bernetti and Bussi 2020, in lambda = sqrt(V))."""
        compressibility_A3_per_eV = GPA_PER_EV_PER_A3 / TYPICAL_BULK_MODULUS_GPA
        speed = compressibility_A3_per_eV * self.timestep_fs / self.barostat_time_fs
        thermal_eV = temperatures_K * BOLTZMANN_EV_PER_K
        volumes = volumes_A3(state)
        kinetic_eV = kinetic_energies_eV(replace(state, momenta=momenta))
        excess_eV_per_A3 = (2.0 / 3.0 * kinetic_eV + 0.5 * thermal_eV) / volumes - _mean_stresses(state)
        excess_eV_per_A3 = excess_eV_per_A3 - self.pressure_GPa / GPA_PER_EV_PER_A3
        # of lambda, relative to lambda: the drift, and noise of variance kT beta dt / (2 tau)
        relative = 0.5 * speed * excess_eV_per_A3 + (0.5 * speed * thermal_eV / volumes).sqrt() * drawn
        return torch.exp(torch.log1p(relative) * (2.0 / 3.0))
