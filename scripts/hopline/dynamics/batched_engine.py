"""Molecular dynamics of many systems with one force call a step, on a CPU or a GPU."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from hopline.console import InputError, say
from hopline.dynamics.barostats import LangevinPiston, StochasticCellRescaling, pressures_GPa
from hopline.dynamics.engine import Saved, Snapshot
from hopline.dynamics.integrators import Integrator, Langevin, NoseHooverChain, VelocityVerlet
from hopline.dynamics.stage import Stage, noise_seed
from hopline.dynamics.state import BatchState, Noise, joined, kinetic_energies_eV, state_of_atoms
from hopline.potentials.calculator import BatchedCalculator
from hopline.potentials.forcefield import BatchForces, ForceField, SystemRefused


class BatchedEngine:
    """All systems advance in one call of the model; each has its own temperature and its own noise."""

    name = "batched"

    def __init__(
        self,
        starts: Sequence[Atoms],
        stages: Sequence[Stage],
        saved: Sequence[Saved | None],
        *,
        calculator: BatchedCalculator,
    ) -> None:
        """Begin at the starts, or where saved ones were."""
        self.integrator = integrator_of(stages[0])
        self.forces = PartedForces(calculator, starts, stress=self.integrator.needs_stress)
        self._device = self.forces.device
        self.noise = Noise.of_seeds([noise_seed(stage) for stage in stages], self.forces.sizes, self._device)
        parts: list[Mapping[str, Any]] = [one.arrays if one else {} for one in saved]
        noises = [
            one.values["noise"] if one else of_start
            for one, of_start in zip(saved, self.noise.states(), strict=True)
        ]
        if not all(parts):
            # all are computed, since the force field is of the whole batch; what was saved stays as it was
            begun = self.integrator.begin(state_of_atoms(starts, self.forces, self._device))
            parts = [part or begun.select([row]).to_arrays() for row, part in enumerate(parts)]
        self.state = BatchState.from_arrays(joined(parts), self._device)
        self._set_noise(noises)

    def advance(self, temperatures_K: Sequence[float]) -> None:
        """Go one timestep; a system that the model refuses raises SystemRefused, and nothing has changed."""
        before = self.noise.states()
        temperatures = torch.tensor(temperatures_K, dtype=torch.float64, device=self.forces.device)
        try:
            self.state = self.integrator.step(
                self.state, self.forces, temperatures_K=temperatures, noise=self.noise
            )
        except SystemRefused:
            self._set_noise(before)
            raise

    def scale_cells(self, scales: Sequence[float]) -> None:
        """Multiply the lengths of each cell, atoms along with it."""
        factors = torch.tensor(scales, dtype=torch.float64, device=self.forces.device)
        state = self.state
        positions_A = state.positions_A * factors[state.system_of_atom][:, None]
        cells_A = state.cells_A * factors[:, None, None]
        self.state = state.moved(self.forces(positions_A, cells_A), positions_A=positions_A, cells_A=cells_A)

    def snapshots(self) -> list[Snapshot]:
        """Return every system as it is now."""
        state = self.state
        kinetic_eV = kinetic_energies_eV(state)
        pressures: list[float | None] = [None] * state.n_systems
        if state.stresses_eV_per_A3 is not None:
            pressures = pressures_GPa(state).tolist()
        ends = np.cumsum(self.forces.sizes)[:-1]
        positions_A, momenta, forces = (
            np.split(tensor.cpu().numpy(), ends)
            for tensor in (state.positions_A, state.momenta, state.forces_eV_per_A)
        )
        rows = zip(
            positions_A, momenta, state.cells_A.cpu().numpy(), forces, state.energies_eV.tolist(),
            kinetic_eV.tolist(), pressures, state.shortest_A.tolist(), strict=True,
        )  # fmt: skip
        return [Snapshot(*row) for row in rows]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these systems only."""
        self.state, self.noise = self.state.select(rows), self.noise.select(rows)
        self.forces.keep(rows)

    def saved(self, row: int) -> Saved:
        """Return all that a system's next step depends on."""
        return Saved(self.state.select([row]).to_arrays(), {"noise": self.noise.states()[row]})

    def _set_noise(self, states: Sequence[Mapping[str, Any]]) -> None:
        self.noise = Noise.of_states(states, self.forces.sizes, self._device)


