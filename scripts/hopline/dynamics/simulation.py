"""Runs of a batch of replicas: frames, checks, checkpoints and outcomes, whatever engine moves the atoms.

A replica's files grow in a work folder beside its trajectory, ``work/{name}/``: the trajectory so far, readable at any
time, its sidecar, and the last checkpoint. The finished ones appear under their own names as second links to the same
data, so what stays in the work folder costs no space: from it an output that was lost is put back, and a longer run
goes on where this one ended.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

from ase import Atoms

from hopline.console import InputError, Stopped, progress, say
from hopline.dynamics import checkpoint
from hopline.dynamics.checks import Limits
from hopline.dynamics.engine import Engine, Saved
from hopline.dynamics.outcomes import Outcome
from hopline.dynamics.replica import Replica, Running
from hopline.dynamics.stage import Stage, refuse_unlike
from hopline.files import remove_left_over
from hopline.potentials.forcefield import SystemRefused
from hopline.stopping import asked_to_stop, stop_at_s, stoppable
from hopline.units import FS_PER_PS
from hopline.work_folder import held

MakeEngine = Callable[[Sequence[Atoms], Sequence[Stage], Sequence[Saved | None]], Engine]
"""Makes an engine of starts (with momenta), what is asked of each, and what an engine saved of it (None: nothing)."""


def simulate(
    replicas: Sequence[Replica],
    make_engine: MakeEngine,
    limits: Limits,
    *,
    mobile: str | None = None,
    velocities: bool = False,
    checkpoint_interval_s: float = checkpoint.INTERVAL_S,
    depends_on: Mapping[str, Any] | None = None,
    record: Callable[[], Mapping[str, Any]] = dict,
    publish: bool = True,
) -> list[Outcome]:
    """Run replicas side by side, from where earlier attempts left them, and return how each ended.

    The start is frame 0 and always written. Every later frame is checked before it is written; a run ends at the first
    that fails, and that frame is saved, not written. A system that the potential refuses, at its start or later, ends
    as a failed check does; the others go on. ``mobile`` is the species whose motion is asked for (the others are the
    host that must not melt), ``velocities`` asks for velocities in the trajectories, ``depends_on`` says what the runs
    depend on besides starts and stages (hashes of files), and ``record`` gives the provenance that the sidecars
    keep. Without ``publish`` all stays in the work folders, for `take_over`.

    Raises
    ------
    InputError
        If the stages cannot advance together, or another process runs one of the replicas.
    Stopped
        If somebody asked to stop; checkpoints are written.
    """
    refuse_unlike([replica.stage for replica in replicas])
    keys = [replica.identity(depends_on or {}) for replica in replicas]
    _tell_doubtful(replicas, keys, mobile)
    with ExitStack() as stack:
        for replica in replicas:
            remove_left_over(stack.enter_context(held(replica.folder)))
        stack.enter_context(stoppable())
        n_steps = [replica.stage.n_steps for replica in replicas]
        for replica, key in zip(replicas, keys, strict=True):
            checkpoint.take_folder(replica.folder, key, replica.stage.n_steps)
        found = checkpoint.read_common([replica.folder for replica in replicas], keys, n_steps)
        running = [
            Running(replica, key, limits, one, mobile=mobile, velocities=velocities)
            for replica, key, one in zip(replicas, keys, found, strict=True)
        ]
        try:
            batch = _Batch(running, make_engine, record)
            batch.run(checkpoint_interval_s)
        finally:
            for one in running:
                one.writer.flush()
        return [one.replica.publish() if publish else one.replica.outcome() for one in running]


def _tell_doubtful(replicas: Sequence[Replica], keys: Sequence[str], mobile: str | None) -> None:
    """Say what is seldom meant: replicas that are one another's copy, and a mobile species that is nowhere."""
    firsts: dict[str, Path] = {}
    for replica, key in zip(replicas, keys, strict=True):
        first = firsts.setdefault(key, replica.trajectory)
        if first != replica.trajectory:
            say(
                f"{replica.trajectory} is the same run as {first} (start, momenta, settings): no sample of its own"
            )
    if mobile is not None and not any(mobile in replica.start.symbols for replica in replicas):
        say(f"no start has {mobile}: all atoms count as the host")


def take_over(replicas: Sequence[Replica], *, depends_on: Mapping[str, Any], batch: Path) -> None:
    """Put the trajectories that a batch left in work folders in their places.

    Raises
    ------
    InputError
        If a work folder has no such run, or one that is not over.
    """
    for replica in replicas:
        with held(replica.folder):
            key = replica.identity(depends_on)
            [found] = checkpoint.read_common([replica.folder], [key], [replica.stage.n_steps])
            over = found is not None and (found.ended or found.step == replica.stage.n_steps)
            if not (over and replica.written.is_file()):
                raise InputError(
                    f"{replica.folder} does not hold this run to its end, as it should after {batch}: remove that file "
                    "and start again"
                )
            replica.publish()


