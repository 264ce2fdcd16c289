"""What one run is asked for: ensemble, temperature, timestep, length, thermostat and barostat."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from ase import Atoms

from hopline.console import InputError
from hopline.units import FS_PER_PS

ENSEMBLES = ("npt", "nvt", "nve")
THERMOSTATS = ("langevin", "nose-hoover")
BAROSTATS = ("langevin-piston", "stochastic-cell-rescaling")
LEAST_TIMESTEP_FS, LARGEST_PRESSURE_GPA = 0.01, 1000.0
"""Beyond these a number was meant in another unit."""
WHOLE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Stage:
    """One molecular-dynamics run; its length is rounded to whole frame intervals.

    ``friction_per_ps`` belongs to the Langevin thermostat of npt and nvt, ``thermostat_time_fs`` to the Nose-Hoover
    chain that nvt may have instead. ``pressure_GPa``, ``barostat``, ``barostat_time_fs`` (relaxation time of the
    volume) and ``barostat_friction_per_ps`` (of the piston; None damps it critically) belong to npt; nve uses none of
    them. A run goes evenly from ``temperature_K`` to ``temperature_last_K`` where that is given. An nvt run may sweep
    its volume: the cell's lengths go evenly from ``scale_first`` to ``scale_last`` times the start's, a step before
    each frame interval, so that one run visits compressed and expanded crystals.
    """

    ensemble: str
    temperature_K: float
    timestep_fs: float
    duration_ps: float
    frame_interval_fs: float
    seed: int
    temperature_last_K: float | None = None
    thermostat: str = "langevin"
    thermostat_time_fs: float = 100.0
    friction_per_ps: float = 0.0
    barostat: str = "langevin-piston"
    pressure_GPa: float = 0.0
    barostat_time_fs: float = 0.0
    barostat_friction_per_ps: float | None = None
    scale_first: float = 1.0
    scale_last: float = 1.0

    def __post_init__(self) -> None:
        """Refuse settings no integrator can follow."""
        for kind, value, known in (
            ("ensemble", self.ensemble, ENSEMBLES),
            ("thermostat", self.thermostat, THERMOSTATS),
            ("barostat", self.barostat, BAROSTATS),
        ):
            if value not in known:
                raise InputError(f"{kind} {value!r} is not known; there are {', '.join(known)}")
        for name in self._used():
            value = getattr(self, name)
            if value is not None and not 0 < value < np.inf:
                raise InputError(f"{name} must be positive, got {value}")
        if self.sweeps and self.ensemble != "nvt":
            raise InputError(f"only nvt can sweep its volume, not {self.ensemble}")
        if self.temperature_last_K is not None and self.ensemble == "nve":
            raise InputError("an nve run keeps its energy: it cannot go to another temperature")
        if self.thermostat != "langevin" and self.ensemble == "npt":
            raise InputError("npt has the langevin thermostat: the others are for nvt")
        if abs(self.pressure_GPa) > LARGEST_PRESSURE_GPA:
            raise InputError(
                f"a pressure of {self.pressure_GPa:g} GPa: is it in Pa or bar? It is wanted in GPa"
            )
        if self.seed < 0:
            raise InputError(f"seed must be 0 or more, got {self.seed}")
        self._refuse_times()

    def _refuse_times(self) -> None:
        """Refuse times that make no whole steps."""
        if self.timestep_fs < LEAST_TIMESTEP_FS:
            raise InputError(f"a timestep of {self.timestep_fs:g} fs: is it in ps? It is wanted in fs")
        steps = self.frame_interval_fs / self.timestep_fs
        if round(steps) < 1 or abs(steps - round(steps)) > WHOLE_TOLERANCE * steps:
            whole_fs = [n * self.timestep_fs for n in sorted({max(1, math.floor(steps)), math.ceil(steps)})]
            raise InputError(
                f"frame_interval_fs {self.frame_interval_fs:.10g} is no whole number of timesteps of "
                f"{self.timestep_fs:.10g} fs: take {' or '.join(f'{one:.10g}' for one in whole_fs)}"
            )
        if self.duration_ps * FS_PER_PS < (1.0 - WHOLE_TOLERANCE) * self.frame_interval_fs:
            raise InputError(f"duration_ps {self.duration_ps:g} is less than a frame interval")

    def _used(self) -> list[str]:
        """Name the quantities that the ensemble uses and that must be positive."""
        names = [
            "temperature_K",
            "timestep_fs",
            "duration_ps",
            "frame_interval_fs",
            "scale_first",
            "scale_last",
        ]
        if self.ensemble != "nve":
            names += ["temperature_last_K"]
            names += ["friction_per_ps"] if self.thermostat == "langevin" else ["thermostat_time_fs"]
        if self.ensemble == "npt":
            names += ["barostat_time_fs", "barostat_friction_per_ps"]
        return names

    def identity(self) -> dict[str, object]:
        """Return what the run's numbers depend on; its length only where conditions change along it."""
        names = [name for name in self._used() if name != "duration_ps" or self.changes_conditions]
        names += {"nve": [], "nvt": ["thermostat", "seed"], "npt": ["barostat", "pressure_GPa", "seed"]}[
            self.ensemble
        ]
        return {"ensemble": self.ensemble, **{name: getattr(self, name) for name in names}}

    @property
    def sweeps(self) -> bool:
        """Whether the volume is swept."""
        return (self.scale_first, self.scale_last) != (1.0, 1.0)

    @property
    def changes_conditions(self) -> bool:
        """Whether volume or temperature change along the run: a longer one then differs from its first step on."""
        return self.sweeps or self.temperature_last_K not in {None, self.temperature_K}

    @property
    def n_steps(self) -> int:
        """Number of timesteps, a whole number of frame intervals."""
        interval_fs = self.steps_per_frame * self.timestep_fs
        return round(self.duration_ps * FS_PER_PS / interval_fs) * self.steps_per_frame

    @property
    def steps_per_frame(self) -> int:
        """Timesteps between two written frames."""
        return round(self.frame_interval_fs / self.timestep_fs)

    @property
    def frame_interval_ps(self) -> float:
        """Time between two written frames, ps."""
        return self.steps_per_frame * self.timestep_fs / FS_PER_PS

    def temperature_at(self, step: int) -> float:
        """Return the thermostat's temperature (K) after so many steps."""
        last_K = self.temperature_K if self.temperature_last_K is None else self.temperature_last_K
        return self.temperature_K + (last_K - self.temperature_K) * step / self.n_steps

    def scale_at(self, step: int) -> float:
        """Return the cell's lengths over the start's in the frame interval that ends at a step."""
        return self.scale_first + (self.scale_last - self.scale_first) * step / self.n_steps


