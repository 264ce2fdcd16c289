"""Batches: the same files however the runs are cut into jobs, and no molecular dynamics twice."""

import os
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import workflow_runs
from md_runs import contents

from hopline import files
from hopline.trajectories import read_trajectory

CUTS = ("none", "replicas", "conditions")
SAME_A = 1e-4
"""Positions after 34 steps alone and in a batch: CHGNet's forces (float32) differ by rounding, 1e-5 eV/A at most."""
QUICKSTART = Path("config") / "quickstart.yaml"


def cut(how):
    """Flags that cut the runs into jobs."""
    return ("--config", f"execution={{batch: {how}}}")


def dry_run(tree, *flags, config=QUICKSTART):
    run = workflow_runs.snakemake(tree, "-n", "-p", "--configfile", str(config), *flags)
    assert run.status == 0, run.output
    return run


def counts(run):
    """Number of jobs of each rule that runs molecular dynamics or puts it in place."""
    of_dynamics = ("explore_", "equilibrate_", "simulate_")
    return {
        rule: n for rule, n in Counter(job[0] for job in run.jobs).items() if rule.startswith(of_dynamics)
    }


SINGLE_RUNS = {
    "explore_configurations": 4,
    "equilibrate_npt": 3,
    "equilibrate_nvt": 5,
    "simulate_replica": 15,
}
"""Of the quickstart: 2 compositions at 2 temperatures; one volume a temperature; MACE at three, two CHGNets at one."""
SHARED_JOBS = {
    "none": {},
    "replicas": {"simulate_replica_batch": 5},
    # one potential gives all volumes; NVT and NVE are run with three
    "conditions": {
        "explore_configurations_batch": 1,
        "equilibrate_npt_batch": 1,
        "equilibrate_nvt_batch": 3,
        "simulate_replica_batch": 3,
    },
}


@pytest.mark.parametrize("how", CUTS)
def test_the_quickstart_has_its_jobs(tree, how):
    assert counts(dry_run(tree, *cut(how))) == SINGLE_RUNS | SHARED_JOBS[how]


@pytest.mark.parametrize("how", CUTS)
def test_compositions_and_temperatures_of_a_potential_run_together(tree, how):
    def change(config):
        config["systems"]["lif"]["compositions"] = {"bulk": 0, "Li1": 1, "Li2": 2}
        config["potentials"] = {"chgnet": {"family": "chgnet", "weights": "0.3.0"}}
        config["datasets"] = {}
        del config["dynamics"]["npt"]["volume_from_potential"], config["dynamics"]["npt"]["volume_from"]

    config = workflow_runs.write_config(tree / "two.yaml", tree / QUICKSTART, change)
    run = dry_run(tree, *cut(how), config=config)
    shared = {
        "none": {},
        "replicas": {"simulate_replica_batch": 6},
        "conditions": {
            f"{rule}_batch": 1 for rule in ("equilibrate_npt", "equilibrate_nvt", "simulate_replica")
        },
    }
    single = {"equilibrate_npt": 6, "equilibrate_nvt": 6, "simulate_replica": 18}
    assert counts(run) == single | shared[how]
    if how == "conditions":
        [words] = [
            words for name, words in run.commands if name == "simulate_replica" and "--write-batch" in words
        ]
        values = words[words.index("--start") + 1 : words.index("--potential")]
        places = [
            f"{name}/{at}K/start-{n}" for name in ("Li1", "Li2") for at in (800, 900, 1000) for n in (1, 2, 3)
        ]
        assert values == [f"results/lif/dynamics/chgnet/{place}.extxyz" for place in places]
        given = words[words.index("--temperature-K") + 1 : words.index("--trajectory")]
        assert given == [str(at) for at in (800, 900, 1000) for _ in range(3)] * 2


def test_without_batches_each_command_runs_one_replica(tree):
    run = dry_run(tree, *cut("none"))
    for name, words in run.commands:
        assert not {"--write-batch", "--from-batch"} & set(words)
        if name.startswith(("equilibrate_", "simulate_", "explore_")):
            assert words[words.index("--trajectory") + 1 :] == words[-1:]


def test_a_condition_that_nothing_asks_for_is_a_batch_of_its_own(tree):
    target = "results/lif/dynamics/chgnet/Li1/950K/nve-1.h5"
    run = dry_run(tree, *cut("conditions"), "--", target)
    batches = {job[0]: job[-1] for job in run.jobs if job[0].endswith("_batch")}
    assert batches == {
        "equilibrate_npt_batch": "bulk-950K",
        "equilibrate_nvt_batch": "Li1-950K",
        "simulate_replica_batch": "Li1-950K",
    }


