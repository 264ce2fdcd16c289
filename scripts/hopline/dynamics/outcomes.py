"""How runs end: status, reason and figures, in a sidecar beside each trajectory."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hopline.provenance import read_sidecar

NOT_RUN = "not run, since "
"""Begins the reason of a run whose start was no good; what follows says which run went wrong, and how."""
OFFENDING = ".offending.extxyz"
"""In place of a trajectory's ``.h5``: the frame that ended the run, to be labelled and learned from."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``finished`` or ``exploded``, why, the figures that its checks saw, and how long it took.

    Its sidecar says more: provenance, memory, attempts; of a run that is not over yet it says ``interrupted``.
    """

    status: str
    reason: str
    checks: Mapping[str, float]
    simulated_ps: float
    throughput_ns_per_day: float

    @classmethod
    def of(cls, sidecar: Mapping[str, Any]) -> "Outcome":
        """Return what a sidecar says."""
        return cls(**{field.name: sidecar[field.name] for field in fields(cls)})

    def told(self) -> str:
        """Return it in one line."""
        return f"{self.status}, {self.reason}; {self.throughput_ns_per_day or 0:.3g} ns/day"


def why_exploded(trajectory: str | os.PathLike[str]) -> str | None:
    """Return which run went wrong, and how, where the one behind a trajectory is no ground to start from; else None.

    A run that was not run for this reason passes on the reason it was given: the first run that went wrong is named.
    """
    sidecar = read_sidecar(trajectory)
    if sidecar.get("status") != "exploded":
        return None
    reason = str(sidecar["reason"])
    return reason.removeprefix(NOT_RUN) if reason.startswith(NOT_RUN) else f"{trajectory} exploded {reason}"


def offending_of(trajectory: str | os.PathLike[str]) -> Path:
    """Return where the frame that ended an exploded run is kept."""
    return Path(trajectory).with_suffix(OFFENDING)
