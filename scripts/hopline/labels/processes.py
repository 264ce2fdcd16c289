"""A program run in a folder of its own: started, watched, asked to stop in time, and ended with this process."""

import ctypes
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hopline.stopping import asked_to_stop

STOP_GRACE_S = 60.0
"""DFT codes look for their stop file after a step: under a second in small cells, a minute in large ones."""
TERMINATION_GRACE_S = 10.0
POLL_S = 0.2
SET_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux's prctl(2)."""


def watch(
    command: Sequence[str],
    folder: Path,
    *,
    output: Path,
    stop: Callable[[], object],
    stop_at_s: float,
    give_up_at_s: float = math.inf,
    checkpoint_at_s: float = math.inf,
) -> int:
    """Run a program in a folder, what it prints going to a file, and return its exit status.

    At a signal or at ``stop_at_s`` the program is asked to ``stop`` in its own way and ended if it takes too long; at
    ``give_up_at_s`` it is ended at once; at ``checkpoint_at_s`` it is asked to ``stop`` and may take its time. Times
    are on the monotonic clock. If this process dies, so does the program: two runs would spoil each other.
    """
    # Snakemake sets a job's cores as threads; beside MPI ranks they would be taken twice
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with output.open("wb") as file:
        # a session of its own: Ctrl-C is meant for this process, which knows how to stop the program
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=_die_with_parent,  # noqa: PLW1509  one thread, one call to the kernel
        )  # fmt: skip
        try:
            while process.poll() is None:
                now_s = time.monotonic()
                if asked_to_stop() or now_s >= stop_at_s:
                    stop()
                    if not _wait(process, STOP_GRACE_S):
                        _end(process)
                elif now_s >= give_up_at_s:
                    _end(process)
                elif now_s >= checkpoint_at_s:
                    stop()
                _wait(process, POLL_S)
        except BaseException:
            _end(process)
            raise
    return process.returncode


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ask politely first: mpirun passes SIGTERM on to its ranks, but cannot pass on SIGKILL."""
    process.terminate()
    if not _wait(process, TERMINATION_GRACE_S):
        process.kill()
        process.wait()
