"""A foundation model by name or path: fetched, checked before it is opened, exported with one head, described."""

import pytest
import torch
from foundations import two_heads
from small import call_script, refused

from hopline import console, files
from hopline.potentials.calculator import load_calculator

NAME, ACADEMIC = "medium-mpa-0", "small-omat-0"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A two-head model in a file."""
    path = tmp_path_factory.mktemp("elsewhere") / "two.model"
    torch.save(two_heads(), path)
    return path


@pytest.fixture
def published(model, monkeypatch):
    """Have the package's own table of addresses lead to that file."""
    from mace.calculators import foundations_models

    for name in (NAME, ACADEMIC):
        monkeypatch.setitem(foundations_models.mace_mp_urls, name, model.as_uri())
    return model


def fetch(folder, *more, weights=NAME):
    """Fetch a foundation model into a folder; return the script's status and the file."""
    path = folder / "foundations" / f"{weights}.model"
    return call_script("fetch_foundation", "--weights", weights, "--foundation", path, *more), path


def export(folder, source, *more, weights=NAME):
    """Make a potential of a model file; return the script's status and the card."""
    given = ["--name", "mpa", "--family", "mace", "--weights", weights, "--foundation", source]
    outputs = ["--model", folder / "shipped.pt", "--card", folder / "card.json"]
    return call_script("fetch_potential", *given, *outputs, *more), folder / "card.json"


def test_a_foundation_is_fetched_from_where_the_package_says_and_its_hash_told(tmp_path, published, capsys):
    status, path = fetch(tmp_path)
    assert status == 0
    assert path.read_bytes() == published.read_bytes()
    assert files.read_json(f"{path}.provenance.json")["settings"]["weights"] == NAME
    told = capsys.readouterr().err
    assert f"has the SHA-256 {files.sha256(published)}; nobody said which" in told
    assert f"fetched from {published.as_uri()}" in told
    assert "License" not in told
    status, _ = fetch(tmp_path, "--sha256", files.sha256(published))
    assert status == 0
    told = capsys.readouterr().err
    assert "there already" in told
    assert "nobody said" not in told


@pytest.mark.usefixtures("published")
def test_a_licence_without_commercial_use_is_told(tmp_path, capsys):
    assert fetch(tmp_path, weights=ACADEMIC)[0] == 0
    assert f"{ACADEMIC} is under the Academic Software License, which permits no" in capsys.readouterr().err


def test_a_file_put_there_by_hand_is_used_as_it_is(tmp_path, capsys):
    path = tmp_path / "foundations" / f"{NAME}.model"
    path.parent.mkdir()
    path.write_text("carried here on a stick")
    assert fetch(tmp_path)[0] == 0
    assert path.read_text() == "carried here on a stick"
    assert f"has the SHA-256 {files.sha256(path)}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "weights", "message"),
    [
        (["--sha256", "0" * 64], NAME, "nothing was kept"),
        ([], "medium-mpa-1", "mace-torch knows no foundation model 'medium-mpa-1'"),
    ],
)
@pytest.mark.usefixtures("published")
def test_a_foundation_that_is_not_the_right_one_is_refused(tmp_path, capsys, flags, weights, message):
    status, path = fetch(tmp_path, *flags, weights=weights)
    assert message in refused(capsys, status)
    assert not path.parent.exists() or not list(path.parent.iterdir())


def test_the_card_says_where_a_potential_came_from(tmp_path, model):
    status, card_path = export(tmp_path, model, "--head", "r2scan", "--sha256", files.sha256(model).upper())
    assert status == 0
    card = files.read_json(card_path)
    assert card["recipe"] == {"weights": NAME, "source_sha256": files.sha256(model), "head": "r2scan"}
    assert (card["dtype"], card["head"]) == ("float64", "r2scan")
    assert files.read_json(f"{card_path}.provenance.json")["inputs_sha256"] == {
        str(model): files.sha256(model)
    }
    assert load_calculator(card_path).model.heads == ["r2scan"]


@pytest.mark.parametrize(
    ("flags", "message", "opened"),
    [
        ([], "has the heads pbe, r2scan: say which one to take", True),
        (["--head", "r2scam"], "no head 'r2scam'; it has pbe, r2scan", True),
        (["--head", "pbe", "--sha256", "0" * 64], "it was not opened", False),
    ],
)
def test_weights_that_cannot_be_taken_are_refused(tmp_path, model, capsys, flags, message, opened):
    status, _ = export(tmp_path, model, *flags)
    told = capsys.readouterr().err.strip().splitlines()
    assert status == console.EXIT_BAD_INPUT
    assert message in told[-1]
    # a hash that is not right is told before the pickle can do anything
    assert [line for line in told if "is a pickled MACE model" in line] == told[:-1]
    assert bool(told[:-1]) == opened
    assert not list(tmp_path.iterdir())


def test_a_model_file_that_is_not_there_is_refused(tmp_path, capsys):
    assert "nowhere.model: No such file" in refused(capsys, export(tmp_path, tmp_path / "nowhere.model")[0])
