"""From a potential card to an ASE calculator, whatever the family."""

import os
from pathlib import Path
from typing import Protocol

from ase.calculators.calculator import Calculator

from hopline.console import InputError
from hopline.potentials.card import read_card

FAMILIES = ("chgnet", "mace")


class Family(Protocol):
    """What a module in ``potentials/`` offers for its family."""

    def load_calculator(
        self, model_file: str | os.PathLike[str], *, dtype: str, head: str | None
    ) -> Calculator:
        """Return an ASE calculator of energy, forces and stress."""

    def export_weights(
        self, weights: str, path: str | os.PathLike[str], *, source: Path | None, head: str | None
    ) -> tuple[str, str | None]:
        """Write weights as they are, from the package or from a file, with one head; return data type and head."""


def load_calculator(card_path: str | os.PathLike[str]) -> Calculator:
    """Return the ASE calculator (energy eV, forces eV/A, stress eV/A^3) that a potential card describes."""
    card, model = read_card(card_path)
    return family_module(card.family).load_calculator(model, dtype=card.dtype, head=card.head)


def family_module(family: str) -> Family:
    """Import the module of a potential family; only then is the family's package loaded."""
    if family == "chgnet":
        from hopline.potentials import chgnet

        return chgnet
    if family == "mace":
        from hopline.potentials import mace

        return mace
    raise InputError(f"potential family {family!r} is not known; there are {', '.join(FAMILIES)}")