class _Batch:
    """The replicas that are still to be run, and the engine that moves them."""

    def __init__(
        self, running: Sequence[Running], make_engine: MakeEngine, record: Callable[[], Mapping[str, Any]]
    ) -> None:
        self.all = running
        self.record = record
        self.live = [one for one in running if not one.ended]
        self.n_first = len(self.live)
        self.moment = _moment_of(self.live)
        if len(running) > self.n_first:
            say(
                f"{len(running) - self.n_first} of {len(running)} runs were over already and are taken as they are (to "
                "run them again, remove their work folders)"
            )
        while self.live:
            try:
                self.engine = make_engine(
                    [one.start for one in self.live],
                    [one.replica.stage for one in self.live],
                    [one.saved for one in self.live],
                )
                break
            except SystemRefused as error:
                refused = self.live.pop(error.row)
                refused.refuse_start(str(error))
                refused.write_sidecar(self.record(), engine="none", n_batch=self.n_first)
                refused.write_checkpoint(Saved({}, {}), self.moment)

    def run(self, checkpoint_interval_s: float) -> None:
        """Advance all until each has ended; a line says how far they are."""
        if not self.live:
            return
        self.clock_s = time.monotonic()
        # the start is kept at once: then all that explode later have a step in common with the others
        last_s, over_s = -math.inf, stop_at_s(math.inf)
        stage = self.live[0].replica.stage
        left = max(one.n_steps - one.step for one in self.live)
        for _ in progress(count(), total=left, label=stage.ensemble, unit="steps", note=self._note):
            self._look()
            if not self.live:
                break
            now_s = time.monotonic()
            stop = "asked to stop" if asked_to_stop() else ""
            if now_s >= over_s:
                stop = "the job's time is nearly over"
            if stop or now_s - last_s >= checkpoint_interval_s:
                self._keep()
                last_s = time.monotonic()
            if stop:
                reached_ps = self.live[0].simulated_ps
                raise Stopped(f"{stop}, at {reached_ps:g} ps: the same command goes on from there")
            self._advance()
        for one in self.all:
            one.forget_earlier()

    def _look(self) -> None:
        """Write or refuse the frames that are due, and let go of replicas that have ended."""
        if not any(one.frame_is_due for one in self.live):
            return
        for one, now in zip(self.live, self.engine.snapshots(), strict=True):
            if one.frame_is_due:
                one.look(now)
        self._release()

    def _release(self) -> None:
        rows = [row for row, one in enumerate(self.live) if not one.ended]
        if len(rows) == len(self.live):
            return
        self._write([row for row, one in enumerate(self.live) if one.ended])
        if rows:
            self.engine.keep(rows)
        self.live = [self.live[row] for row in rows]

    def _advance(self) -> None:
        scales = [one.next_scale() / one.scale for one in self.live]
        try:
            if any(scale != 1.0 for scale in scales):
                self.engine.scale_cells(scales)
                for one in self.live:
                    one.scale = one.next_scale()
            self.engine.advance([one.target_temperature_K for one in self.live])
        except SystemRefused as error:
            self.live[error.row].refuse(str(error), self.engine.saved(error.row))
            self._release()
            return
        for one in self.live:
            one.step += 1
        self.moment = self.moment._replace(steps=self.moment.steps + 1)

    def _keep(self) -> None:
        """Write a checkpoint of every replica, then forget the ones before: a kill in between leaves either set."""
        self._write(range(len(self.live)))
        for one in self.all:
            one.forget_earlier()

    def _write(self, rows: Iterable[int]) -> None:
        self._spend_time()
        record = self.record()
        for row in rows:
            # in this order: with its last checkpoint a run is over, and nothing is written any more
            self.live[row].write_sidecar(record, engine=self.engine.name, n_batch=self.n_first)
            self.live[row].write_checkpoint(self.engine.saved(row), self.moment)

    def _spend_time(self) -> None:
        now_s = time.monotonic()
        for one in self.live:
            one.wall_s += now_s - self.clock_s
        self.clock_s = now_s

    def _note(self) -> str:
        if not self.live:
            return ""
        one = self.live[0]
        stage = one.replica.stage
        total_ps = one.n_steps * stage.timestep_fs / FS_PER_PS
        self._spend_time()
        told = f"{one.simulated_ps:.4g} of {total_ps:.4g} ps, {one.throughput_ns_per_day:.3g} ns/day"
        if self.n_first > 1:
            told += f" each of {len(self.live)} replicas"
        # going on amid a frame interval, none has been seen yet
        seen_K = [one.temperature_K for one in self.live if not math.isnan(one.temperature_K)]
        drifts = [one.watch.figures.get("energy_drift_meV_per_atom_per_ps", math.nan) for one in self.live]
        if seen_K:
            told += f"; T {min(seen_K):.0f} K" + (f" to {max(seen_K):.0f} K" if len(seen_K) > 1 else "")
        if not any(math.isnan(drift) for drift in drifts):
            told += f", drift {max(drifts, key=abs):.2g} meV/atom/ps" + (
                " at most" if len(drifts) > 1 else ""
            )
        return told


def _moment_of(live: Sequence[Running]) -> checkpoint.Moment:
    """Return when a batch goes on: where it was, if all come from one moment, else its beginning.

    Its name is made of who is in it and from which step each goes on.
    """
    moments = {one.moment for one in live}
    if len(moments) == 1 and (moment := moments.pop()) is not None:
        return moment
    members = sorted((one.key, one.step) for one in live)
    return checkpoint.Moment(hashlib.sha256(json.dumps(members).encode()).hexdigest(), 0)
