"""Flags of a training's settings."""

import argparse

from hopline.finetuning import recipe as recipes


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
