"""A card belongs to one model file and to no other."""

import pytest
from small import write_potential

from hopline import files
from hopline.console import InputError
from hopline.potentials.calculator import family_module, load_calculator
from hopline.potentials.card import Card, read_card, write_card


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"weights")
    return tmp_path / "model.pt"


def test_a_card_gives_back_what_was_written(tmp_path, model):
    card = Card(
        name="mine", family="mace", model_file="model.pt", model_sha256=files.sha256(model), dtype="float64", head="a",
        parent_card_sha256="0", dataset_sha256="1", recipe={"epochs": 3}, atom_energies_eV={"Li": -1.5},
        versions={"python": "3.11"},
    )  # fmt: skip
    write_card(tmp_path / "card.json", card)
    assert read_card(tmp_path / "card.json") == (card, model)


def test_another_model_file_is_refused(tmp_path, model):
    card = write_potential(tmp_path, model)
    model.write_bytes(b"weight5")
    with pytest.raises(InputError, match="sha256 differs"):
        read_card(card)
    model.unlink()
    with pytest.raises(InputError, match="does not exist"):
        read_card(card)


@pytest.mark.parametrize("change", [{"colour": "red"}, {"name": None}])
def test_what_is_no_card_is_refused(tmp_path, model, change):
    content = files.read_json(write_potential(tmp_path, model)) | change
    files.write_json(
        tmp_path / "card.json", {key: value for key, value in content.items() if value is not None}
    )
    with pytest.raises(InputError, match="not a potential card"):
        read_card(tmp_path / "card.json")


def test_a_family_that_is_not_there_is_refused(tmp_path, model):
    with pytest.raises(InputError, match="'m3gnet' is not known; there are chgnet, mace"):
        family_module("m3gnet")
    with pytest.raises(InputError, match="CHGNet runs in float32"):
        load_calculator(write_potential(tmp_path, model, dtype="float64"))
