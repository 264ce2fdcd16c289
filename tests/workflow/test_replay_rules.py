"""Replay sets are made once for all systems, from files one has or from a download on the machine of Snakemake."""

import re

import pytest
import workflow_runs

FETCHED = {"url": "https://example.org/files/41619375?private=1", "sha256": "ab" * 32}
SETS = {
    "own": {"source": ["resources/lif/labels.extxyz", "resources/lif"], "elements": {"only": ["Li", "F"]}},
    "mptrj": {"download": FETCHED, "select": "farthest-point", "pool_frames": 20000},
}


@pytest.fixture(scope="module")
def asked(tree):
    """Function that dry-runs the quickstart with these replay sets for some targets."""
    config = workflow_runs.write_config(
        tree / "replay.yaml", tree / "config" / "quickstart.yaml", lambda config: config.update(replay=SETS)
    )

    def dry_run(*targets):
        run = workflow_runs.snakemake(tree, "-n", "-p", "--configfile", str(config), "--", *targets)
        assert run.status == 0, run.output
        return run

    return dry_run


def words_of(run, script):
    (words,) = [words for name, words in run.commands if name == script]
    return " ".join(words)


def test_files_one_has_are_selected_from_and_nothing_is_fetched(asked):
    run = asked("results/replay/own/train.extxyz")
    assert run.jobs == {("select_replay", "own")}
    words = words_of(run, "select_replay")
    assert "--source resources/lif/labels.extxyz resources/lif " in words
    assert "--only Li F " in words
    assert "--select random " in words
    assert not re.search("--(any|without|pool-frames|encoder) ", words)
    assert "gpu=0" in run.output


def test_a_download_comes_first(asked):
    run = asked("results/replay/mptrj/test.extxyz")
    assert run.jobs == {("fetch_replay", "mptrj", "41619375"), ("select_replay", "mptrj")}
    assert words_of(run, "fetch_replay") == (
        f"--sha256 {FETCHED['sha256']} --url {FETCHED['url']} --source results/replay/mptrj/source/41619375"
    )
    words = words_of(run, "select_replay")
    assert "--source results/replay/mptrj/source/41619375 " in words
    assert "--pool-frames 20000 " in words
    assert "--encoder chgnet " in words
    assert "gpu=1" in run.output


def test_a_download_is_a_job_of_the_machine_that_snakemake_runs_on(tree):
    # a dry run does not tell local jobs from others
    rule = (
        (tree / "rules" / "replay.smk").read_text().partition("rule fetch_replay:")[2].partition("\nrule ")[0]
    )
    assert "    localrule: True\n" in rule


def test_without_a_replay_section_there_are_no_replay_sets(tree):
    run = workflow_runs.snakemake(
        tree,
        "-n",
        "--configfile",
        "config/quickstart.yaml",
        "--",
        "results/replay/mptrj/test.extxyz",
    )
    assert run.status != 0
    assert "MissingRuleException" in run.output
