"""Presets change only where the user says so."""

import pytest

from hopline.console import InputError
from hopline.finetuning import recipe


def test_a_preset_takes_the_users_changes():
    made = recipe.make_recipe("mace", "scratch", {"epochs": 3})
    preset = recipe.PRESETS["mace", "scratch"]
    assert recipe.as_dict(made) == recipe.as_dict(preset) | {"epochs": 3}
    assert preset.epochs != 3


def test_what_cannot_be_trained_or_set_is_refused():
    with pytest.raises(
        InputError, match="no way to train chgnet with strategy scratch; there are chgnet naive"
    ):
        recipe.make_recipe("chgnet", "scratch", {})
    with pytest.raises(InputError, match="training settings layer, size are not known"):
        recipe.make_recipe("mace", "scratch", {"size": 1, "layer": 2})
