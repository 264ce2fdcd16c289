"""Each script answers --help within a second and loads nothing heavy for it; each dry-run command parses."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import workflow_runs

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = {"training_flags", "md_flags", "dft_flags"}
SCRIPTS = sorted(path.stem for path in (REPOSITORY / "scripts").glob("*.py") if path.stem not in SHARED)
HEAVY = {"torch", "mace", "chgnet", "pymatgen", "sklearn", "snakemake", "matplotlib", "MDAnalysis"}
MAX_CPU_S = 1.0
"""CPU time, not wall time: tests and other jobs share the cores, and --help does nothing but compute and read."""
TRIES = 3

HELP_AND_HEAVY = """
import runpy, sys
script, *heavy = sys.argv[1:]
sys.argv = [script, "--help"]
sys.path.insert(0, script.rpartition("/")[0])
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as end:
    print("status", end.code or 0)
print("heavy", *sorted({name.partition(".")[0] for name in sys.modules} & set(heavy)))
"""


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_answers_within_a_second_of_cpu_time(name):
    # one thread: numeric libraries that start a pool of threads would be counted for each of them
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    spent_s = []
    for _ in range(TRIES):
        before_s = workflow_runs.cpu_time_of_children_s()
        answer = subprocess.run(
            [sys.executable, REPOSITORY / "scripts" / f"{name}.py", "--help"],
            capture_output=True, text=True, env=environment, check=False,
        )  # fmt: skip
        spent_s.append(workflow_runs.cpu_time_of_children_s() - before_s)
        assert answer.returncode == 0, answer.stderr
        assert answer.stdout.startswith("usage: ")
        assert answer.stderr == ""
        if spent_s[-1] < MAX_CPU_S:
            return
    pytest.fail(f"{name}.py --help took {min(spent_s):.2f} s of CPU time at best")


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_loads_no_heavy_package(name):
    script = str(REPOSITORY / "scripts" / f"{name}.py")
    answer = subprocess.run(
        [sys.executable, "-c", HELP_AND_HEAVY, script, *HEAVY], capture_output=True, text=True, check=True
    )
    assert answer.stdout.splitlines()[-2:] == ["status 0", "heavy"]


def load(name):
    specification = importlib.util.spec_from_file_location(name, REPOSITORY / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def label_by_vasp(config):
    """Have VASP label what pw.x labels in a config, several frames a job, with tags of every kind."""
    tags = {"ENCUT": 600, "LREAL": False, "MAGMOM": {"Li": 0.5}, "LORBIT": None}
    labels = {"mode": "vasp", "frames_per_job": 8, "vasp": {"preset": "mp-static", "incar": tags}}
    config["datasets"]["lif-direct"]["labels"] = labels
    config["systems"]["lif"]["host"] = {"file": "resources/lif/labels.extxyz"}


def add_replay(config):
    """Add replay sets: one that is fetched and selected from by DIRECT, one drawn at random from files one has."""
    fetched = {"url": "https://example.org/files/MPtrj.json?download=1", "sha256": "0" * 64}
    elements = {"any": ["Li", "F"], "without": ["H"]}
    config["replay"] = {
        "fetched": {"download": fetched, "select": "direct", "elements": elements},
        "own": {"source": ["resources/lif/labels.extxyz"], "level_of_theory": "PBE VASP", "frames": 100},
    }


def add_test_sets(config):
    """Add further test sets, of somebody's labels and of a replay set, and a committee of two seeds."""
    add_replay(config)
    config["potentials"]["mace-2"] = config["potentials"]["mace"]
    config["test_sets"] = {
        "theirs": {"system": "lif", "source": "resources/lif/labels.extxyz", "energy_kind": "free"},
        "forgetting": {"replay": "own"},
    }
    config["committees"] = {"pair": {"members": ["mace", "mace-2"], "dataset": "lif-direct"}}


@pytest.fixture(scope="module")
def commands(tree: Path):
    """Every script call that the shipped configs ask for, as (script, arguments)."""
    live = tree / "resources" / "lif" / "make_labels.yaml"
    by_vasp = workflow_runs.write_config(tree / "vasp.yaml", live, label_by_vasp)
    with_replay = workflow_runs.write_config(
        tree / "replay.yaml", tree / "config" / "quickstart.yaml", add_replay
    )
    replay = [f"results/replay/{name}/replay.json" for name in ("fetched", "own")]
    tested = workflow_runs.write_config(
        tree / "tested.yaml", tree / "config" / "quickstart.yaml", add_test_sets
    )
    study = tree / "config" / "lif.yaml"
    workflow_runs.supply_sources(tree, study)
    folder = "results/lif/labels/lif-direct"
    for yours in ("pseudopotentials", "potcars"):
        (tree / yours).mkdir(exist_ok=True)
    flags = ("-n", "-p", "--forceall", "--configfile")
    runs = [
        workflow_runs.snakemake(tree, *flags, "config/quickstart.yaml"),
        workflow_runs.snakemake(
            tree,
            *flags,
            str(live),
            "--",
            "all",
            f"{folder}/convergence.csv",
            f"{folder}/atom_references.json",
        ),
        workflow_runs.snakemake(
            tree, *flags, str(by_vasp), "--", "all", f"{folder}/training", f"{folder}/atom_references.json"
        ),
        workflow_runs.snakemake(tree, *flags, str(with_replay), "--", *replay),
        workflow_runs.snakemake(tree, *flags, str(tested)),
        workflow_runs.snakemake(tree, *flags, str(study)),
    ]
    for run in runs:
        assert run.status == 0, run.output
        # a command that this page cannot read would otherwise go unchecked
        assert len(run.commands) == len(run.jobs)
    return [command for run in runs for command in run.commands]


