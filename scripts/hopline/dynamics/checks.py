"""Checks that tell when a run has gone wrong, each named, with the figures they saw."""

from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hopline.units import FS_PER_PS, MEV_PER_EV


@dataclass(frozen=True)
class Limits:
    """When a run counts as exploded.

    Parameters
    ----------
    max_temperature_ratio
        Largest instantaneous temperature over the target temperature.
    min_distance_A
        Smallest distance between any two atoms, A.
    max_force_eV_per_A
        Largest force on any atom, eV/A.
    max_volume_ratio
        Largest volume over the starting volume (and the smallest, as its inverse).
    """

    max_temperature_ratio: float = 4.0
    min_distance_A: float = 0.6
    max_force_eV_per_A: float = 60.0
    max_volume_ratio: float = 1.8


@dataclass
class Watch:
    """Looks at every written frame and remembers the extremes it saw."""

    limits: Limits
    target_temperature_K: float
    start_volume_A3: float
    figures: dict[str, float] = field(default_factory=dict)

    def look(self, atoms: Atoms, *, temperature_K: float) -> str | None:
        """Return why the run is wrong, as one sentence, or None while it is right."""
        forces, energy_eV = atoms.get_forces(), atoms.get_potential_energy()
        if not (np.isfinite(forces).all() and np.isfinite(energy_eV) and np.isfinite(atoms.positions).all()):
            return "energy, forces or positions are no longer finite numbers"
        volume_ratio = atoms.get_volume() / self.start_volume_A3
        self._remember("max_temperature_K", temperature_K)
        self._remember("max_force_eV_per_A", float(np.abs(forces).max()))
        self._remember("max_volume_ratio", max(volume_ratio, 1.0 / volume_ratio))
        if temperature_K > self.limits.max_temperature_ratio * self.target_temperature_K:
            return (
                f"temperature {temperature_K:.0f} K exceeds {self.limits.max_temperature_ratio:g} times "
                f"the target of {self.target_temperature_K:g} K"
            )
        if np.abs(forces).max() > self.limits.max_force_eV_per_A:
            return (
                f"a force of {np.abs(forces).max():.3g} eV/A exceeds {self.limits.max_force_eV_per_A:g} eV/A"
            )
        if max(volume_ratio, 1.0 / volume_ratio) > self.limits.max_volume_ratio:
            return f"the volume changed by a factor {volume_ratio:.3g} since the start"
        from ase.neighborlist import neighbor_list  # half a second to import: --help need not pay it

        near_A = neighbor_list("d", atoms, self.limits.min_distance_A)
        if near_A.size:
            return f"two atoms are {near_A.min():.3f} A apart, closer than {self.limits.min_distance_A:g} A"
        return None

    def _remember(self, name: str, value: float) -> None:
        self.figures[name] = max(value, self.figures.get(name, -np.inf))


def energy_drift(time_ps: NDArray[np.float64], total_energy_eV: NDArray[np.float64], n_atoms: int) -> float:
    """Return the linear drift of the total energy in meV/atom/ps: least squares over the run, NaN for one frame."""
    if len(time_ps) < 2:  # noqa: PLR2004
        return float("nan")
    slope_eV_per_ps = np.polyfit(time_ps, total_energy_eV, 1)[0]
    return float(slope_eV_per_ps * MEV_PER_EV / n_atoms)


def throughput_ns_per_day(simulated_ps: float, wall_s: float) -> float:
    """Return simulated nanoseconds per day of wall time."""
    seconds_per_day = 86_400.0
    return simulated_ps / FS_PER_PS * seconds_per_day / wall_s if wall_s > 0 else float("nan")
