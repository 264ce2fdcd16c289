"""What Snakemake makes of foundation models by name and by path, of grids of trainings, and of the resolved config."""

import json

import pytest
import workflow_runs
import yaml

pytestmark = pytest.mark.slow

MPTRJ = {"mptrj": {"source": "resources/lif/labels.extxyz", "frames": 200}}
REPLAYED = {
    "family": "mace",
    "parent": "mpa",
    "strategy": "replay",
    "dataset": "lif-direct",
    "replay": "mptrj",
}
SHA256 = "ab" * 32


@pytest.fixture(scope="module", autouse=True)
def _own_model(tree):
    """A model file of the user's own; a dry run only asks whether it exists."""
    (tree / "models").mkdir()
    (tree / "models" / "own.model").write_text("")


@pytest.fixture(scope="module")
def dry_run(tree):
    """Function that dry-runs the quickstart with other potentials (and more), from nothing."""

    def run(potentials, *targets, **sections):
        def change(config):
            config["potentials"] |= potentials
            config |= {"replay": MPTRJ} | sections

        config = workflow_runs.write_config(
            tree / "potentials.yaml", tree / "config" / "quickstart.yaml", change
        )
        done = workflow_runs.snakemake(tree, "-n", "-p", "--configfile", str(config), "--", *targets)
        assert done.status == 0, done.output
        assert len(done.commands) == len(done.jobs)
        return done

    return run


def flags_of(run, script, name):
    """Flags and values of the one command of a script for a potential; a flag with several values has a list."""
    (words,) = [
        words for found, words in run.commands if found == script and f"--name {name} " in " ".join(words)
    ]
    flags = {}
    for word in words:
        if word.startswith("--"):
            flags[word] = []
        else:
            flags[[*flags][-1]].append(word)
    return {flag: values[0] if len(values) == 1 else values for flag, values in flags.items()}


def card(name):
    return f"results/lif/potentials/{name}/card.json"


def test_a_foundation_by_path_is_a_parent_to_replay_from(dry_run):
    own = {"family": "mace", "weights": "models/own.model", "head": "pbe", "sha256": SHA256}
    run = dry_run({"mpa": own, "ft": REPLAYED | {"replay_frames": 50}}, card("ft"))
    assert ("fetch_potential", "lif", "mpa") in run.jobs
    assert "fetch_foundation" not in run.rules
    taken = flags_of(run, "fetch_potential", "mpa")
    assert {taken[flag] for flag in ("--weights", "--foundation")} == {"models/own.model"}
    assert (taken["--head"], taken["--sha256"]) == ("pbe", SHA256)
    trained = flags_of(run, "finetune_potential", "ft")
    assert trained["--parent"] == card("mpa")
    assert trained["--replay"] == "results/replay/mptrj/train.extxyz"
    assert trained["--replay-frames"] == "50"


def test_a_foundation_by_name_is_fetched_once_for_all_systems_on_the_machine_of_snakemake(dry_run, tree):
    named = {"family": "mace", "weights": "medium-mpa-0"}
    potentials = {"mpa": named, "pinned": named | {"sha256": SHA256}}
    run = dry_run(potentials, card("mpa"), card("pinned"))
    assert ("fetch_foundation", "medium-mpa-0") in run.jobs
    (words,) = [words for name, words in run.commands if name == "fetch_foundation"]
    file = "results/foundations/medium-mpa-0.model"
    # a hash that one potential gives holds for the file that all of them take
    assert words == ["--weights", "medium-mpa-0", "--sha256", SHA256, "--foundation", file]
    for name in potentials:
        assert flags_of(run, "fetch_potential", name)["--foundation"] == file
    # a dry run does not tell local jobs from others
    text = (tree / "rules" / "potentials.smk").read_text()
    rule = text.partition("rule fetch_foundation:")[2].partition("\nrule ")[0]
    assert "    localrule: True\n" in rule
    assert "localrule" not in text.partition("\nrule fetch_potential:")[2].partition("\nrule ")[0]


def test_chgnet_is_fetched_from_its_package(dry_run):
    run = dry_run({}, card("chgnet"))
    assert run.rules == {"fetch_potential"}
    assert "--foundation" not in flags_of(run, "fetch_potential", "chgnet")