@pytest.mark.parametrize("flag", ["--profile", "--workflow-profile"])
@pytest.mark.parametrize(
    ("profile", "how"), [("local", "none"), ("gpu", "conditions"), ("slurm", "conditions")]
)
def test_profiles_cut_the_work_for_their_machines(tree, flag, profile, how):
    config = workflow_runs.write_config(
        tree / "any.yaml", tree / QUICKSTART, lambda config: config.pop("execution")
    )
    assert counts(dry_run(tree, flag, f"profiles/{profile}", config=config)) == SINGLE_RUNS | SHARED_JOBS[how]


def test_a_config_flag_wins_over_the_profile(tree):
    run = dry_run(tree, "--workflow-profile", "profiles/gpu", *cut("replicas"))
    assert counts(run) == SINGLE_RUNS | SHARED_JOBS["replicas"]


def test_slurm_may_fuse_the_stages_of_a_condition(tree):
    profile = tree / "profiles" / "fused" / "config.yaml"
    profile.parent.mkdir()
    text = (tree / "profiles" / "slurm" / "config.yaml").read_text()
    for line in ("groups: [", "group-components: ["):
        assert f"\n# {line}" in text
        text = text.replace(f"\n# {line}", f"\n{line}")
    assert "  # select_starts: *gpu\n" in text
    text = text.replace("  # select_starts: *gpu\n", "  select_starts: *gpu\n")
    profile.write_text(text.replace("batch: conditions", "batch: replicas"))
    run = dry_run(tree, "--workflow-profile", str(profile.parent))
    # three temperatures; at the third there are three potentials, whose volume is one of them's
    assert run.output.count("roup job condition") == 3
    grouped = Counter(re.findall(r"^ +rule (\w+):", run.output, flags=re.MULTILINE))
    assert grouped == {
        "equilibrate_npt": 3,
        "equilibrate_nvt": 5,
        "select_starts": 5,
        "simulate_replica_batch": 5,
    }


# ---- runs -------------------------------------------------------------------------------------------------------

TEMPERATURES_K = (600, 900)
STAGES = ("npt", "nvt", "nve-1", "nve-2")


def shorten(config, temperatures_K, production_ps):
    """Leave a shipped CHGNet, nine atoms, two replicas, and some ten steps a stage."""
    config["systems"]["lif"] |= {
        "host": config["systems"]["lif"]["host"] | {"cell": "conventional"},
        "supercell": [1, 1, 1],
        "compositions": {"Li1": 1},
        "temperatures_K": list(temperatures_K),
    }
    config["potentials"] = {"chgnet": {"family": "chgnet", "weights": "0.3.0"}}
    config["datasets"] = {}
    common = {"timestep_fs": 2, "frame_interval_fs": 4}
    config["dynamics"] = {
        "checkpoint_interval_s": 0.5,
        "npt": {"duration_ps": 0.02, **common},
        "nvt": {"duration_ps": 0.04, **common},
        "production": {"duration_ps": production_ps, "replicas": 2, "starts_apart_ps": 0.004, **common},
    }


def places(temperatures_K=TEMPERATURES_K):
    folder = "results/lif/dynamics/chgnet/Li1"
    return [f"{folder}/{at}K/{stage}.h5" for at in temperatures_K for stage in STAGES]


def arguments(tree, how, *flags, temperatures_K=TEMPERATURES_K, production_ps=0.02):
    """Return what Snakemake is called with for the dynamics, with short runs."""
    config = workflow_runs.write_config(
        tree / "short.yaml", tree / QUICKSTART, lambda config: shorten(config, temperatures_K, production_ps)
    )
    targets = [place for place in places(temperatures_K) if "nve" in place]
    return ("--cores", "2", "--configfile", str(config), *cut(how), *flags, "--", *targets)


def run(tree, how, *flags, **lengths):
    """Run the dynamics with short runs, or say what would be run."""
    done = workflow_runs.snakemake(tree, *arguments(tree, how, *flags, **lengths))
    assert done.status == 0, done.output
    return done


def sidecars(tree, temperatures_K=TEMPERATURES_K):
    return {place: files.read_json((tree / place).with_suffix(".json")) for place in places(temperatures_K)}


def of_users(tree):
    """Names of what a user finds: all but work folders and what a batch says of itself."""
    paths = (tree / "results" / "lif" / "dynamics").rglob("*")
    found = {path.relative_to(tree).as_posix() for path in paths if path.is_file()}
    return {name for name in found if "/work/" not in name and "/batches/" not in name}


@pytest.fixture(scope="module")
def alone(repository, tmp_path_factory):
    """Copy of the repository in which each replica was run in a job of its own."""
    tree = workflow_runs.copy_repository(repository, tmp_path_factory.mktemp("alone") / "hopline")
    run(tree, "none")
    return tree


