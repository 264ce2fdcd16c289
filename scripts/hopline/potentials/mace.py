"""MACE: an ASE calculator from one model file. The one place for inference that imports the mace package.

MACE saves whole models by pickling, and a pickle can run code when it is opened. A card's checksum proves that the
model file is the one the card was written for, not that its author means well: open cards of people you trust.
"""

import os
from pickle import UnpicklingError

import mace  # noqa: F401  # before e3nn: it lets torch load e3nn's constants
import torch
from ase.calculators.calculator import Calculator
from mace.calculators import MACECalculator

from hopline.console import InputError, say


def load_calculator(model_file: str | os.PathLike[str], *, dtype: str, head: str | None) -> Calculator:
    """Return the calculator (energy, forces, stress) of a MACE model file with one head."""
    say(f"{model_file} is a pickled MACE model: opening it runs what its author put there")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return MACECalculator(model_paths=str(model_file), device=device, default_dtype=dtype, head=head)
    except (
        UnpicklingError,
        RuntimeError,
        EOFError,
        AttributeError,
        LookupError,
        ValueError,
        ImportError,
    ) as error:
        raise InputError(f"{model_file} is not a whole MACE model file: {error}") from error