def test_a_spacing_in_the_config_wins_over_the_mesh_of_a_preset(tree: Path):
    def change(config):
        espresso = {"preset": "alghamdi-2026", "kpoint_spacing_per_A": 0.2, "pseudopotentials": "resources"}
        config["datasets"]["lif-direct"]["labels"]["espresso"] = espresso

    config = workflow_runs.write_config(tree / "spacing.yaml", tree / "config" / "quickstart.yaml", change)
    run = workflow_runs.snakemake(tree, "-n", "-p", "--forceall", "--configfile", str(config))
    (words,) = [arguments for name, arguments in run.commands if name == "write_espresso_inputs"]
    assert words[words.index("--kpoint-spacing-per-A") + 1] == "0.2"
    assert "--kpoints" not in words
    # what the preset gives otherwise
    assert words[words.index("--wavefunction-cutoff-Ry") + 1] == "110"


def test_further_test_sets_reach_every_potential_and_the_report(commands):
    tested = [words for name, words in commands if name == "evaluate_potential"]
    places = {words[words.index("--evaluation") + 1]: words[words.index("--test") + 1] for words in tested}
    for potential in ("chgnet", "chgnet-ft", "mace", "mace-2"):
        folder = f"results/lif/potentials/{potential}/evaluations"
        assert places[f"{folder}/theirs.json"] == "results/lif/test_sets/theirs.extxyz"
        # what starts from random weights has nothing to forget
        known = None if potential.startswith("mace") else "results/replay/own/test.extxyz"
        assert places.get(f"{folder}/forgetting.json") == known
    (ingested,) = [words for name, words in commands if "results/lif/test_sets/theirs.extxyz" in words[-5:]
                   and name == "ingest_labels"]  # fmt: skip
    assert ingested[ingested.index("--energy-kind") + 1] == "free"
    reports = [words for name, words in commands if name == "report_system"]
    assert any("results/lif/committees/pair.json" in words for words in reports)
    assert any("results/lif/potentials/mace-2/evaluations/theirs.json" in words for words in reports)


def test_what_a_potential_and_its_parents_were_trained_on_is_not_tested(tree):
    def add(config):
        add_test_sets(config)
        del config["committees"]
        tuned = config["potentials"]["chgnet-ft"]
        config["potentials"]["again"] = tuned | {
            "strategy": "mixed-replay",
            "replay": "own",
            "parent": "chgnet-ft",
        }
        config["datasets"]["second"] = config["datasets"]["lif-direct"]
        config["potentials"]["again"]["dataset"] = "second"
        config["potentials"]["chgnet"]["trained_on"] = "theirs.extxyz"

    (tree / "theirs.extxyz").touch()
    config = workflow_runs.write_config(tree / "again.yaml", tree / "config" / "quickstart.yaml", add)
    targets = [
        f"results/lif/potentials/{name}/{file}"
        for name in ("chgnet", "chgnet-ft", "again")
        for file in ("evaluation.json", "evaluations/theirs.json", "evaluations/forgetting.json")
    ]
    run = workflow_runs.snakemake(tree, "-n", "-p", "--configfile", str(config), "--", *targets)
    assert run.status == 0, run.output
    first, second, replay = (
        [f"results/{folder}/{part}.extxyz" for part in ("train", "valid")]
        for folder in ("lif/datasets/lif-direct", "lif/datasets/second", "replay/own")
    )
    theirs = ["theirs.extxyz"]
    expected = {
        "chgnet": theirs,
        "chgnet-ft": [*first, *theirs],
        "again": [*second, *replay, *first, *theirs],
    }
    parse = load("evaluate_potential").parse
    asked = [parse(words) for name, words in run.commands if name == "evaluate_potential"]
    assert len(asked) == 9
    for one in asked:
        name = one.potential.parts[3]
        assert sorted(map(str, one.trained_on)) == sorted(expected[name])


def test_every_rule_is_asked_for_by_a_shipped_config(commands):
    assert {name for name, _ in commands} == set(SCRIPTS)


def test_every_command_parses_with_its_own_script(commands):
    modules = {name: load(name) for name in {name for name, _ in commands}}
    for name, arguments in commands:
        try:
            modules[name].parse(arguments)
        except SystemExit:
            pytest.fail(f"{name}.py refuses {arguments}")
