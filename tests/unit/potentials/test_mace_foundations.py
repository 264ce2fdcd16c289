"""One head out of a foundation model computes what it did among the others; what cannot be taken is refused."""

import ast
import importlib.util
import pickle
import re
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from foundations import HEADS, two_heads
from small import rocksalt_lif

from hopline.console import InputError
from hopline.files import sha256
from hopline.potentials import mace

FORCE_EV_PER_A = 1e-9
FLOAT32_FORCE_EV_PER_A = 2e-5


@pytest.fixture(scope="module")
def foundation(tmp_path_factory):
    """A two-head model in a file."""
    path = tmp_path_factory.mktemp("foundation") / "two.model"
    torch.save(two_heads(), path)
    return path


def answers_of(path, head, dtype="float64"):
    """Energy, forces and stress of shaken LiF by a model file."""
    calculator = mace.load_calculator(path, dtype=dtype, head=head)
    calculator.calculate(rocksalt_lif(), properties=("energy", "forces", "stress"))
    return calculator.results


@pytest.mark.parametrize("head", HEADS)
def test_an_exported_head_computes_what_it_did_among_the_others(tmp_path, foundation, head):
    assert mace.export_weights("two", tmp_path / "one.pt", source=foundation, head=head) == ("float64", head)
    before, after = answers_of(foundation, head), answers_of(tmp_path / "one.pt", None)
    for quantity in ("forces", "stress"):
        np.testing.assert_allclose(after[quantity], before[quantity], rtol=0, atol=FORCE_EV_PER_A)
    assert after["energy"] == pytest.approx(before["energy"], rel=1e-12)
    # the heads answer differently, so that a mistaken one would be seen
    other = answers_of(foundation, next(name for name in HEADS if name != head))
    assert np.abs(other["forces"] - before["forces"]).max() > 1e-3
    assert mace.heads_of(mace.read_model(tmp_path / "one.pt")) == [head]


def test_precision_is_the_file_s_own(tmp_path):
    torch.save(two_heads("float32"), tmp_path / "two.model")
    made = mace.export_weights("two", tmp_path / "one.pt", source=tmp_path / "two.model", head="pbe")
    assert made == ("float32", "pbe")
    model = mace.read_model(tmp_path / "one.pt")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.get_default_dtype() == torch.float32
    before, after = (answers_of(tmp_path / name, "pbe", "float32") for name in ("two.model", "one.pt"))
    np.testing.assert_allclose(after["forces"], before["forces"], rtol=0, atol=FLOAT32_FORCE_EV_PER_A)


def test_a_model_with_one_head_is_copied_byte_for_byte(tmp_path, foundation):
    mace.export_weights("two", tmp_path / "one.pt", source=foundation, head="pbe")
    for head in ("pbe", None):
        made = mace.export_weights("one", tmp_path / "copy.pt", source=tmp_path / "one.pt", head=head)
        assert made == ("float64", "pbe")
        assert sha256(tmp_path / "copy.pt") == sha256(tmp_path / "one.pt")


def test_a_model_older_than_heads_has_one(tmp_path, foundation):
    mace.export_weights("two", tmp_path / "one.pt", source=foundation, head="pbe")
    model = mace.read_model(tmp_path / "one.pt")
    del model.heads
    torch.save(model, tmp_path / "old.model")
    made = mace.export_weights("old", tmp_path / "copy.pt", source=tmp_path / "old.model", head=None)
    assert made == ("float64", "Default")
    new, old = answers_of(tmp_path / "one.pt", "pbe"), answers_of(tmp_path / "copy.pt", "Default")
    np.testing.assert_array_equal(old["forces"], new["forces"])


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (None, "has the heads pbe, r2scan: say which one to take"),
        ("r2scam", "no head 'r2scam'; it has pbe, r2scan"),
    ],
)
def test_a_head_must_be_one_that_is_there(tmp_path, foundation, head, message):
    with pytest.raises(InputError, match=message):
        mace.export_weights("two", tmp_path / "one.pt", source=foundation, head=head)
    assert not (tmp_path / "one.pt").exists()


