"""The potential card: what a model file is made of. Every later stage takes a card, never bare weights."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hopline.console import InputError
from hopline.files import read_json, sha256, write_json

NOT_ACCELERATED = "none"
ACCELERATIONS = (NOT_ACCELERATED, "cuequivariance", "compile")
"""Ways to a faster model on a GPU; all give the same numbers but for rounding."""


@dataclass(frozen=True)
class Card:
    """What a potential is made of.

    ``model_file`` is a path relative to the card. ``atom_energies_eV`` maps chemical symbols to the reference
    energies in use (eV), empty where the family keeps its own. ``recipe`` holds every training setting, ``frames``
    the number of frames by role (train, valid, replay, ...), ``proofs`` the figures of what was checked about the
    training (`finetuning.guards`).
    """

    name: str
    family: str
    model_file: str
    model_sha256: str
    dtype: str
    head: str | None = None
    parent_card_sha256: str | None = None
    dataset_sha256: str | None = None
    replay_sha256: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    frames: Mapping[str, int] = field(default_factory=dict)
    proofs: Mapping[str, Any] = field(default_factory=dict)
    atom_energies_eV: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def refuse_apart(model_file: Path, card_path: Path) -> None:
    """Refuse a model file outside its card's folder, before any work is done: a card names its model beside it."""
    if model_file.parent.resolve() != card_path.parent.resolve():
        raise InputError(f"model and card must be in one folder, got {model_file} and {card_path}")


def write_card(path: str | os.PathLike[str], card: Card) -> None:
    """Write a card as JSON, whole or not at all."""
    write_json(path, asdict(card))


def read_card(path: str | os.PathLike[str]) -> tuple[Card, Path]:
    """Read a card and return it with its model file, whose content must be the one the card was written for."""
    if Path(path).suffix != ".json":
        raise InputError(f"{path} is no card: give the card.json beside the model")
    content = read_json(path)
    try:
        card = Card(**content)
    except TypeError as error:
        raise InputError(f"{path} is not a potential card: {error}") from error
    model = Path(path).parent / card.model_file
    if not model.is_file():
        raise InputError(f"{path} names the model file {model}, which does not exist")
    if sha256(model) != card.model_sha256:
        raise InputError(
            f"{model} is not the file that {path} was written for (sha256 differs): make both again"
        )
    return card, model
