"""Molecular dynamics with any ASE calculator and ASE's integrators, one system after another: the reference engine."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import ase.units
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.md import MolecularDynamics
from ase.md.verlet import VelocityVerlet
from ase.neighborlist import neighbor_list

from hopline.console import InputError
from hopline.dynamics.barostats import critical_friction_per_ps, piston_mass
from hopline.dynamics.engine import Saved, Snapshot
from hopline.dynamics.stage import BAROSTATS, THERMOSTATS, Stage, noise_seed
from hopline.potentials.forcefield import SystemRefused
from hopline.units import ASE_TIME_PER_FS, FS_PER_PS, GPA_PER_EV_PER_A3

NEAR_A = 3.0
"""Distances between atoms are looked for up to here."""
BAROSTAT_VARIABLES = ("p_eps", "force_eps")
"""What ASE's barostat remembers from step to step, besides the forces."""


class AseEngine:
    """ASE's integrators; velocity Verlet, and Langevin BAOAB with or without a piston."""

    name = "ase"

    def __init__(
        self,
        starts: Sequence[Atoms],
        stages: Sequence[Stage],
        saved: Sequence[Saved | None],
        *,
        calculator: Calculator,
    ) -> None:
        """Begin at the starts, or where saved ones were."""
        for kind, value, known in (
            ("thermostat", stages[0].thermostat, THERMOSTATS[0]),
            ("barostat", stages[0].barostat, BAROSTATS[0]),
        ):
            if value != known:
                raise InputError(f"the ase engine has the {kind} {known} only: {value} needs engine batched")
        self.systems: list[Atoms] = []
        self.drivers: list[MolecularDynamics] = []
        # each its own, since a calculator remembers the last atoms it saw; copied before it has seen any
        calculators = [calculator, *(copy.copy(calculator) for _ in starts[1:])]
        for row, (start, stage, one, own) in enumerate(zip(starts, stages, saved, calculators, strict=True)):
            atoms = start.copy()
            atoms.calc = own
            try:
                atoms.get_potential_energy()
            except InputError as error:
                raise SystemRefused(str(error), row) from error
            # from the start, whose volume gives the piston's mass
            driver = _integrator(atoms, stage)
            if one is not None:
                _place(atoms, one)
                _remember(driver, one)
            self.systems.append(atoms)
            self.drivers.append(driver)
        self.stress = stages[0].ensemble == "npt"

    def advance(self, temperatures_K: Sequence[float]) -> None:
        """Go one timestep; a system that the potential refuses raises SystemRefused, and no system has moved."""
        for driver, temperature_K in zip(self.drivers, temperatures_K, strict=True):
            if isinstance(driver, LangevinBAOAB) and driver.temperature_K != temperature_K:
                driver.set_temperature(temperature_K)
        self._all_or_none(lambda row: self.drivers[row].run(1))

    def scale_cells(self, scales: Sequence[float]) -> None:
        """Multiply the lengths of each cell, atoms along with it."""

        def scale(row: int) -> None:
            atoms, driver = self.systems[row], self.drivers[row]
            atoms.set_cell(atoms.cell.array * scales[row], scale_atoms=True)
            if isinstance(driver, LangevinBAOAB):
                driver._update_accel()  # noqa: SLF001  it keeps the forces of before

        self._all_or_none(scale)

    def _all_or_none(self, move: Callable[[int], object]) -> None:
        """Move every system; where the potential refuses one, put all back and say which."""
        before = [self.saved(row) for row in range(len(self.systems))]
        for row in range(len(self.systems)):
            try:
                move(row)
            except InputError as error:
                for moved, one in enumerate(before):
                    _place(self.systems[moved], one)
                    _remember(self.drivers[moved], one)
                raise SystemRefused(str(error), row) from error

    def snapshots(self) -> list[Snapshot]:
        """Return every system as it is now."""
        return [self._snapshot(atoms) for atoms in self.systems]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these systems only."""
        self.systems, self.drivers = [self.systems[row] for row in rows], [self.drivers[row] for row in rows]

    def saved(self, row: int) -> Saved:
        """Return all that a system's next step depends on."""
        atoms, driver = self.systems[row], self.drivers[row]
        arrays = {
            "positions_A": atoms.get_positions(),
            "momenta": atoms.get_momenta(),
            "cells_A": atoms.cell.array[None].copy(),
        }
        values: dict[str, Any] = {}
        if isinstance(driver, LangevinBAOAB):
            arrays["accelerations"] = driver.accel.copy()
            values["noise"] = driver.rng.bit_generator.state
            values |= {
                name: float(getattr(driver, name)) for name in BAROSTAT_VARIABLES if hasattr(driver, name)
            }
        return Saved(arrays, values)

    def _snapshot(self, atoms: Atoms) -> Snapshot:
        near_A = neighbor_list("d", atoms, NEAR_A)
        return Snapshot(
            positions_A=atoms.get_positions(),
            momenta=atoms.get_momenta(),
            cell_A=atoms.cell.array.copy(),
            forces_eV_per_A=atoms.get_forces(),
            potential_energy_eV=float(atoms.get_potential_energy()),
            kinetic_energy_eV=float(atoms.get_kinetic_energy()),
            pressure_GPa=_pressure_GPa(atoms) if self.stress else None,
            shortest_A=float(near_A.min(initial=np.inf)),
        )


def _place(atoms: Atoms, saved: Saved) -> None:
    atoms.set_cell(saved.arrays["cells_A"][0])
    atoms.set_positions(saved.arrays["positions_A"])
    atoms.set_momenta(saved.arrays["momenta"])


def _remember(driver: MolecularDynamics, saved: Saved) -> None:
    """Give a driver what it held when its state was saved."""
    if not isinstance(driver, LangevinBAOAB):
        return
    driver.accel = saved.arrays["accelerations"].copy()
    driver.rng.bit_generator.state = saved.values["noise"]
    for name in BAROSTAT_VARIABLES:
        if name in saved.values:
            setattr(driver, name, saved.values[name])


def _integrator(atoms: Atoms, stage: Stage) -> MolecularDynamics:
    timestep = stage.timestep_fs * ASE_TIME_PER_FS
    if stage.ensemble == "nve":
        return VelocityVerlet(atoms, timestep)
    settings: dict[str, Any] = {
        "temperature_K": stage.temperature_K,
        "T_tau": FS_PER_PS / stage.friction_per_ps * ASE_TIME_PER_FS,
        "rng": np.random.default_rng(noise_seed(stage)),
    }
    if stage.ensemble == "npt":
        settings["externalstress"] = -stage.pressure_GPa * ase.units.GPa
        settings["hydrostatic"] = True
        # ASE's friction is 1 / P_tau
        friction_per_ps = stage.barostat_friction_per_ps or critical_friction_per_ps(stage.barostat_time_fs)
        settings["P_tau"] = FS_PER_PS / friction_per_ps * ASE_TIME_PER_FS
        settings["P_mass"] = piston_mass(atoms.get_volume(), stage.barostat_time_fs)
    return LangevinBAOAB(atoms, timestep, **settings)


def _pressure_GPa(atoms: Atoms) -> float:
    """Return the instantaneous pressure, the atoms' motion included."""
    stress: float = np.mean(atoms.get_stress(include_ideal_gas=True)[:3])
    return -stress * GPA_PER_EV_PER_A3
