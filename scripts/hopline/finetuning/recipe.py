"""Training recipes: presets by family and strategy, and the history that every trainer leaves."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from hopline.console import InputError

HISTORY = (
    "epoch",
    "wall_time_s",
    "train_loss",
    "valid_energy_rmse_meV_per_atom",
    "valid_force_rmse_meV_per_A",
)
"""Columns of training.csv."""


@dataclass(frozen=True)
class Recipe:
    """Every setting of a training; the last six belong to MACE architectures trained from scratch."""

    epochs: int
    learning_rate: float
    batch_size: int
    energy_weight: float
    force_weight: float
    stress_weight: float
    channels: int = 0
    max_L: int = 0
    cutoff_A: float = 0.0
    layers: int = 0
    max_ell: int = 0
    correlation: int = 0


PRESETS = {
    # CHGNet's loss takes eV/atom, eV/A and GPa: with its own weights (1, 1, 0.1) the stresses of hot frames outweigh
    # the forces, which are what dynamics needs
    ("chgnet", "naive"): Recipe(
        epochs=20, learning_rate=2e-3, batch_size=2, energy_weight=1.0, force_weight=30.0, stress_weight=0.1
    ),
    # MACE's guidance for training from scratch: learning rate 1e-2, EMA 0.99, gradients clipped at 10, its own
    # max_ell and correlation. Little weight on the energy: what forces leave open between compositions is a constant,
    # and that is set after the training; enough on the stress for a pressure that means something
    ("mace", "scratch"): Recipe(
        epochs=200, learning_rate=1e-2, batch_size=5, energy_weight=0.05, force_weight=10.0, stress_weight=100.0,
        channels=16, max_L=0, cutoff_A=4.5, layers=2, max_ell=3, correlation=3,
    ),
}  # fmt: skip


def make_recipe(family: str, strategy: str, changes: Mapping[str, Any]) -> Recipe:
    """Return the preset of a family and strategy with the user's changes."""
    preset = PRESETS.get((family, strategy))
    if preset is None:
        there_are = ", ".join(f"{name} {way}" for name, way in PRESETS)
        raise InputError(f"there is no way to train {family} with strategy {strategy}; there are {there_are}")
    unknown = set(changes) - {field.name for field in fields(Recipe)}
    if unknown:
        raise InputError(f"training settings {', '.join(sorted(unknown))} are not known")
    return replace(preset, **changes)


def as_dict(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe for a card."""
    return asdict(recipe)
