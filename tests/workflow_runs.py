"""Snakemake on a copy of the repository: dry runs, the jobs they list, the commands they print."""

import copy
import re
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import yaml

SNAKEMAKE = (sys.executable, "-m", "snakemake", "--nocolor")
GENERATED = ("results", "logs", ".*", "__pycache__")
ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")
CALL = re.compile(r"^(?:Shell command:)?\s*((?:[A-Z_]+=\S* )?python scripts/.*)$", re.MULTILINE)


@dataclass(frozen=True)
class DryRun:
    """What a dry run said."""

    status: int
    output: str

    @cached_property
    def jobs(self) -> set[tuple[str, ...]]:
        """Each job as (rule, value of each wildcard...), the target rule left out."""
        found = set()
        for block in re.split(r"^(?=(?:local)?rule \w+:$)", self.output, flags=re.MULTILINE):
            rule = re.search(r"^(?:local)?rule (\w+):$", block, flags=re.MULTILINE)
            if rule and rule[1] != "all":
                wildcards = re.search(r"^    wildcards: (.*)$", block, flags=re.MULTILINE)
                values = re.findall(r"\w+=([^,]*)(?:, |$)", wildcards[1]) if wildcards else []
                found.add((rule[1], *values))
        return found

    @cached_property
    def rules(self) -> set[str]:
        """Names of the rules that have a job."""
        return {rule for rule, *_ in self.jobs}

    @cached_property
    def commands(self) -> list[tuple[str, list[str]]]:
        """Each script call as (script's name, its arguments)."""
        calls = []
        for line in CALL.findall(self.output):
            words = [word for word in shlex.split(line) if not ASSIGNMENT.fullmatch(word)]
            calls.append((Path(words[1]).stem, words[2 : words.index(">")]))
        return calls


def copy_repository(repository: Path, tree: Path) -> Path:
    """Copy what is not generated; big labels become empty files, since a dry run only asks whether they exist."""
    shutil.copytree(repository, tree, ignore=shutil.ignore_patterns(*GENERATED), symlinks=True)
    for path in (tree / "resources").rglob("*.extxyz"):
        path.write_text("")
    return tree


def snakemake(tree: Path, *arguments: str) -> DryRun:
    """Run Snakemake in a copy of the repository; standard output and error together."""
    run = subprocess.run(
        [*SNAKEMAKE, *arguments],
        cwd=tree,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return DryRun(run.returncode, run.stdout)


def started(tree: Path, *arguments: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start Snakemake in a copy of the repository, as the head of a process group of its own, and do not wait."""
    return subprocess.Popen(
        [*SNAKEMAKE, *arguments], cwd=tree, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )


def cpu_time_of_children_s() -> float:
    """Return the CPU time of all finished child processes of this test process."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def write_config(path: Path, base: Path, change: Callable[[dict[str, Any]], object] | None = None) -> Path:
    """Write a copy of a config with a change made to it."""
    # a deep copy undoes the sharing of YAML's anchors, so that a change stays where it is made
    config = unshared(yaml.safe_load(base.read_text()))
    if change:
        change(config)
    path.write_text(yaml.safe_dump(config))
    return path


def supply_sources(tree: Path, config: Path) -> None:
    """Put empty files in the places of the labels and replay sources that a config names, where there are none."""
    sections = yaml.safe_load(config.read_text())
    sources = [dataset["labels"]["source"] for dataset in sections["datasets"].values()]
    sources += [replay["source"] for replay in sections["replay"].values()]
    for name in [name for source in sources for name in ([source] if isinstance(source, str) else source)]:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()


def unshared(value: Any) -> Any:
    """Return a copy in which no two places are the same object."""
    if isinstance(value, dict):
        return {key: unshared(item) for key, item in value.items()}
    return [unshared(item) for item in value] if isinstance(value, list) else copy.copy(value)


def finish_everything(tree: Path, config: Path) -> None:
    """Make every result as an empty file and let Snakemake record it as made."""
    config_flags = ("--configfile", str(config))
    table = snakemake(tree, "--summary", *config_flags).output
    header = "output_file\t"
    lines = table[table.index(header) :].splitlines()[1:]
    for name in (line.split("\t")[0] for line in lines if "\t" in line):
        path = tree / name
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        else:
            path.mkdir(parents=True, exist_ok=True)
    touched = snakemake(tree, "--touch", "--forceall", "--cores", "2", *config_flags)
    assert touched.status == 0, touched.output