GRID = REPLAYED | {
    "simulate": False,
    "training": {"epochs": 7, "min_finetune_ratio": 0.5},
    "grid": {
        "name": "ft{train_frames}-pt{replay_frames}-w{weights}-{seed}",
        "train_frames": [20, 40],
        "replay_frames": [0, 100],
        "weights": [[1, 10, 1], [1, 1, 10]],
        "seed": [1, 2],
        "learning_rate": [0.001],
    },
}
MEMBERS = ["ft40-pt100-w1-10-1-1", "ft40-pt100-w1-10-1-2"]


@pytest.fixture(scope="module")
def grid(dry_run):
    """The dry run of a whole config with a grid of sixteen and a committee of two of them."""
    mpa = {"family": "mace", "weights": "models/own.model"}
    committees = {"seeds": {"members": MEMBERS, "dataset": "lif-direct"}}
    return dry_run({"mpa": mpa, "sizes": GRID}, "all", committees=committees)


def test_a_grid_is_one_training_for_each_point(grid):
    trained = {name for rule, _, name in (job for job in grid.jobs if job[0] == "finetune_potential")}
    points = {
        f"ft{frames}-pt{replay}-w{weights}-{seed}"
        for frames in (20, 40)
        for replay in (0, 100)
        for weights in ("1-10-1", "1-1-10")
        for seed in (1, 2)
    }
    assert trained == points | {"chgnet-ft", "mace"}
    assert len({flags_of(grid, "finetune_potential", name)["--seed"] for name in points}) == len(points)


def test_a_point_has_its_values_and_what_all_points_share(grid):
    flags = flags_of(grid, "finetune_potential", "ft40-pt100-w1-1-10-2")
    expected = {
        "--strategy": "replay", "--train-frames": "40", "--replay-frames": "100", "--energy-weight": "1",
        "--force-weight": "1", "--stress-weight": "10", "--learning-rate": "0.001", "--epochs": "7",
        "--min-finetune-ratio": "0.5", "--ema-decay": "0.9999",
    }  # fmt: skip
    assert {flag: flags[flag] for flag in expected} == expected


def test_nothing_to_replay_is_a_plain_finetuning_with_its_own_published_settings(grid):
    flags = flags_of(grid, "finetune_potential", "ft40-pt0-w1-10-1-1")
    assert (flags["--strategy"], flags["--force-weight"], flags["--ema-decay"]) == ("naive", "10", "0.999")
    assert not {"--replay", "--replay-valid", "--replay-frames", "--min-finetune-ratio"} & set(flags)


def test_strategies_side_by_side_replay_where_they_do(dry_run):
    ways = ["naive", "freeze", "replay", "pseudolabel-replay"]
    side_by_side = REPLAYED | {
        "replay_frames": 100,
        "training": {"min_finetune_ratio": 0.5},
        "grid": {"name": "by-{strategy}", "strategy": ways},
    }
    mpa = {"family": "mace", "weights": "models/own.model"}
    run = dry_run({"mpa": mpa, "ways": side_by_side}, *(card(f"by-{way}") for way in ways))
    for way in ways:
        flags = flags_of(run, "finetune_potential", f"by-{way}")
        assert flags["--strategy"] == way
        of_replay = {"--replay", "--replay-valid", "--replay-frames", "--min-finetune-ratio"} & set(flags)
        assert len(of_replay) == (4 if "replay" in way else 0)


def test_no_replay_frames_leave_a_strategy_that_replays_nothing_as_it_is(dry_run):
    point = REPLAYED | {"strategy": "freeze", "grid": {"name": "pt{replay_frames}", "replay_frames": [0]}}
    run = dry_run({"mpa": {"family": "mace", "weights": "models/own.model"}, "frozen": point}, card("pt0"))
    flags = flags_of(run, "finetune_potential", "pt0")
    assert (flags["--strategy"], flags["--freeze"]) == ("freeze", "5")
    assert "--replay" not in flags


def test_what_is_not_simulated_is_evaluated_and_nothing_else(grid):
    of_point = {job[0] for job in grid.jobs if job[2:3] == (MEMBERS[0],)}
    assert of_point == {"finetune_potential", "evaluate_potential"}
    (words,) = [words for name, words in grid.commands if name == "evaluate_committee"]
    assert words[words.index("--potential") + 1 : words.index("--frames")] == [card(name) for name in MEMBERS]


