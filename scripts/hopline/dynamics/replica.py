"""One replica of a batch: its files, its checks, where it stands and how it ended."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hopline import provenance
from hopline.console import say
from hopline.dynamics import checkpoint
from hopline.dynamics.checks import Limits, Watch, throughput_ns_per_day
from hopline.dynamics.engine import Saved, Snapshot
from hopline.dynamics.outcomes import NOT_RUN, Outcome, offending_of
from hopline.dynamics.stage import Stage, degrees_of_freedom
from hopline.files import link_or_copy, unlink_second_names, write_json
from hopline.frames import write_frames
from hopline.trajectory_writer import LostTrajectoryError, TrajectoryWriter
from hopline.units import ASE_TIME_PER_FS, BOLTZMANN_EV_PER_K, FS_PER_PS

Vectors = NDArray[np.float64]
OF_AN_ATTEMPT = ("started", "commit", "device", "versions")
"""Of its provenance a sidecar keeps these for each earlier attempt: part of the trajectory is theirs."""


@dataclass(frozen=True, eq=False)
class Replica:
    """A start with momenta, what is asked of it, and the trajectory to be written.

    ``unfit`` says why the start is no good (`outcomes.why_exploded` of the run before): then only frame 0 is written.
    """

    start: Atoms
    stage: Stage
    trajectory: Path
    unfit: str | None = None

    @property
    def folder(self) -> Path:
        """Where its files grow, beside the trajectory."""
        return self.trajectory.parent / "work" / self.trajectory.stem

    def identity(self, depends_on: Mapping[str, Any]) -> str:
        """Return what tells this run from others: start, stage and ``depends_on``, but not how long it is to be."""
        atoms, start = self.start, hashlib.sha256()
        for values in (
            atoms.numbers,
            atoms.positions,
            atoms.get_momenta(),
            atoms.cell.array,
            atoms.get_masses(),
        ):
            start.update(np.ascontiguousarray(values).tobytes())
        content = {
            "start": start.hexdigest(),
            "stage": self.stage.identity(),
            "unfit": self.unfit,
            **depends_on,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def written(self) -> Path:
        """The trajectory as it grows."""
        return self.folder / self.trajectory.name

    def outcome(self) -> Outcome:
        """Return how the run ended, or where it stands, as its sidecar in the work folder says."""
        return Outcome.of(provenance.read_sidecar(self.written))

    def publish(self) -> Outcome:
        """Let the files appear under their own names, say how the run ended, and return that."""
        outcome = self.outcome()
        offending_of(self.trajectory).unlink(missing_ok=True)
        link_or_copy(self.written, self.trajectory)
        if outcome.status == "exploded" and offending_of(self.written).exists():
            link_or_copy(offending_of(self.written), offending_of(self.trajectory))
        link_or_copy(provenance.sidecar_of(self.written), provenance.sidecar_of(self.trajectory))
        say(f"{self.trajectory}: {outcome.told()}")
        return outcome


class Running:
    """A replica on its way; ``key`` tells its run from others.

    ``step`` and ``scale`` (of the cell's lengths, where the volume is swept) say where it stands, ``wall_s`` how much
    time it took so far; the batch keeps them. ``moment`` is when in the life of a batch an earlier attempt left it
    (None: there was none), ``temperature_K`` that of the last frame.
    """

    def __init__(
        self,
        replica: Replica,
        key: str,
        limits: Limits,
        found: checkpoint.Checkpoint | None,
        *,
        mobile: str | None,
        velocities: bool,
    ) -> None:
        """Go on from a checkpoint (None: from the start); where its trajectory is lost, from the start too."""
        self.replica, self.key, self._velocities = replica, key, velocities
        stage = replica.stage
        self.start = replica.start.copy()
        self.start.set_cell(self.start.cell * stage.scale_first, scale_atoms=True)
        self.watch = Watch(limits, self.start, conserves_energy=stage.ensemble == "nve", mobile=mobile)
        self._freedom = degrees_of_freedom(self.start, stage)
        self.n_steps = stage.n_steps
        self.step, self.scale, self.wall_s, self.attempts = 0, stage.scale_first, 0.0, 1
        self.temperature_K = math.nan
        self.moment: checkpoint.Moment | None = None
        self._exploded: str | None = None
        self._limits = asdict(limits)
        self._seen_before: Mapping[str, object] = self.watch.state()
        self._history: list[Mapping[str, Any]] = []
        self._record: Mapping[str, Any] = {}
        self.saved: Saved | None = None
        if found is not None and self._continue(found):
            # a start that was refused left no state
            self.saved = Saved(found.arrays, found.values["engine"]) if found.arrays else None
        else:
            self.writer = self._open(None)
        if not self._exploded:
            offending_of(replica.written).unlink(missing_ok=True)

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to run."""
        return self._exploded is not None or (self.step >= self.n_steps and not self.frame_is_due)

    @property
    def frame_is_due(self) -> bool:
        """Whether a frame belongs to this step and is not in the trajectory yet."""
        return self.step == self.writer.n_frames * self.replica.stage.steps_per_frame

    @property
    def simulated_ps(self) -> float:
        """Time that was simulated, up to the last step."""
        return self.step * self.replica.stage.timestep_fs / FS_PER_PS

    @property
    def throughput_ns_per_day(self) -> float:
        """Simulated time a day of wall time, over all attempts."""
        return throughput_ns_per_day(self.simulated_ps, self.wall_s)

    @property
    def target_temperature_K(self) -> float:
        """Temperature that the thermostat has now."""
        return self.replica.stage.temperature_at(self.step)

    def next_scale(self) -> float:
        """Return the cell's lengths over the start's that the next step is to have."""
        stage = self.replica.stage
        if stage.sweeps and self.step % stage.steps_per_frame == 0:
            return stage.scale_at(self.step + stage.steps_per_frame)
        return self.scale

    def look(self, now: Snapshot) -> None:
        """Check the frame that is due and write it; one that fails ends the run, and is written only as the start."""
        stage = self.replica.stage
        time_ps = self.simulated_ps
        self._seen_before = self.watch.state()
        self.temperature_K = 2.0 * now.kinetic_energy_eV / (self._freedom * BOLTZMANN_EV_PER_K)
        wrong = self.watch.look(
            now,
            time_ps=time_ps,
            temperature_K=self.temperature_K,
            target_temperature_K=self.target_temperature_K,
            swept=(self.scale / stage.scale_first) ** 3,
        )
        if self.replica.unfit:
            self._exploded = f"{NOT_RUN}{self.replica.unfit}"
        elif wrong:
            self._end(wrong, now.positions_A, now.cell_A, now.momenta)
        if self.step and wrong:
            return
        velocities = None
        if self._velocities:
            velocities = now.momenta / self.start.get_masses()[:, None] * ASE_TIME_PER_FS * FS_PER_PS
        self.writer.append(
            now.positions_A,
            now.cell_A,
            step=self.step,
            time_ps=time_ps,
            potential_energy_eV=now.potential_energy_eV,
            kinetic_energy_eV=now.kinetic_energy_eV,
            temperature_K=self.temperature_K,
            pressure_GPa=now.pressure_GPa if stage.ensemble == "npt" else None,
            velocities_A_per_ps=velocities,
        )

    def refuse_start(self, why: str) -> None:
        """End the run since the potential refuses its start, which is written without energies."""
        self._exploded = f"{NOT_RUN}the potential refuses its start ({why})"
        if self.writer.n_frames == 0:
            atoms, nan = self.start, math.nan
            velocities = atoms.get_velocities() * ASE_TIME_PER_FS * FS_PER_PS if self._velocities else None
            self.writer.append(
                atoms.positions, atoms.cell.array, step=0, time_ps=0.0, potential_energy_eV=nan,
                kinetic_energy_eV=nan, temperature_K=nan, velocities_A_per_ps=velocities,
            )  # fmt: skip

    def refuse(self, why: str, before: Saved) -> None:
        """End the run since the potential refuses what comes after ``before``."""
        arrays = before.arrays
        why = f"the potential refuses what came next ({why})"
        self._end(why, arrays["positions_A"], arrays["cells_A"][0], arrays["momenta"])

    def _end(self, why: str, positions_A: Vectors, cell_A: Vectors, momenta: Vectors) -> None:
        # what was simulated soundly: up to the last frame written
        last_ps = max(self.writer.n_frames - 1, 0) * self.replica.stage.frame_interval_ps
        self._exploded = f"after {last_ps:g} ps: {why}"
        atoms = self.start.copy()
        atoms.set_cell(cell_A)
        atoms.set_positions(positions_A)
        atoms.set_momenta(momenta)
        atoms.info = {"time_ps": self.simulated_ps, "reason": why}
        write_frames(offending_of(self.replica.written), [atoms])

    def write_checkpoint(self, saved: Saved, moment: checkpoint.Moment) -> None:
        """Write all that the next attempt needs; frames reach the disk first."""
        self.writer.sync()
        own = {
            "n_frames": self.writer.n_frames,
            "scale": self.scale,
            "wall_s": self.wall_s,
            "attempts": self.attempts,
            "exploded": self._exploded,
            # an exploded run may go on under other limits, with the frame that ended it
            "watch": self._seen_before if self._exploded else self.watch.state(),
            "limits": self._limits,
            "history": [*self._history, {"until_ps": self.simulated_ps, **self._record}],
        }
        ended = self._exploded is not None
        values = {"engine": dict(saved.values), "replica": own}
        one = checkpoint.Checkpoint(self.step, self.key, moment, ended, saved.arrays, values)
        checkpoint.write(self.replica.folder, one)

    def forget_earlier(self) -> None:
        """Remove the checkpoints before the last."""
        checkpoint.forget_others(self.replica.folder, self.step)

    def write_sidecar(self, record: Mapping[str, Any], *, engine: str, n_batch: int) -> None:
        """Write how far it is, or how it ended, beside the trajectory as it grows."""
        content = {
            **self._verdict(),
            "checks": self.watch.figures,
            "simulated_ps": max(self.writer.n_frames - 1, 0) * self.replica.stage.frame_interval_ps,
            "throughput_ns_per_day": self.throughput_ns_per_day,
            "replicas_in_batch": n_batch,
            "wall_time_s": self.wall_s,
            "attempts": self.attempts,
            "peak_memory_MB": provenance.peak_memory_MB(),
            "engine": engine,
            "provenance": record,
            "earlier_attempts": self._history,
        }
        self._record = {name: record.get(name) for name in OF_AN_ATTEMPT}
        write_json(provenance.sidecar_of(self.replica.written), content)

    def _verdict(self) -> dict[str, str]:
        if self._exploded:
            return {"status": "exploded", "reason": self._exploded}
        if self.ended:
            return {"status": "finished", "reason": f"all {self.simulated_ps:g} ps were run"}
        return {"status": "interrupted", "reason": f"it stands at {self.simulated_ps:g} ps"}

    def _open(self, n_frames: int | None) -> TrajectoryWriter:
        return TrajectoryWriter(
            self.replica.written,
            self.start,
            frame_interval_ps=self.replica.stage.frame_interval_ps,
            velocities=self._velocities,
            n_frames=n_frames,
        )

    def _continue(self, found: checkpoint.Checkpoint) -> bool:
        """Take up where a checkpoint stands; False where its trajectory is lost.

        Under other limits an exploded run goes on, and one that has gone beyond the new ones has exploded.
        """
        own = found.values["replica"]
        exploded = own["exploded"]
        other_limits = own["limits"] != self._limits
        if other_limits and exploded and not self.replica.unfit:
            say(f"{self.replica.trajectory}: under other limits than before it goes on")
            exploded = None
        try:
            if exploded is None and found.step < self.n_steps:
                unlink_second_names(self.replica.written)
            # a start that was refused is one frame without a state
            self.writer = self._open(own["n_frames"])
            sidecar = provenance.read_sidecar(self.replica.written)
        except (LostTrajectoryError, FileNotFoundError) as error:
            say(f"{error}: {self.replica.trajectory} begins anew")
            return False
        self.step, self.moment, self._exploded = found.step, found.moment, exploded
        self.scale, self.wall_s, self.attempts = own["scale"], own["wall_s"], own["attempts"]
        self._history = own["history"]
        self.watch.restore(own["watch"])
        if other_limits and not exploded and (beyond := self.watch.beyond()):
            self._exploded = f"within {self.simulated_ps:g} ps: {beyond}"
            if self.step < self.n_steps:
                # it is over, before its last step: whoever looks for its end must find it
                values = {
                    **found.values,
                    "replica": {**own, "exploded": self._exploded, "limits": self._limits},
                }
                checkpoint.write(self.replica.folder, replace(found, ended=True, values=values))
        if self.ended:
            # under other limits the same run may have ended otherwise
            write_json(provenance.sidecar_of(self.replica.written), {**sidecar, **self._verdict()})
        else:
            self.attempts += 1
            say(f"{self.replica.trajectory}: going on after {self.simulated_ps:g} ps")
        return True