def test_a_head_that_upstream_takes_wrongly_is_refused(tmp_path, foundation, monkeypatch):
    """Upstream loads what fits by name and leaves the rest as it happens to be (strict=False): the proof sees it."""
    right = mace.remove_pt_head

    def forgets_a_weight(model, head):
        single = right(model, head)
        with torch.no_grad():
            next(single.readouts[-1].parameters()).mul_(1.001)
        return single

    monkeypatch.setattr(mace, "remove_pt_head", forgets_a_weight)
    with pytest.raises(InputError, match="head pbe alone does not compute what it did among the others"):
        mace.export_weights("two", tmp_path / "one.pt", source=foundation, head="pbe")


class Foreign:
    """An object of a package that is not installed where it is opened."""


def written(path, what, foundation):
    """Write one of the files that are no MACE model, and return its path."""
    half = foundation.read_bytes()[: foundation.stat().st_size // 2]
    content = {
        "a web page": b"<!DOCTYPE html>\n<html>",
        "a table, which torch takes for numbers": b"I,b\nSx,2\n",
        "nothing": b"",
        "half": half,
        "a beginning": half[:10],
        "bytes of no kind": bytes(range(256)),
    }
    saved = {
        "a dictionary": {"model": 1},
        "a list": [1],
        "the weights alone": torch.nn.Linear(2, 2).state_dict(),
        "another network": torch.nn.Linear(2, 2),
        "an empty thing": None,
    }
    if what in content:
        path.write_bytes(content[what])
    elif what in saved:
        torch.save(saved[what], path)
    elif what == "a zip archive":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "hello")
    elif what == "another network, compiled":
        compiled = torch.nn.Linear(2, 2)
        for name, value in (("r_max", 5.0), ("atomic_numbers", 3.0), ("atomic_energies_fn", 1.0)):
            compiled.register_buffer(name, torch.tensor(value))
        torch.jit.save(torch.jit.script(compiled), path)
    else:
        path.write_bytes(pickle.dumps(Foreign()))
    return path


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("a web page", r"it is text, beginning with '<!DOCTYPE html>"),
        ("a table, which torch takes for numbers", "it is text"),
        ("nothing", "it is empty"),
        ("half", "its end is missing; fetch or copy it again"),
        ("a beginning", "its end is missing"),
        ("bytes of no kind", "torch says UnpicklingError"),
        ("a dictionary", "what it holds is of type dict"),
        ("a list", "of type list"),
        ("the weights alone", "of type OrderedDict; wanted is a model with energies"),
        ("another network", "of type Linear"),
        ("an empty thing", "of type NoneType"),
        ("a zip archive", "it is a zip archive of something else"),
        ("another network, compiled", "of type RecursiveScriptModule"),
        ("an object of a package that is not there", "made with the package nowhere, which is not installed"),
    ],
)
def test_what_is_no_model_is_refused_in_one_sentence(tmp_path, foundation, monkeypatch, what, message):
    monkeypatch.setattr(Foreign, "__module__", "nowhere")
    monkeypatch.setitem(sys.modules, "nowhere", types.SimpleNamespace(Foreign=Foreign))
    path = written(tmp_path / "it.model", what, foundation)
    monkeypatch.delitem(sys.modules, "nowhere")
    with pytest.raises(
        InputError, match=rf"^{re.escape(str(path))} is not a whole MACE model file: .*{message}"
    ) as caught:
        mace.export_weights("it", tmp_path / "one.pt", source=path, head=None)
    assert "\n" not in str(caught.value)


def test_a_model_that_is_not_there_is_not_said_to_be_opened(tmp_path, capsys):
    with pytest.raises(InputError, match=r"the MACE model file .*none\.model does not exist"):
        mace.read_model(tmp_path / "none.model")
    assert capsys.readouterr().err == ""


def test_opening_a_model_says_that_it_is_a_pickle(foundation, capsys):
    mace.read_model(foundation)
    assert "is a pickled MACE model: opening it runs what its author put there" in capsys.readouterr().err


def test_addresses_and_licences_are_the_package_s():
    package = Path(importlib.util.find_spec("mace").origin).parent / "calculators" / "foundations_models.py"
    (named,) = [
        node.value.elts
        for node in ast.walk(ast.parse(package.read_text()))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ASL_checkpoint_urls"
    ]
    assert {entry.slice.value for entry in named} == set(mace.ACADEMIC)
    assert mace.foundation_address("medium-mpa-0").startswith("https://github.com/ACEsuit/")
    with pytest.raises(InputError, match=r"no foundation model 'medium-mpa-1'; it knows small, medium"):
        mace.foundation_address("medium-mpa-1")
