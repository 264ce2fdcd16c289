"""Flags that several molecular-dynamics scripts share, spelt once, and those of a training's settings."""

import argparse
from pathlib import Path

from hopline.dynamics import checks, protocol
from hopline.finetuning import recipe as recipes


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add what every run needs: potential, temperature, length, timestep, output."""
    parser.add_argument("--potential", type=Path, required=True, help="card.json of the potential")
    parser.add_argument("--temperature-K", type=float, required=True, help="temperature, K")
    parser.add_argument("--duration-ps", type=float, required=True, help="length, ps")
    parser.add_argument("--timestep-fs", type=float, required=True, help="timestep, fs")
    parser.add_argument("--trajectory", type=Path, required=True, help="H5MD to write; its sidecar is .json")


def add_thermostat(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a Langevin run."""
    parser.add_argument("--frame-interval-fs", type=float, required=True, help="time between frames, fs")
    parser.add_argument("--friction-per-ps", type=float, required=True, help="Langevin friction, 1/ps")
    parser.add_argument("--seed", type=int, required=True, help="seed of momenta and thermostat")


def add_barostat(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a constant-pressure run."""
    parser.add_argument("--pressure-GPa", type=float, required=True, help="pressure, GPa")
    parser.add_argument("--barostat-time-fs", type=float, required=True, help="barostat time, fs")


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add the limits at which a run counts as exploded."""
    default = checks.Limits()
    group = parser.add_argument_group("limits at which the run counts as exploded")
    for name, meaning in (
        ("max_temperature_ratio", "largest instantaneous over target temperature"),
        ("min_distance_A", "smallest interatomic distance, A"),
        ("max_force_eV_per_A", "largest force on an atom, eV/A"),
        ("max_volume_ratio", "largest volume over starting volume"),
    ):
        flag, value = "--" + name.replace("_", "-"), getattr(default, name)
        group.add_argument(flag, type=float, default=value, help=f"{meaning} (default {value:g})")


def limits(args: argparse.Namespace) -> checks.Limits:
    """Return the limits given on the command line."""
    return checks.Limits(**{name: getattr(args, name) for name in checks.Limits.__dataclass_fields__})


def stage(args: argparse.Namespace, ensemble: str) -> protocol.Stage:
    """Return the stage given on the command line."""
    names = set(protocol.Stage.__dataclass_fields__) & set(vars(args)) - {"ensemble"}
    return protocol.Stage(ensemble=ensemble, **{name: getattr(args, name) for name in names})


def add_training(parser: argparse.ArgumentParser) -> None:
    """Add the settings of a training."""
    group = parser.add_argument_group(
        "training settings",
        "All that the strategy has and no other; published ones: resources/presets/training.yaml.",
    )
    for name, kind in recipes.setting_types().items():
        group.add_argument(
            "--" + name.replace("_", "-"),
            type=kind,
            choices=recipes.CHOICES.get(name),
            help=recipes.MEANINGS[name],
        )


def recipe(args: argparse.Namespace) -> recipes.Recipe:
    """Return the recipe of the family, strategy and settings given on the command line."""
    given = {name: getattr(args, name) for name in recipes.setting_types()}
    settings = {name: value for name, value in given.items() if value is not None}
    return recipes.make_recipe(args.family, args.strategy, settings)
