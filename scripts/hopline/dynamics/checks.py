"""Checks that tell when a run has gone wrong, each named, with the figures they saw."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms

from hopline.console import InputError
from hopline.dynamics.engine import Snapshot
from hopline.units import BOLTZMANN_EV_PER_K, FS_PER_PS, MEV_PER_EV

MIN_FRAMES_OF_SLOPE, MIN_FRAMES_OF_DRIFT = 100, 10
"""A drift is judged from so many frames on: before, it is that of a fluctuation.

Of n frames the drift over the run errs by sqrt(12 / n) of the total energy's own fluctuation, which in a sound run is a
hundredth of kT; a slope is that over the time, and so large in a short run.
"""


@dataclass(frozen=True)
class Limits:
    """When a run counts as exploded; an infinite limit (for the distance 0) is no limit.

    Parameters
    ----------
    max_temperature_ratio
        Largest instantaneous temperature over the thermostat's of that instant (in NVE the one asked for).
    min_distance_A
        Smallest distance between any two atoms, A.
    max_force_eV_per_A
        Largest force on any atom, eV/A.
    max_volume_ratio
        Largest density change: volume over the starting volume (and the smallest, as its inverse); where the volume is
        swept, over the prescribed one.
    max_energy_jump_eV_per_atom
        Largest change of the total energy from one frame to the next, eV/atom.
    max_host_displacement_ratio
        Largest root mean square displacement of the immobile atoms since the start, over the cube root of the volume
        that each of them has: the host has melted. Lindemann's crystals melt at 0.1 to 0.15 of a neighbour distance
        from the mean positions, 0.15 to 0.2 from those of another instant.
    max_energy_drift_meV_per_atom_per_ps
        NVE: largest drift of the total energy, meV/atom/ps, from `MIN_FRAMES_OF_SLOPE` frames on.
    max_heating_share
        NVE: largest drift over the run so far, over 3 kT: beyond it the run samples another temperature. From
        `MIN_FRAMES_OF_DRIFT` frames on.
    max_drift_over_fluctuation
        NVE: the same over the standard deviation of the kinetic energy, which is larger for small cells. No limit
        unless one is set: in a cell of thousands of atoms three are a change of the temperature by one per cent.

    Raises
    ------
    InputError
        If a limit is one that every run is beyond, or no number.
    """

    max_temperature_ratio: float = 4.0
    min_distance_A: float = 0.6
    max_force_eV_per_A: float = 60.0
    max_volume_ratio: float = 1.8
    max_energy_jump_eV_per_atom: float = 0.5
    max_host_displacement_ratio: float = 0.5
    max_energy_drift_meV_per_atom_per_ps: float = 10.0
    max_heating_share: float = 0.5
    max_drift_over_fluctuation: float = math.inf

    def __post_init__(self) -> None:
        """Refuse limits that every run is beyond."""
        for name, value in vars(self).items():
            least = 1.0 if name == "max_volume_ratio" else 0.0
            if not value >= least or (name == "min_distance_A" and math.isinf(value)):
                raise InputError(f"{name} must be {least:g} or more, got {value}")


TOLD = {
    "max_temperature_ratio": "temperature {:.4g} times the target",
    "max_force_eV_per_A": "a force of {:.3g} eV/A",
    "max_volume_ratio": "the volume changed by a factor {:.3g} since the start",
    "max_energy_jump_eV_per_atom": "the total energy jumped by {:.3g} eV/atom from one frame to the next",
    "max_host_displacement_ratio": "the host has melted: its atoms are {:.2f} of their spacing (rms) from their start",
    "max_energy_drift_meV_per_atom_per_ps": "the total energy drifts by {:.3g} meV/atom/ps: shorten the timestep",
    "max_heating_share": "the total energy has drifted by {:.2f} of 3 kT an atom: shorten the timestep",
    "max_drift_over_fluctuation": "the total energy has drifted by {:.3g} deviations of the kinetic energy",
}
"""What a figure beyond its limit means; the figure has the limit's name, without ``max_`` where it is a drift's."""
FRAMES_NEEDED = {
    "max_energy_drift_meV_per_atom_per_ps": MIN_FRAMES_OF_SLOPE,
    "max_heating_share": MIN_FRAMES_OF_DRIFT,
    "max_drift_over_fluctuation": MIN_FRAMES_OF_DRIFT,
}
"""Of what tells more the longer it is looked at."""


@dataclass
class Drift:
    """Least squares of the total energy over time, and the spread of the kinetic energy, as frames come."""

    n_atoms: int
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, time_ps: float, total_energy_eV: float, kinetic_energy_eV: float) -> None:
        """Take in one frame."""
        if not self.sums:
            names = ("n", "t", "tt", "e", "te", "k", "kk")
            self.sums = {
                "e_first": total_energy_eV,
                "k_first": kinetic_energy_eV,
                **dict.fromkeys(names, 0.0),
            }
        # from the first frame on: small numbers keep their digits
        energy, kinetic = total_energy_eV - self.sums["e_first"], kinetic_energy_eV - self.sums["k_first"]
        for name, value in (
            ("n", 1.0),
            ("t", time_ps),
            ("tt", time_ps**2),
            ("e", energy),
            ("te", time_ps * energy),
            ("k", kinetic),
            ("kk", kinetic**2),
        ):
            self.sums[name] += value

    @property
    def n_frames(self) -> int:
        """Frames taken in."""
        return int(self.sums.get("n", 0))

    @property
    def meV_per_atom_per_ps(self) -> float:
        """Slope of the total energy an atom; NaN for fewer than two frames."""
        if self.n_frames < 2:  # noqa: PLR2004
            return math.nan
        n, t, tt, e, te = (self.sums[name] for name in ("n", "t", "tt", "e", "te"))
        return (n * te - t * e) / (n * tt - t * t) * MEV_PER_EV / self.n_atoms

    def over_fluctuation(self, length_ps: float) -> float:
        """Return the drift over a length (ps) over the standard deviation of the kinetic energy."""
        n, k, kk = (self.sums.get(name, 0.0) for name in ("n", "k", "kk"))
        spread_eV = math.sqrt(max(kk / n - (k / n) ** 2, 0.0)) if n else 0.0
        drift_eV = abs(self.meV_per_atom_per_ps) * length_ps * self.n_atoms / MEV_PER_EV
        return drift_eV / spread_eV if spread_eV > 0 else math.nan


class Watch:
    """Looks at every frame of one run before it is written, and remembers the extremes it saw."""

    def __init__(
        self, limits: Limits, start: Atoms, *, conserves_energy: bool, mobile: str | None = None
    ) -> None:
        """Watch a run from ``start``; atoms that are not of the ``mobile`` species are the host (None: no host)."""
        self.limits = limits
        self.figures: dict[str, float] = {}
        self.drift = Drift(len(start)) if conserves_energy else None
        self._start_volume_A3 = start.get_volume()
        self._last_energy_eV = math.nan
        host = [] if mobile is None else [atom.index for atom in start if atom.symbol != mobile]
        self._host = np.array(host, dtype=int)
        self._masses = start.get_masses()[self._host]
        self._scaled = start.cell.scaled_positions(start.positions)[self._host]

    def look(
        self,
        now: Snapshot,
        *,
        time_ps: float,
        temperature_K: float,
        target_temperature_K: float,
        swept: float = 1.0,
    ) -> str | None:
        """Return why the run is wrong, as one sentence, or None while it is right.

        ``swept`` is the prescribed volume over that of the start.
        """
        numbers = (now.forces_eV_per_A, now.positions_A, now.momenta, now.energy_eV)
        if not all(np.isfinite(values).all() for values in numbers):
            return "energy, forces, positions or momenta are no longer finite numbers"
        return self._wrong(self._find(now, time_ps, temperature_K, target_temperature_K, swept))

    def beyond(self) -> str | None:
        """Return why the run is wrong, judged by all that was seen of it so far."""
        return self._wrong(self.figures)

    def _wrong(self, seen: Mapping[str, float]) -> str | None:
        """Return the first limit that figures are beyond, as one sentence that names it."""
        limits = self.limits
        nearest_A = seen.get("min_distance_A", math.inf)
        if nearest_A < limits.min_distance_A:
            return (
                f"two atoms are {nearest_A:.3f} A apart, closer than min_distance_A {limits.min_distance_A:g}"
            )
        for name, told in TOLD.items():
            value = abs(seen.get(name if name in seen else name.removeprefix("max_"), 0.0))
            if value > getattr(limits, name) and self._n_frames_of_drift >= FRAMES_NEEDED.get(name, 0):
                return f"{told.format(value)} ({name} {getattr(limits, name):g})"
        return None

    @property
    def _n_frames_of_drift(self) -> int:
        return self.drift.n_frames if self.drift else 0

    def _find(
        self, now: Snapshot, time_ps: float, temperature_K: float, target_temperature_K: float, swept: float
    ) -> dict[str, float]:
        """Return the figures of a frame and remember the largest (of a distance the smallest, of a drift the last)."""
        ratio = now.volume_A3 / (self._start_volume_A3 * swept)
        found = {
            "max_temperature_K": temperature_K,
            "max_temperature_ratio": temperature_K / target_temperature_K,
            "max_force_eV_per_A": float(np.linalg.norm(now.forces_eV_per_A, axis=1).max()),
            "max_volume_ratio": max(ratio, 1.0 / ratio),
        }
        if math.isfinite(self._last_energy_eV):
            jump_eV = abs(now.energy_eV - self._last_energy_eV)
            found["max_energy_jump_eV_per_atom"] = jump_eV / len(now.positions_A)
        if len(self._host):
            found["max_host_displacement_ratio"] = self._host_displacement(now)
        for name, value in found.items():
            self.figures[name] = max(value, self.figures.get(name, -math.inf))
        found["min_distance_A"] = now.shortest_A
        self.figures["min_distance_A"] = min(now.shortest_A, self.figures.get("min_distance_A", math.inf))
        self._last_energy_eV = now.energy_eV
        if self.drift is not None:
            self.drift.add(time_ps, now.energy_eV, now.kinetic_energy_eV)
            slope = self.drift.meV_per_atom_per_ps
            last = {
                "energy_drift_meV_per_atom_per_ps": slope,
                "drift_over_fluctuation": self.drift.over_fluctuation(time_ps),
                "heating_share": slope
                * time_ps
                / MEV_PER_EV
                / (3.0 * BOLTZMANN_EV_PER_K * target_temperature_K),
            }
            found |= last
            self.figures |= last
        return found

    def _host_displacement(self, now: Snapshot) -> float:
        """Return the host atoms' rms displacement, without their common drift, over their spacing."""
        moved_A = now.positions_A[self._host] - self._scaled @ now.cell_A
        moved_A -= self._masses @ moved_A / self._masses.sum()
        spacing_A = math.cbrt(now.volume_A3 / len(self._host))
        return float(np.sqrt((moved_A**2).sum(axis=1).mean())) / spacing_A

    def state(self) -> dict[str, object]:
        """Return what it remembers, as plain values."""
        sums = dict(self.drift.sums) if self.drift else {}
        return {"figures": dict(self.figures), "sums": sums, "last_energy_eV": self._last_energy_eV}

    def restore(self, state: Mapping[str, object]) -> None:
        """Go back to a `state`."""
        self.figures = dict(state["figures"])  # type: ignore[call-overload]
        self._last_energy_eV = float(state["last_energy_eV"])  # type: ignore[arg-type]
        if self.drift:
            self.drift.sums = dict(state["sums"])  # type: ignore[call-overload]


def throughput_ns_per_day(simulated_ps: float, wall_s: float) -> float:
    """Return simulated nanoseconds per day of wall time."""
    seconds_per_day = 86_400.0
    return simulated_ps / FS_PER_PS * seconds_per_day / wall_s if wall_s > 0 else math.nan
