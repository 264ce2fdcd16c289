"""Training recipes: every setting of a training, and which of them mean something to which strategy."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from hopline.console import InputError

COMMON = (
    "epochs", "learning_rate", "final_learning_rate_ratio", "batch_size", "loss", "energy_weight", "force_weight",
    "stress_weight", "max_gradient_norm", "patience_epochs",
)  # fmt: skip
MACE = (*COMMON, "ema_decay", "weight_decay", "dtype", "atom_energies")
ARCHITECTURE = ("channels", "max_L", "cutoff_A", "layers", "max_ell", "correlation")
SETTINGS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("mace", "scratch"): (*MACE, *ARCHITECTURE),
    ("mace", "naive"): MACE,
    ("mace", "freeze"): (*MACE, "freeze"),
    ("mace", "lora"): (*MACE, "lora_rank", "lora_alpha"),
    ("mace", "replay"): (*MACE, "min_finetune_ratio"),
    ("mace", "pseudolabel-replay"): (*MACE, "min_finetune_ratio"),
    ("chgnet", "naive"): COMMON,
    ("chgnet", "frozen-embeddings"): COMMON,
    ("chgnet", "mixed-replay"): COMMON,
}
"""The settings of each family and strategy: all of these, and none besides, since another would do nothing."""


@dataclass(frozen=True)
class Recipe:
    """Every setting of a training; those that a strategy does not have are None.

    ``loss`` is ``mse``, or a robust one: MACE's ``universal``, CHGNet's ``huber``. The learning rate falls to
    ``final_learning_rate_ratio`` of its start, exponentially (MACE) or along a cosine (CHGNet). Training stops after
    ``patience_epochs`` epochs without a lower validation loss. ``atom_energies`` are ``isolated`` or ``estimated`` (see
    `references`). ``freeze`` is MACE's number: 5 freezes embeddings and
    interactions, 6 the products too. ``min_finetune_ratio``: where the labels are fewer than this share of the replay
    frames, they are repeated up to it.
    """

    epochs: int
    learning_rate: float
    final_learning_rate_ratio: float
    batch_size: int
    loss: str
    energy_weight: float
    force_weight: float
    stress_weight: float
    max_gradient_norm: float
    patience_epochs: int
    ema_decay: float | None = None
    weight_decay: float | None = None
    dtype: str | None = None
    atom_energies: str | None = None
    freeze: int | None = None
    lora_rank: int | None = None
    lora_alpha: float | None = None
    min_finetune_ratio: float | None = None
    channels: int | None = None
    max_L: int | None = None
    cutoff_A: float | None = None
    layers: int | None = None
    max_ell: int | None = None
    correlation: int | None = None


def make_recipe(family: str, strategy: str, settings: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a family and strategy; settings that are missing or would do nothing are refused."""
    wanted = SETTINGS.get((family, strategy))
    if wanted is None:
        there_are = ", ".join(f"{name} {way}" for name, way in SETTINGS)
        raise InputError(f"there is no way to train {family} with strategy {strategy}; there are {there_are}")
    missing = [name for name in wanted if name not in settings]
    if missing:
        raise InputError(f"strategy {strategy} of {family} needs the settings {', '.join(missing)}")
    useless = [name for name in settings if name not in wanted]
    if useless:
        raise InputError(
            f"settings {', '.join(useless)} do nothing for strategy {strategy} of {family}: leave them out"
        )
    return Recipe(**settings)


def as_dict(recipe: Recipe) -> dict[str, Any]:
    """Return the settings that mean something, for a card."""
    return {name: value for name, value in asdict(recipe).items() if value is not None}


def setting_types() -> dict[str, type]:
    """Return the type of each setting, for a command line."""
    kinds = {"int": int, "float": float, "str": str}
    return {
        one.name: kinds[str(getattr(one.type, "__name__", one.type)).split()[0]] for one in fields(Recipe)
    }