def default_frame_interval_fs(timestep_fs: float, duration_ps: float) -> float:
    """Return the whole timesteps nearest to 10 fs, no more than the run; of times that `Stage` refuses, 10 fs."""
    if not (0 < timestep_fs < np.inf and 0 < duration_ps < np.inf):
        return 10.0
    n_steps = math.floor(duration_ps * FS_PER_PS / timestep_fs * (1.0 + WHOLE_TOLERANCE))
    return max(1, min(round(10.0 / timestep_fs), n_steps)) * timestep_fs


OF_EACH_REPLICA = ("temperature_K", "temperature_last_K", "seed")
"""What replicas of one batch may differ in; they share the rest."""


def refuse_unlike(stages: Sequence[Stage]) -> None:
    """Refuse stages that cannot advance together, step by step."""
    for field in fields(Stage):
        if field.name not in OF_EACH_REPLICA and len({getattr(stage, field.name) for stage in stages}) > 1:
            raise InputError(f"replicas of one batch share their {field.name}: run the others on their own")


def own_seeds(seed: int, n: int) -> list[int]:
    """Return seeds of n runs, the first of them the seed: those of two seeds have nothing in common."""
    # a negative one is refused by `Stage`
    further = np.random.SeedSequence(max(seed, 0)).generate_state(n - 1, np.uint32)
    return [seed, *further.tolist()]


def noise_seed(stage: Stage) -> int:
    """Return the seed of a thermostat's noise, which is not that of the momenta drawn at the start."""
    return int(np.random.SeedSequence([stage.seed, 1]).generate_state(1, np.uint64)[0])


def degrees_of_freedom(atoms: Atoms, stage: Stage) -> int:
    """Return 3 N where a Langevin thermostat moves the centre of mass, and 3 N - 3 where its momentum stays zero."""
    langevin = stage.ensemble != "nve" and stage.thermostat == "langevin"
    return 3 * len(atoms) - (0 if langevin else 3)