@pytest.fixture(scope="module")
def together(repository, tmp_path_factory):
    """Copy in which all were run together."""
    tree = workflow_runs.copy_repository(repository, tmp_path_factory.mktemp("together") / "hopline")
    run(tree, "conditions")
    return tree


pytestmark = pytest.mark.slow


def test_the_same_files_with_and_without_batches(alone, together):
    assert of_users(alone) == of_users(together)
    for place in places():
        one, other = (read_trajectory(tree / place) for tree in (alone, together))
        assert one.n_frames == other.n_frames > 5
        np.testing.assert_allclose(one.positions_A, other.positions_A, atol=SAME_A)
        np.testing.assert_allclose(one.cells_A, other.cells_A, atol=SAME_A)
    in_batch = {place: sidecar["replicas_in_batch"] for place, sidecar in sidecars(together).items()}
    assert in_batch == {place: 4 if "nve" in place else 2 for place in places()}
    assert {sidecar["replicas_in_batch"] for sidecar in sidecars(alone).values()} == {1}
    assert {one["status"] for tree in (alone, together) for one in sidecars(tree).values()} == {"finished"}


def test_nothing_is_left_to_do(alone, together):
    for tree, how in ((alone, "none"), (together, "conditions")):
        assert run(tree, how, "-n").jobs == set()


def test_another_cut_of_finished_runs_runs_no_dynamics(alone):
    before = sidecars(alone)
    inodes = {place: (alone / place).stat().st_ino for place in places()}
    run(alone, "conditions")
    assert sidecars(alone) == before
    # second names of the same data
    assert {place: (alone / place).stat().st_ino for place in places()} == inodes


def test_only_what_is_new_is_simulated(together):
    """A temperature more and a longer production: the batch runs a new condition, and the rest of the old ones."""
    more_K = (*TEMPERATURES_K, 750)
    before = sidecars(together)
    run(together, "conditions", temperatures_K=more_K)
    after = sidecars(together, more_K)
    assert {place: after[place] for place in before} == before
    new = {place: one["replicas_in_batch"] for place, one in after.items() if "/750K/" in place}
    assert new == {place: 2 if "nve" in place else 1 for place in places([750])}
    assert run(together, "conditions", "-n", temperatures_K=more_K).jobs == set()

    short = read_trajectory(together / places()[-1])
    planned = run(together, "conditions", "-n", temperatures_K=more_K, production_ps=0.032).rules
    assert planned == {"simulate_replica_batch", "simulate_replica"}
    run(together, "conditions", temperatures_K=more_K, production_ps=0.032)
    longer = sidecars(together, more_K)
    for place in places(more_K):
        if "nve" in place:
            assert longer[place]["simulated_ps"] == pytest.approx(0.032)
            assert longer[place]["attempts"] == 2
        else:
            assert longer[place] == after[place]
    np.testing.assert_array_equal(
        read_trajectory(together / places()[-1]).positions_A[: short.n_frames], short.positions_A
    )


def killed_after_a_checkpoint(tree, step, *call):
    """Call Snakemake and kill it with all that it runs once a replica has a checkpoint later than a step."""
    with (tree / "killed.log").open("wb") as log, workflow_runs.started(tree, *call, log=log) as process:
        give_up_s = time.monotonic() + 300
        while not any(
            int(path.stem.split("-")[1]) > step
            for path in tree.glob("results/**/work/nve-1/checkpoint-*.npz")
        ):
            assert process.poll() is None, (tree / "killed.log").read_text()
            assert time.monotonic() < give_up_s
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)


def test_killed_with_all_its_jobs_and_called_again_it_ends_as_unbroken(together, tmp_path):
    """Snakemake itself, its shell and the script, in the midst of a batch of four replicas."""
    tree = tmp_path / "killed"
    shutil.copytree(together, tree, symlinks=True)
    run(together, "conditions", production_ps=0.1)
    killed_after_a_checkpoint(tree, 16, *arguments(tree, "conditions", production_ps=0.1))
    assert not any(sidecar["simulated_ps"] == pytest.approx(0.1) for sidecar in sidecars(tree).values())
    workflow_runs.snakemake(tree, *arguments(tree, "conditions", "--unlock", production_ps=0.1))
    run(tree, "conditions", production_ps=0.1)
    whole, cut_off = (sidecars(one) for one in (together, tree))
    for place, sidecar in cut_off.items():
        assert sidecar["checks"] == whole[place]["checks"]
        assert sidecar["attempts"] == whole[place]["attempts"] + ("nve" in place)
        assert contents(tree / place) == contents(together / place)
