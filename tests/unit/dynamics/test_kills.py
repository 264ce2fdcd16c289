"""SIGKILL loses no work: runs killed at random instants and at changes to their files end as if unbroken.

Each attempt is a process of its own, forked off this one, and ends by SIGKILL or at its end. Trajectories and the
figures of the checks are compared bit for bit. A kill is not the loss of a node: what a process wrote survives it
whether or not the disk has it. That the disk has it in time is fsync's doing, in the order that the modules state.
"""

import dataclasses
import math
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from md_runs import ENSEMBLES, NO_LIMITS, VARIANTS, Argon, batch, calculator_of, contents, same, stage
from model_systems import LennardJonesBatch, argon_model

from hopline import trajectory_writer
from hopline.dynamics import ase_engine, batched_engine  # noqa: F401  once, not in each fork
from hopline.dynamics.checks import Limits
from hopline.dynamics.stage import BAROSTATS, THERMOSTATS
from hopline.dynamics.stage import ENSEMBLES as KINDS
from hopline.trajectory_writer import STEPS

KILLS = 8
"""Of each variant at random instants."""
STRIDE = 4
"""Of all changes to files one in so many is killed at; with 1 (each of them, minutes) the test passes too."""
N_REPLICAS = 2
PATIENCE_S = 300.0
CHECKPOINT_INTERVALS_S = (0.0, 0.01, 0.05)
"""From one a step, where most kills come amid a checkpoint, to less than one an attempt."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
PAGE = os.sysconf("SC_PAGESIZE")
CHANGES = ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.utime")
"""What else changes files, as Python's audit events name it; each is told before it is done."""


@pytest.fixture(autouse=True)
def a_flush_every_third_frame(monkeypatch):
    """Let frames reach the file between checkpoints too."""
    monkeypatch.setattr(trajectory_writer, "FRAMES_PER_FLUSH", 3)


@pytest.fixture
def tmp_path(tmp_path):
    """Return a folder in memory where the machine has one: on a disk most of the time is waiting for fsync."""
    memory = Path("/dev/shm")  # noqa: S108
    parent = memory if os.access(memory, os.W_OK) else tmp_path
    with tempfile.TemporaryDirectory(dir=parent, prefix="kills-") as folder:
        yield Path(folder)


class Attempt:
    """A process of its own that does some work; ``told`` is sent by the work."""

    def __init__(self, work, log):
        self.log = log
        self.told, sender = multiprocessing.Pipe(duplex=False)
        self.process = multiprocessing.get_context("fork").Process(target=self._work, args=(work, sender))
        self.process.start()
        sender.close()

    def _work(self, work, sender):
        with self.log.open("w") as log:
            os.dup2(log.fileno(), sys.stderr.fileno())
            torch.set_num_threads(1)  # threads do not survive a fork
            try:
                work(sender.send)
            except BaseException:
                traceback.print_exc(file=log)
                raise

    def ended(self):
        """Wait for the end; return whether it was by SIGKILL, any other but a good one fails."""
        self.process.join(PATIENCE_S)
        assert self.process.exitcode in {0, -signal.SIGKILL}, self.log.read_text()
        return self.process.exitcode == -signal.SIGKILL

    def killed_after(self, delay_s):
        """Kill it so long after its first force call; return whether it was killed before its end."""
        wait([self.told, self.process.sentinel], PATIENCE_S)
        time.sleep(delay_s)
        self.process.kill()
        return self.ended()


def running(folder, engine, asked, **settings):
    """Return work: the batch, which tells when the first force call comes."""

    def work(tell):
        calculator = calculator_of(engine, {1: lambda *_: tell("first force call")})
        batch(folder, asked, calculator, n=N_REPLICAS, engine=engine, **settings)

    return work


def begins_as(folder, whole):
    """Check that what has been written so far opens, and is the beginning of the unbroken run."""
    for number in range(N_REPLICAS):
        path = folder / "work" / f"{number}" / f"{number}.h5"
        if not path.exists():
            continue
        with h5py.File(path) as file, h5py.File(whole / f"{number}.h5") as other:
            n_frames = len(file[STEPS])
            for name in contents(whole / f"{number}.h5"):
                np.testing.assert_array_equal(file[name][:n_frames], other[name][:n_frames])


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "name"), VARIANTS)
def test_killed_at_random_instants_it_ends_as_if_unbroken(tmp_path, engine, name):
    """The instants are seeded, what they meet is the machine's; a run that ends between kills is begun again."""
    rng = random.Random(f"{engine} {name}")
    asked, whole = dataclasses.replace(ENSEMBLES[name], duration_ps=0.2), tmp_path / "whole"
    unbroken = Attempt(running(whole, engine, asked, checkpoint_interval_s=0.01), tmp_path / "log")
    unbroken.told.recv()
    started_s = time.monotonic()
    assert not unbroken.ended()
    whole_s = time.monotonic() - started_s
    kills, attempts, folders = 0, 0, []
    while kills < KILLS:
        folders.append(tmp_path / f"{len(folders)}")
        was_killed, kills_before = True, kills
        while was_killed:
            interval_s = rng.choice(CHECKPOINT_INTERVALS_S)
            attempt = Attempt(
                running(folders[-1], engine, asked, checkpoint_interval_s=interval_s), tmp_path / "log"
            )
            attempts += 1
            if kills < KILLS:
                was_killed = attempt.killed_after(rng.uniform(0.0, 0.25 * whole_s))
                kills += was_killed
            else:
                was_killed = attempt.ended()
                assert not was_killed
            begins_as(folders[-1], whole)
        assert kills > kills_before or len(folders) < 10 * KILLS, "every attempt ended before its kill"
        same(whole, folders[-1], n=N_REPLICAS)
    print(f"{kills} kills in {attempts} attempts at {len(folders)} runs")
    assert kills == KILLS


