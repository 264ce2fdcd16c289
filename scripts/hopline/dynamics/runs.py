"""Runs with a potential from its card: what scripts call."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator

from hopline.console import InputError, say
from hopline.dynamics.checks import Limits
from hopline.dynamics.engine import Engine, Saved
from hopline.dynamics.replica import Replica
from hopline.dynamics.simulation import simulate, take_over
from hopline.dynamics.stage import Stage
from hopline.files import read_json, sha256, write_json


def run(
    replicas: Sequence[Replica],
    limits: Limits,
    *,
    potential: Path,
    engine: str,
    accelerate: str,
    mobile: str | None,
    checkpoint_interval_s: float,
    record: Callable[[], Mapping[str, Any]],
    velocities: bool = False,
    write_batch: Path | None = None,
    from_batch: Path | None = None,
) -> None:
    """Run replicas with the potential of a card (``potential``), see `simulation.simulate`.

    With ``write_batch`` the trajectories stay in their work folders, and how they ended is written there; a run of one
    of them with ``from_batch`` runs nothing and puts it in its place.
    """

    def loaded(starts: Sequence[Atoms], stages: Sequence[Stage], saved: Sequence[Saved | None]) -> Engine:
        from hopline.potentials.calculator import load_calculator

        calculator = load_calculator(potential, accelerate=accelerate)
        return make_engine(starts, stages, saved, calculator=calculator, engine=engine)

    depends_on = {
        "engine": engine,
        "accelerate": accelerate,
        "potential_sha256": sha256(potential),
        "velocities": velocities,
        "mobile": mobile,
    }
    if from_batch is not None:
        if "runs" not in read_json(from_batch):
            raise InputError(f"{from_batch} is not what a batch writes with --write-batch")
        take_over(replicas, depends_on=depends_on, batch=from_batch)
        return
    outcomes = simulate(
        replicas,
        loaded,
        limits,
        mobile=mobile,
        velocities=velocities,
        checkpoint_interval_s=checkpoint_interval_s,
        depends_on=depends_on,
        record=record,
        publish=write_batch is None,
    )
    if write_batch is not None:
        ended = {
            str(replica.trajectory): {"status": outcome.status, "reason": outcome.reason}
            for replica, outcome in zip(replicas, outcomes, strict=True)
        }
        write_json(write_batch, {"runs": ended, "provenance": record()})
        say(f"{write_batch}: {len(ended)} runs")


def make_engine(
    starts: Sequence[Atoms],
    stages: Sequence[Stage],
    saved: Sequence[Saved | None],
    *,
    calculator: Calculator,
    engine: str,
) -> Engine:
    """Return an engine with a calculator."""
    if engine == "ase":
        from hopline.dynamics.ase_engine import AseEngine

        return AseEngine(starts, stages, saved, calculator=calculator)
    from hopline.dynamics.batched_engine import BatchedEngine

    return BatchedEngine(starts, stages, saved, calculator=calculator)
