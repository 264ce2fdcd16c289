"""simulate_replica.py with real potentials, stopped and killed in turn, ends as if unbroken, bit for bit."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from foundations import head_as_parent
from md_runs import contents
from small import rocksalt_lif, write_potential

from hopline import files, frames
from hopline.console import EXIT_TRY_AGAIN
from hopline.dynamics.protocol import draw_momenta, remove_total_momentum
from hopline.potentials import chgnet

SIGNALS = (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL)
NAMES = ("nve-1", "nve-2")
PATIENCE_S, LOOK_S, CHECKPOINT_INTERVAL_S = 400.0, 0.02, 0.1
DURATION_PS = {"chgnet": 0.1, "mace": 0.4}
"""Seconds: no signal comes after the end."""


@pytest.fixture(params=["chgnet", "mace"])
def family(request, tmp_path):
    """Write a card, of CHGNet as shipped (float32) or a small MACE (float64), and starts; return the family."""
    if request.param == "mace":
        head_as_parent(tmp_path)
    else:
        chgnet.export_weights("0.3.0", tmp_path / "model.pt", source=None, head=None)
        write_potential(tmp_path, tmp_path / "model.pt")
    for number, name in enumerate(NAMES):
        atoms = rocksalt_lif(seed=number)
        draw_momenta(atoms, 600.0, seed=number)
        remove_total_momentum(atoms)
        frames.write_frames(tmp_path / f"{name}.extxyz", [atoms])
    return request.param


def started(repository, folder, family):
    """Start the script on two replicas, one thread, its words in a file."""
    inputs = folder.parent
    flags = {
        "--start": [inputs / f"{name}.extxyz" for name in NAMES],
        "--potential": [inputs / "card.json"],
        "--temperature-K": [600],
        "--duration-ps": [DURATION_PS[family]],
        "--timestep-fs": [1],
        "--frame-interval-fs": [2],
        "--checkpoint-interval-s": [CHECKPOINT_INTERVAL_S],
        "--trajectory": [folder / f"{name}.h5" for name in NAMES],
    }
    words = [str(word) for flag, values in flags.items() for word in (flag, *values)]
    folder.mkdir(exist_ok=True)
    with (folder / "log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, repository / "scripts" / "simulate_replica.py", *words],
            stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def checkpoints(folder):
    """Return the names of all checkpoints, which grow with the steps."""
    return sorted(path.name for path in (folder / "work" / NAMES[-1]).glob("checkpoint-*.npz"))


@pytest.mark.slow
def test_stopped_and_killed_in_turn_it_ends_as_if_unbroken(repository, tmp_path, family):
    rng = random.Random(family)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert started(repository, whole, family).wait(PATIENCE_S) == 0, (whole / "log").read_text()
    for number in SIGNALS:
        before = checkpoints(cut)
        process = started(repository, cut, family)
        try:
            deadline_s = time.monotonic() + PATIENCE_S
            # a checkpoint of its own: then it runs, and goes on elsewhere than it began
            while checkpoints(cut)[-1:] == before[-1:]:
                assert process.poll() is None, (cut / "log").read_text()
                assert time.monotonic() < deadline_s, (cut / "log").read_text()
                time.sleep(LOOK_S)
            time.sleep(rng.uniform(0.0, 2.0 * CHECKPOINT_INTERVAL_S))
            process.send_signal(number)
            status = process.wait(PATIENCE_S)
        finally:
            process.kill()
            process.wait()
        # MACE's packages say a few things before
        said = (cut / "log").read_text().splitlines()
        stops = [line for line in said if line.startswith("asked to stop")]
        if number == signal.SIGTERM:
            assert status == EXIT_TRY_AGAIN
            assert said[-1:] == stops, said
        else:
            assert status == -signal.SIGKILL
            assert not stops
        assert not [path for path in cut.iterdir() if path.name not in {"work", "log"}]
        assert checkpoints(cut)
    assert started(repository, cut, family).wait(PATIENCE_S) == 0, (cut / "log").read_text()
    for name in NAMES:
        assert contents(cut / f"{name}.h5") == contents(whole / f"{name}.h5")
        cut_says, whole_says = (files.read_json(folder / f"{name}.json") for folder in (cut, whole))
        assert cut_says["checks"] == whole_says["checks"]
        assert (cut_says["status"], whole_says["status"]) == ("finished", "finished")
        assert (cut_says["attempts"], whole_says["attempts"]) == (len(SIGNALS) + 1, 1)
