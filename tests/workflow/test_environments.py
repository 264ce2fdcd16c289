"""One set of versions everywhere: lock files, conda files, and what the tests run with; profiles that parse."""

import re
from importlib import metadata
from itertools import pairwise
from pathlib import Path

import pytest
import workflow_runs
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
ENVS = REPOSITORY / "envs"
CONDA_FILES = sorted(ENVS.glob("*.yaml"))
FROM_CONDA = {"python", "pip", "qe"}
"""What conda itself installs; the rest are the locked wheels."""


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(name):
    lines = (ENVS / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


RUNTIME, DEVELOPMENT = pins("requirements.lock"), pins("requirements-dev.lock")


def test_locks_hold_exact_versions_and_do_not_overlap():
    assert not RUNTIME.keys() & DEVELOPMENT.keys()
    for name, version in (RUNTIME | DEVELOPMENT).items():
        assert name == canonical(name)
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version), f"{name}=={version}: no local suffix, no range"


def test_tests_run_with_the_locked_versions():
    installed = {
        canonical(found.metadata["Name"]): found.version.partition("+")[0]
        for found in metadata.distributions()
    }
    installed.pop("pip", None)
    assert installed == RUNTIME | DEVELOPMENT


@pytest.mark.parametrize(
    ("source", "locked"), [("requirements.in", RUNTIME), ("requirements-dev.in", DEVELOPMENT)]
)
def test_everything_asked_for_is_locked(source, locked):
    lines = [line.partition("#")[0].strip() for line in (ENVS / source).read_text().splitlines()]
    assert {canonical(line) for line in lines if line} <= locked.keys()


@pytest.mark.parametrize("path", CONDA_FILES, ids=lambda path: path.name)
def test_conda_file_has_the_pins_of_the_lock(path):
    *own, wheels = yaml.safe_load(path.read_text())["dependencies"]
    assert {re.split("[=<>]", name)[0] for name in own} <= FROM_CONDA
    assert "python=3.11" in own
    for pin in wheels["pip"]:
        name, version = pin.split("==")
        assert RUNTIME[canonical(name)] == version


def test_hopline_conda_file_holds_all_that_is_asked_for():
    lines = [line.partition("#")[0].strip() for line in (ENVS / "requirements.in").read_text().splitlines()]
    wheels = yaml.safe_load((ENVS / "hopline.yaml").read_text())["dependencies"][-1]["pip"]
    assert {pin.partition("==")[0] for pin in wheels} == {canonical(line) for line in lines if line}


def test_environments_that_rules_name_exist():
    text = "".join(path.read_text() for path in (REPOSITORY / "rules").glob("*.smk"))
    named = set(re.findall(r'"\.\./envs/([\w-]+\.yaml)"', text)) | {"chgnet-cuda.yaml", "mace-cuda.yaml"}
    assert named <= {path.name for path in CONDA_FILES}


@pytest.mark.parametrize("option", ["--workflow-profile", "--profile"])
@pytest.mark.parametrize("profile", ["local", "gpu", "slurm"])
def test_profile_parses(tree, profile, option):
    flags = (
        option,
        f"profiles/{profile}",
        "--configfile",
        "config/quickstart.yaml",
        "--",
        "results/summary.csv",
    )
    run = workflow_runs.snakemake(tree, "-n", *flags)
    assert run.status == 0, run.output
    assert "simulate_replica" in run.rules
    partitions = dict(
        re.findall(r"^rule (\w+):$.*?^    resources: (.*?)$", run.output, re.MULTILINE | re.DOTALL)
    )
    if profile == "slurm":
        assert "slurm_partition=gpu" in partitions["simulate_replica"]
        assert "slurm_partition=cpu" in partitions["fit_arrhenius"]
        on_gpu = {rule for rule, resources in partitions.items() if "gpu=1" in resources.split(", ")}
        there = {rule for rule, resources in partitions.items() if "slurm_partition=gpu" in resources}
        # a batch does the work of these, which then run where Snakemake does
        local = {rule for rule in there if "gpu=0" in partitions[rule].split(", ")}
        assert on_gpu == there - local
        assert "simulate_replica_batch" in on_gpu


@pytest.mark.parametrize("profile", ["local", "gpu", "slurm"])
def test_each_setting_of_a_profile_has_a_reason_above_it(profile):
    lines = (REPOSITORY / "profiles" / profile / "config.yaml").read_text().splitlines()
    for above, line in pairwise(lines):
        if re.match(r"[a-z-]+:", line) and not line.startswith("set-resources"):
            assert above.startswith("#"), f"{line}: no reason above it"
    assert not any(line.startswith("default_resources") for line in lines), (
        "Snakemake ignores it without a word"
    )
