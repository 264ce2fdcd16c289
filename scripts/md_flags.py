"""Flags that the molecular-dynamics scripts share, spelt once, and the batch of replicas that they ask for."""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from hopline.console import InputError
from hopline.dynamics import checkpoint, checks, stage
from hopline.dynamics.engine import ENGINES
from hopline.potentials.card import ACCELERATIONS

OF_SEEDS = "one each, or one from which each start gets its own"


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add what every run needs: starts, potential, temperatures, length, timestep, outputs, engine."""
    group = parser.add_argument_group(
        "batch", "replicas that advance together: as many starts as trajectories"
    )
    group.add_argument(
        "--start", type=Path, nargs="+", required=True, help="structure to start from (extended XYZ)"
    )
    group.add_argument(
        "--trajectory", type=Path, nargs="+", required=True,
        help="H5MD to write; its sidecar is .json; it grows in the folder work beside it",
    )  # fmt: skip
    group.add_argument(
        "--temperature-K", type=float, nargs="+", required=True, help="K; one for all, or one each"
    )
    group.add_argument(
        "--write-batch",
        type=Path,
        help="leave the trajectories in their work folders and write here how they ended",
    )
    group.add_argument(
        "--from-batch", type=Path, help="run nothing: take what the run that wrote this file left"
    )
    parser.add_argument("--potential", type=Path, required=True, help="card.json of the potential")
    parser.add_argument("--duration-ps", type=float, required=True, help="length, ps")
    parser.add_argument("--timestep-fs", type=float, required=True, help="timestep, fs")
    parser.add_argument("--mobile", help="mobile species; the others are the host, which must not melt")
    parser.add_argument(
        "--engine", choices=ENGINES, default=ENGINES[0], help=f"what moves the atoms (default {ENGINES[0]})"
    )
    parser.add_argument(
        "--accelerate",
        choices=ACCELERATIONS,
        default=ACCELERATIONS[0],
        help="a faster model, where there is CUDA",
    )
    parser.add_argument(
        "--checkpoint-interval-s", type=float, default=checkpoint.INTERVAL_S,
        help=f"a killed run loses less than this (default {checkpoint.INTERVAL_S:g})",
    )  # fmt: skip


def add_thermostat(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a run at a temperature."""
    parser.add_argument("--frame-interval-fs", type=float, required=True, help="time between frames, fs")
    parser.add_argument("--friction-per-ps", type=float, required=True, help="Langevin friction, 1/ps")
    parser.add_argument(
        "--seed", type=int, nargs="+", required=True, help=f"of momenta and noise; {OF_SEEDS}"
    )


def add_nvt(parser: argparse.ArgumentParser) -> None:
    """Add the choice of a thermostat."""
    default = stage.THERMOSTATS[0]
    parser.add_argument(
        "--thermostat", choices=stage.THERMOSTATS, default=default, help=f"(default {default})"
    )
    parser.add_argument(
        "--thermostat-time-fs", type=float, default=100.0, help="of nose-hoover, fs (default 100)"
    )


def add_barostat(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a constant-pressure run."""
    default = stage.BAROSTATS[0]
    parser.add_argument("--pressure-GPa", type=float, required=True, help="pressure, GPa")
    parser.add_argument("--barostat", choices=stage.BAROSTATS, default=default, help=f"(default {default})")
    parser.add_argument(
        "--barostat-time-fs", type=float, required=True, help="relaxation time of the volume, fs"
    )
    parser.add_argument(
        "--barostat-friction-per-ps", type=float, help="of langevin-piston, 1/ps (default: critically damped)"
    )


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add the limits at which a run counts as exploded."""
    default = checks.Limits()
    group = parser.add_argument_group("limits at which the run counts as exploded (inf: no limit)")
    for name, meaning in (
        ("max_temperature_ratio", "largest instantaneous over target temperature"),
        ("min_distance_A", "smallest interatomic distance, A"),
        ("max_force_eV_per_A", "largest force on an atom, eV/A"),
        ("max_volume_ratio", "largest volume over starting volume"),
        ("max_energy_jump_eV_per_atom", "largest change of the total energy between two frames, eV/atom"),
        ("max_host_displacement_ratio", "largest rms displacement of the host's atoms over their spacing"),
        ("max_energy_drift_meV_per_atom_per_ps", "NVE: largest drift of the total energy, meV/atom/ps"),
        ("max_heating_share", "NVE: largest drift of the total energy over 3 kT an atom"),
        ("max_drift_over_fluctuation", "NVE: largest drift over the kinetic energy's standard deviation"),
    ):
        flag, value = "--" + name.replace("_", "-"), getattr(default, name)
        group.add_argument(flag, type=float, default=value, help=f"{meaning} (default {value:g})")


def limits(args: argparse.Namespace) -> checks.Limits:
    """Return the limits given on the command line."""
    return checks.Limits(**{name: getattr(args, name) for name in checks.Limits.__dataclass_fields__})


def asked(args: argparse.Namespace, ensemble: str) -> list[tuple[Path, stage.Stage, Path]]:
    """Return what the command line asks of each replica: start, stage, and the trajectory to write."""
    _refuse_names(args.trajectory)
    n_replicas = len(args.trajectory)
    names = set(stage.Stage.__dataclass_fields__) & set(vars(args)) - {"ensemble"}
    given = {name: getattr(args, name) for name in sorted(names)}
    if len(args.seed) == 1:
        given["seed"] = stage.own_seeds(args.seed[0], n_replicas)
    each = {
        name: one_each(name, values if isinstance(values, list) else [values], n_replicas)
        for name, values in given.items()
    }
    stages = [
        stage.Stage(ensemble=ensemble, **{name: values[row] for name, values in each.items()})
        for row in range(n_replicas)
    ]
    return list(zip(one_each("start", args.start, n_replicas), stages, args.trajectory, strict=True))


def _refuse_names(trajectories: list[Path]) -> None:
    """Refuse a trajectory named twice, and one of another suffix: its sidecar could be another's."""
    counts = Counter(path.resolve() for path in trajectories)
    for path in trajectories:
        if path.suffix != ".h5":
            raise InputError(f"--trajectory {path}: H5MD is written, call it {path.with_suffix('.h5').name}")
        if counts[path.resolve()] > 1:
            raise InputError(f"--trajectory {path} is there twice: name each run once")


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return what `runs.run` needs to know besides the replicas."""
    names = (
        "potential",
        "engine",
        "accelerate",
        "mobile",
        "checkpoint_interval_s",
        "write_batch",
        "from_batch",
    )
    return {"limits": limits(args), **{name: getattr(args, name) for name in names}}


def one_each(name: str, values: list[Any], n_replicas: int) -> list[Any]:
    """Return a value for each replica; one value is for all."""
    if len(values) not in {1, n_replicas}:
        flag = "--" + name.replace("_", "-")
        raise InputError(
            f"{flag} has {len(values)} values for {n_replicas} trajectories: give one, or one each"
        )
    return values * (n_replicas // len(values))
