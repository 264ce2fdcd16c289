"""Being asked to stop: by a signal (Slurm, Snakemake, Ctrl-C), or because the time a job was given is nearly over."""

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

MARGIN_S, MARGIN_FRACTION = 120.0, 0.1
SLURM_END = "SLURM_JOB_END_TIME"
"""Slurm says in this variable when a job's time is over, in seconds of Unix time."""


class _Asked:
    """Whether somebody asked the process to stop."""

    by: signal.Signals | None = None


@contextmanager
def stoppable() -> Iterator[None]:
    """Make SIGTERM (Slurm, Snakemake) and SIGINT (Ctrl-C) a request to stop, see `asked_to_stop`."""

    def ask(number: int, _: FrameType | None) -> None:
        _Asked.by = signal.Signals(number)

    _Asked.by = None
    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        _Asked.by = None
        for number, handler in before.items():
            signal.signal(number, handler)


def asked_to_stop() -> bool:
    """Tell whether a signal came since `stoppable` began."""
    return _Asked.by is not None


def stop_at_s(max_seconds: float) -> float:
    """Return when work must stop, on the monotonic clock: a little before ``max_seconds`` or Slurm's time are over."""
    left_s = min(max_seconds, float(os.environ.get(SLURM_END, math.inf)) - time.time())
    return time.monotonic() + left_s - min(MARGIN_S, MARGIN_FRACTION * left_s)
