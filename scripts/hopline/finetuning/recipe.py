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


MEANINGS: Mapping[str, str] = {
    "epochs": "Passes over the training set.",
    "patience_epochs": "Epochs without a lower validation loss after which training stops.",
    "learning_rate": "Initial learning rate (of Adam).",
    "final_learning_rate_ratio": "Share of it that is left at the end; it falls exponentially (MACE) or by a cosine.",
    "batch_size": "Frames a step.",
    "loss": "Squared errors (mse), or a robust loss: universal (MACE) or huber (CHGNet).",
    "energy_weight": "Weight of the energy in the loss (errors in eV/atom).",
    "force_weight": "Weight of the forces in the loss (errors in eV/A).",
    "stress_weight": "Weight of the stress in the loss (errors in eV/A^3 for MACE, GPa for CHGNet).",
    "max_gradient_norm": "Longer gradients are cut to this norm.",
    "ema_decay": "Decay a step of the averaged weights that are validated and exported (MACE).",
    "weight_decay": "Weight decay of the optimizer (MACE).",
    "dtype": "Precision of the training and of the model that comes out of it (MACE; times: docs/potentials.md).",
    "atom_energies": "Reference energies (MACE): of the dataset's isolated atoms, or estimated from its frames.",
    "freeze": "What stays as in the parent (freeze): 5 embeddings and interactions, 6 products too.",
    "lora_rank": "Rank of the corrections (lora).",
    "lora_alpha": "Scale of the corrections, over their rank (lora).",
    "min_finetune_ratio": "Where labels are fewer than this share of the replay frames, they are repeated: at least up "
    "to it, at most to twice it; 0: never (MACE's replay).",
    "channels": "Channels of the messages (scratch).",
    "max_L": "Highest order of the messages (scratch).",
    "cutoff_A": "Cutoff radius, A (scratch).",
    "layers": "Message-passing layers (scratch).",
    "max_ell": "Highest order of the spherical harmonics of the edges (scratch).",
    "correlation": "Body order of a layer's messages less one (scratch).",
}
"""What each setting is, with its unit, for command lines; the config's schema begins its descriptions so (test)."""
CHOICES: Mapping[str, tuple[str | int, ...]] = {
    "loss": ("mse", "universal", "huber"),
    "dtype": ("float32", "float64"),
    "atom_energies": ("isolated", "estimated"),
    "freeze": (5, 6),
}
"""The values of settings that have few."""


@dataclass(frozen=True)
class Recipe:
    """Every setting of a training (`MEANINGS`); those that a strategy does not have are None."""

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