def test_the_resolved_config_has_every_default_and_preset_and_gives_the_same_jobs(tree, tmp_path):
    """A real run of one small rule writes it; used as a config itself it asks for the same commands."""
    labels = {"espresso": {"preset": "alghamdi-2026", "pseudopotentials": "resources"}}

    def change(config):
        config["potentials"] |= {"mpa": {"family": "mace", "weights": "models/own.model"}, "sizes": GRID}
        config |= {"replay": MPTRJ}
        config["datasets"]["lif-direct"]["labels"] |= labels

    config = workflow_runs.write_config(tmp_path / "grid.yaml", tree / "config" / "quickstart.yaml", change)
    target = "results/lif/structures/bulk.extxyz"
    run = workflow_runs.snakemake(tree, "--cores", "1", "--configfile", str(config), "--", target)
    assert run.status == 0, run.output
    assert (tree / target).read_text().startswith("16\n")
    resolved = yaml.safe_load((tree / "results" / "config.yaml").read_text())
    presets = yaml.safe_load((tree / "resources" / "presets" / "training.yaml").read_text())
    assert "sizes" not in resolved["potentials"]
    for name, strategy in ((MEMBERS[0], "replay"), ("ft40-pt0-w1-10-1-1", "naive")):
        training = resolved["potentials"][name]["training"]
        own = {
            "epochs": 7,
            "learning_rate": 0.001,
            "energy_weight": 1,
            "force_weight": 10,
            "stress_weight": 1,
        }
        own |= {"min_finetune_ratio": 0.5} if strategy == "replay" else {}
        assert training == presets["mace"][strategy] | own | {"atom_energies": "estimated"}
    espresso = resolved["datasets"]["lif-direct"]["labels"]["espresso"]
    assert espresso["wavefunction_cutoff_Ry"] == 110
    assert resolved["dynamics"]["production"]["replicas"] == 3

    again = tree / "resolved.yaml"
    again.write_text(json.dumps(resolved))
    runs = [
        workflow_runs.snakemake(tree, "-n", "-p", "--forceall", "--configfile", str(path))
        for path in (config, again)
    ]
    first, second = (sorted(map(repr, run.commands)) for run in runs)
    assert first == second
    assert first


@pytest.fixture(scope="module")
def study(tree):
    """The dry run of the LiF study, the files that it names supplied, empty."""
    path = tree / "config" / "lif.yaml"
    workflow_runs.supply_sources(tree, path)
    run = workflow_runs.snakemake(tree, "-n", "-p", "--forceall", "--configfile", str(path))
    assert run.status == 0, run.output
    return run


def test_the_lif_study_asks_for_its_grid(study):
    trained = {job[2] for job in study.jobs if job[0] == "finetune_potential"}
    points = {
        f"ft{frames}-pt{replay}-w{weights}"
        for frames in (200, 400, 700, 800)
        for replay in (0, 100, 1000, 10000)
        for weights in ("1-10-1", "1-1-10")
    }
    seeds = {f"ft200-pt100-seed{seed}" for seed in (2, 3, 4)} | {f"step0-{seed}" for seed in (1, 2, 3, 4)}
    assert trained == points | seeds | {"ft200-pt100", "scratch"}
    assert {job[2] for job in study.jobs if job[0] == "simulate_replica"} == {"mpa", "ft200-pt100"}
    assert {job[1:] for job in study.jobs if job[0] == "evaluate_committee"} == {
        ("lif", "ft200-pt100"),
        ("lif", "step0"),
    }
    assert ("fetch_foundation", "medium-mpa-0") in study.jobs
    forgetting = {job[2] for job in study.jobs if job[0] == "evaluate_on_test_set"}
    assert forgetting == (trained | {"mpa"}) - {"scratch"}


def test_the_lif_study_trains_as_its_scripts_say(study):
    common = {
        "--loss": "universal", "--batch-size": "2", "--epochs": "800", "--patience-epochs": "50", "--dtype": "float64",
        "--max-gradient-norm": "100", "--weight-decay": "1e-08", "--energy-weight": "1",
    }  # fmt: skip
    replayed = common | {"--strategy": "replay", "--learning-rate": "0.0001", "--force-weight": "10"}
    plain = common | {"--strategy": "naive", "--learning-rate": "0.005", "--stress-weight": "10"}
    for name, expected in (("ft700-pt10000-w1-10-1", replayed), ("ft700-pt0-w1-1-10", plain)):
        flags = flags_of(study, "finetune_potential", name)
        assert {flag: flags[flag] for flag in expected} == expected
