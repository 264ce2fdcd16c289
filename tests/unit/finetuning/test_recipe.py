"""A recipe has all settings of its strategy and no other: what does nothing is refused."""

import pytest
from trainings import make_recipe, presets

from hopline.console import InputError
from hopline.finetuning import recipe


@pytest.mark.parametrize(("family", "strategy"), recipe.SETTINGS)
def test_the_published_settings_make_a_recipe(family, strategy):
    made = make_recipe(family, strategy, epochs=3)
    assert made.epochs == 3
    assert set(recipe.as_dict(made)) == set(recipe.SETTINGS[family, strategy])


def test_what_cannot_be_trained_or_set_is_refused():
    with pytest.raises(
        InputError, match="no way to train chgnet with strategy scratch; there are mace scratch"
    ):
        recipe.make_recipe("chgnet", "scratch", {})
    with pytest.raises(InputError, match="settings lora_rank, layer do nothing for strategy naive of mace"):
        make_recipe("mace", "naive", lora_rank=4, layer=2)
    incomplete = {name: value for name, value in presets()["chgnet"]["naive"].items() if name != "epochs"}
    with pytest.raises(InputError, match="strategy naive of chgnet needs the settings epochs"):
        recipe.make_recipe("chgnet", "naive", incomplete)


def test_a_command_line_knows_the_type_of_each_setting():
    types = recipe.setting_types()
    assert set(types) == {name for settings in recipe.SETTINGS.values() for name in settings}
    assert (types["epochs"], types["learning_rate"], types["loss"], types["lora_rank"], types["ema_decay"]) == (
        int, float, str, int, float,
    )  # fmt: skip