def test_that_is_fifty_kills_over_all_that_a_stage_may_ask_for():
    assert len(VARIANTS) * KILLS >= 50
    assert {asked.ensemble for asked in ENSEMBLES.values()} == set(KINDS)
    assert {asked.thermostat for asked in ENSEMBLES.values()} == set(THERMOSTATS)
    assert {asked.barostat for asked in ENSEMBLES.values()} == set(BAROSTATS)
    assert any(asked.sweeps for asked in ENSEMBLES.values())
    assert any(asked.temperature_last_K for asked in ENSEMBLES.values())
    assert {name for _, name in VARIANTS} == set(ENSEMBLES)


class Instants:
    """Counts the changes that this process makes to files, and kills it before the ``last``.

    If that is a write to a trajectory it is amid it, where Linux looks for kills: between two pages. Nothing waits for
    the disk: a kill does not lose what the system holds.
    """

    def __init__(self, last):
        self.last, self.count = last, 0
        self.pwrite = os.pwrite
        os.pwrite, os.fsync = self._write, lambda _: self._come()
        sys.addaudithook(self._hear)

    def _hear(self, event, arguments):
        if event in CHANGES or (event == "open" and arguments[2] & WRITING):
            self._come()

    def _write(self, descriptor, data, place):
        if self.count + 1 >= self.last:
            n_whole = (place + len(data)) // PAGE * PAGE - place
            self.pwrite(descriptor, data[: max(0, n_whole)], place)
        self._come()
        return self.pwrite(descriptor, data, place)

    def _come(self):
        self.count += 1
        if self.count >= self.last:
            os.kill(os.getpid(), signal.SIGKILL)


class Coupled(LennardJonesBatch):
    """Argon that feels, as rounding lets real models, in its last bits who else is in the batch and where."""

    def compute(self, positions_A, cells_A, *, stress):
        """Compute, a little off."""
        found = super().compute(positions_A, cells_A, stress=stress)
        off = 1.0 + 1e-12 * positions_A.sum() * len(cells_A)
        return dataclasses.replace(found, forces_eV_per_A=found.forces_eV_per_A * off)


def runs(folder, *batches, last=math.inf, **settings):
    """Return work: batches (stage, number of replicas), the last killed at an instant; it tells how many there were."""

    def work(tell):
        for number, (asked, n) in enumerate(batches, start=1):
            if number == len(batches):
                instants = Instants(last)
            batch(folder, asked, Argon(model=partial(argon_model, Coupled)), n=n, **settings)
        tell(instants.count)

    return work


SHORT, LONG = (stage("nvt", duration_ps=0.002 * n_steps, frame_interval_fs=2.0) for n_steps in (1, 2))
"""A frame every step."""


def hot_limits(folder):
    """Return limits that one of the replicas meets on its way and the other does not."""
    outcomes = batch(folder, LONG, Argon(model=partial(argon_model, Coupled)), n=N_REPLICAS)
    largest = [outcome.checks["max_force_eV_per_A"] for outcome in outcomes]
    return dataclasses.replace(NO_LIMITS, max_force_eV_per_A=sum(largest) / 2)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["new", "longer", "grown", "exploding"])
def test_killed_at_changes_to_its_files_it_ends_as_if_unbroken(tmp_path, case):
    """Checkpoints (one a step), flushes, sidecars, publishing; the second attempt is killed too, somewhere.

    A batch that has grown goes on from different steps of its replicas.
    """
    rng = random.Random(case)
    earlier = {"longer": [(SHORT, N_REPLICAS)], "grown": [(SHORT, 1)]}.get(case, [])
    asked = (LONG, N_REPLICAS)
    limits = hot_limits(tmp_path / "unwatched") if case == "exploding" else Limits()
    settings = {"checkpoint_interval_s": 0.0, "limits": limits}
    log, whole = tmp_path / "log", tmp_path / "whole"
    counted = Attempt(runs(whole, *earlier, asked, **settings), log)
    assert not counted.ended()
    n_instants = counted.told.recv()
    assert not Attempt(runs(tmp_path / "short", (SHORT, N_REPLICAS), **settings), log).ended()
    kills = 0
    instants = range(1 + rng.randrange(STRIDE), n_instants + 1, STRIDE)
    for instant in instants:
        folder = tmp_path / f"{instant}"
        assert Attempt(runs(folder, *earlier, asked, last=instant, **settings), log).ended()
        kills += 1
        begins_as(folder, whole)
        published = [folder / f"{number}.h5" for number in range(N_REPLICAS)]
        if case == "longer":
            for path in published:
                known = [contents(other / path.name) for other in (tmp_path / "short", whole)]
                assert contents(path) in known
        again = Attempt(runs(folder, asked, last=rng.randint(1, n_instants // 2), **settings), log)
        kills += again.ended()
        begins_as(folder, whole)
        assert not Attempt(runs(folder, asked, **settings), log).ended()
        same(whole, folder, n=N_REPLICAS)
    print(f"{kills} kills at {len(instants)} of {n_instants} instants")
