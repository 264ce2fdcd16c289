"""The schema explains every key, and its defaults are the library's own."""

import ast
import importlib.util
import re
from dataclasses import fields
from pathlib import Path

import jsonschema
import pytest
import yaml

from hopline.diffusion.verdict import VerdictThresholds
from hopline.dynamics.checks import Limits
from hopline.finetuning.recipe import CHOICES, MEANINGS, SETTINGS
from hopline.labels.isolated_atoms import UNPAIRED_ELECTRONS

REPOSITORY = Path(__file__).resolve().parents[2]
SCHEMA = yaml.safe_load((REPOSITORY / "config" / "schemas" / "config.schema.yaml").read_text())
UNITS = {"ps", "fs", "A", "K", "Ry", "GPa", "eV", "meV"}


def resolved(schema):
    """A schema with what it refers to; its own words win."""
    reference = schema.get("$ref", "").removeprefix("#/$defs/")
    return (SCHEMA["$defs"][reference] if reference else {}) | {
        k: v for k, v in schema.items() if k != "$ref"
    }


def keys(schema=SCHEMA, prefix=""):
    """Every key as (dotted name, its schema, whether it is required); entries of a named block as *."""
    schema = resolved(schema)
    for name, child in schema.get("properties", {}).items():
        yield f"{prefix}{name}", resolved(child), name in schema.get("required", [])
        yield from keys(child, f"{prefix}{name}.")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from keys(schema["additionalProperties"], f"{prefix}*.")


KEYS = {name: (schema, required) for name, schema, required in keys()}
OPTIONAL_WITHOUT_DEFAULT = {
    "systems.*.host.prototype", "systems.*.host.species", "systems.*.host.lattice_constants_A", "systems.*.host.file",
    "datasets.*.labels.source", "datasets.*.labels.atom_references", "datasets.*.labels.level_of_theory",
    "datasets.*.labels.energy_kind",
    "datasets.*.labels.espresso.preset", "datasets.*.labels.espresso.kpoints",
    "datasets.*.labels.vasp.training.composition",
    "replay.*.source", "replay.*.download", "replay.*.level_of_theory", "replay.*.energy_kind",
    "test_sets.*.replay", "test_sets.*.system", "test_sets.*.source", "test_sets.*.level_of_theory",
    "test_sets.*.energy_kind",
    "exploration.temperature_last_K", "dynamics.npt.barostat_friction_per_ps",
    "dynamics.npt.volume_from", "dynamics.npt.volume_from_potential",
    "diffusion.fit_start_ps", "diffusion.fit_stop_ps", "diffusion.hop_length_A",
}  # fmt: skip
"""Left out they mean something that no single value says: one of two ways, or `find it yourself`."""


@pytest.mark.parametrize("name", KEYS)
def test_key_is_described_closed_and_has_a_default_or_is_required(name):
    schema, required = KEYS[name]
    assert schema.get("description", "").strip(), "no description"
    if schema.get("type") == "object":
        assert "additionalProperties" in schema
    settled = "default" in schema or required or name in OPTIONAL_WITHOUT_DEFAULT
    # a potential's keys depend on each other (shipped or trained): rules/checks.smk checks them
    assert settled or name.startswith("potentials.*.")


@pytest.mark.parametrize("name", KEYS)
def test_number_has_bounds_and_its_unit_is_said(name):
    schema, _ = KEYS[name]
    if schema.get("type") in ("number", "integer") and name.rpartition(".")[2] != "pressure_GPa":
        assert {"minimum", "exclusiveMinimum"} & schema.keys()
    unit = name.rpartition("_")[2]
    if unit in UNITS and "description" in schema:
        assert unit in schema["description"]


def literal(path, name):
    """A literal that a file gives a name to, read without running it."""
    tree = ast.parse((REPOSITORY / path).read_text())
    return next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == name
    )


def test_the_published_settings_of_a_strategy_are_all_that_the_library_takes():
    """But for the atoms' energies, which depend on the dataset; so no setting can be given that does nothing."""
    presets = yaml.safe_load((REPOSITORY / "resources" / "presets" / "training.yaml").read_text())
    named = {
        (family, way): set(settings) for family, ways in presets.items() for way, settings in ways.items()
    }
    assert named == {key: set(settings) - {"atom_energies"} for key, settings in SETTINGS.items()}
    schema = SCHEMA["$defs"]["training"]["properties"]
    assert set(schema) == {name for settings in SETTINGS.values() for name in settings}
    for ways in presets.values():
        for settings in ways.values():
            jsonschema.Draft202012Validator(SCHEMA["$defs"]["training"]).validate(settings)


def test_the_learning_rates_in_the_docs_are_the_presets():
    text = (REPOSITORY / "docs" / "potentials.md").read_text()
    rows = re.findall(r"^\| (\w+) \| `([\w-]+)` \| ([0-9.e+-]+) \| ", text, flags=re.MULTILINE)
    presets = yaml.safe_load((REPOSITORY / "resources" / "presets" / "training.yaml").read_text())
    told = {(family, way): float(rate) for family, way, rate in rows}
    assert told == {
        (family, way): settings["learning_rate"]
        for family, ways in presets.items()
        for way, settings in ways.items()
    }


def test_a_training_setting_means_the_same_in_the_config_and_on_the_command_line():
    schema = SCHEMA["$defs"]["training"]["properties"]
    assert set(MEANINGS) == set(schema)
    for name, meaning in MEANINGS.items():
        assert schema[name]["description"].startswith(meaning)
    assert {name: tuple(one["enum"]) for name, one in schema.items() if "enum" in one} == CHOICES


def test_the_strategies_and_weights_a_config_may_name_are_the_library_s():
    enum = SCHEMA["$defs"]["potential"]["properties"]["strategy"]["enum"]
    assert set(enum) == {way for _, way in SETTINGS}
    shipped = literal("rules/training_checks.smk", "SHIPPED")
    assert shipped["chgnet"] == list(literal("scripts/hopline/potentials/chgnet.py", "SHIPPED"))
    foundations = (
        Path(importlib.util.find_spec("mace").origin).parent / "calculators" / "foundations_models.py"
    )
    assert shipped["mace"] == list(literal(foundations, "mace_mp_urls"))
    assert set(literal("rules/training_checks.smk", "REPLAYING")) == literal(
        "scripts/hopline/finetuning/task.py", "REPLAYING"
    )


def test_the_free_atoms_a_config_may_leave_to_us_are_the_library_s():
    text = (REPOSITORY / "rules" / "checks.smk").read_text()
    assert re.search(r'FREE_ATOMS = \(?\s*"(.*)"', text)[1].split() == list(UNPAIRED_ELECTRONS)


def test_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    ("section", "settings"), [("dynamics.limits", Limits), ("diffusion", VerdictThresholds)]
)
def test_defaults_are_those_of_the_library(section, settings):
    for field in fields(settings):
        assert KEYS[f"{section}.{field.name}"][0]["default"] == field.default


@pytest.mark.parametrize("path", sorted((REPOSITORY / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_config_fits_the_schema(path):
    jsonschema.Draft202012Validator(SCHEMA).validate(yaml.safe_load(path.read_text()))


def test_files_that_the_quickstart_names_are_in_the_repository():
    config = yaml.safe_load((REPOSITORY / "config" / "quickstart.yaml").read_text())
    labels = [dataset["labels"] for dataset in config["datasets"].values()]
    named = [section[key] for section in labels for key in ("source", "atom_references") if key in section]
    assert named
    assert [name for name in named if not (REPOSITORY / name).is_file()] == []