def integrator_of(stage: Stage) -> Integrator:
    """Return the integrator that a stage asks for."""
    if stage.ensemble == "nve":
        return VelocityVerlet(stage.timestep_fs)
    if stage.ensemble == "nvt":
        if stage.thermostat == "nose-hoover":
            return NoseHooverChain(stage.timestep_fs, stage.thermostat_time_fs)
        return Langevin(stage.timestep_fs, stage.friction_per_ps)
    if stage.barostat == "stochastic-cell-rescaling":
        return StochasticCellRescaling(
            stage.timestep_fs, stage.friction_per_ps, stage.pressure_GPa, stage.barostat_time_fs
        )
    return LangevinPiston(
        stage.timestep_fs,
        stage.friction_per_ps,
        stage.pressure_GPa,
        stage.barostat_time_fs,
        stage.barostat_friction_per_ps,
    )


class PartedForces:
    """Forces on a batch, in as many calls of the model as its memory asks for: one, as long as that fits."""

    def __init__(self, calculator: BatchedCalculator, frames: Sequence[Atoms], *, stress: bool) -> None:
        self._calculator, self._frames, self._stress = calculator, list(frames), stress
        self._parts: list[tuple[int, ForceField]] = []
        self._join([len(self._frames)])

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._parts[0][1].device

    @property
    def sizes(self) -> list[int]:
        """Atoms of each system."""
        return [len(atoms) for atoms in self._frames]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these systems only, in one call if that fits."""
        self._frames = [self._frames[row] for row in rows]
        self._join([len(rows)])

    def __call__(self, positions_A: Tensor, cells_A: Tensor) -> BatchForces:
        """Return what the model says about the batch."""
        while True:
            try:
                return self._compute(positions_A, cells_A)
            except torch.cuda.OutOfMemoryError as error:
                largest = max(n_systems for n_systems, _ in self._parts)
                if largest == 1:
                    raise InputError(
                        f"one system of {max(self.sizes)} atoms is more than the card's memory holds: take a smaller "
                        "cell, float32, or a card with more memory"
                    ) from error
            # outside the except block: the error holds on to the tensors that did not fit
            torch.cuda.empty_cache()
            half = (largest + 1) // 2
            counts = [half] * (len(self._frames) // half) + [len(self._frames) % half]
            say(f"{len(self._frames)} systems do not fit in the card's memory: {half} at a time from now on")
            self._join([n_systems for n_systems in counts if n_systems])

    def _join(self, counts: Sequence[int]) -> None:
        ends = np.cumsum(counts)
        self._parts.clear()  # what the old ones hold is free before the new ones are made
        self._parts = [
            (n_systems, self._calculator.join(self._frames[end - n_systems : end]))
            for n_systems, end in zip(counts, ends.tolist(), strict=True)
        ]

    def _compute(self, positions_A: Tensor, cells_A: Tensor) -> BatchForces:
        if len(self._parts) == 1:
            return self._parts[0][1].compute(positions_A, cells_A, stress=self._stress)
        found, row, atom = [], 0, 0
        for n_systems, model in self._parts:
            n_atoms = sum(self.sizes[row : row + n_systems])
            cells = cells_A[row : row + n_systems]
            try:
                found.append(model.compute(positions_A[atom : atom + n_atoms], cells, stress=self._stress))
            except SystemRefused as error:
                raise SystemRefused(str(error), row + error.row) from error
            row, atom = row + n_systems, atom + n_atoms
        stresses = [one.stresses_eV_per_A3 for one in found if one.stresses_eV_per_A3 is not None]
        return BatchForces(
            energies_eV=torch.cat([one.energies_eV for one in found]),
            forces_eV_per_A=torch.cat([one.forces_eV_per_A for one in found]),
            stresses_eV_per_A3=torch.cat(stresses) if stresses else None,
            shortest_A=torch.cat([one.shortest_A for one in found]),
        )
