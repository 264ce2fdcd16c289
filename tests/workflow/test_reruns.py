"""Only what is new or changed runs: a temperature, a system, a potential, a deleted result, a forced rule."""

import os
from pathlib import Path

import pytest
import workflow_runs

pytestmark = pytest.mark.slow

REPORT, SUMMARY, EVALUATIONS = ("report_system", "lif"), ("collect_summary",), ("collect_evaluations",)


@pytest.fixture(scope="module")
def finished(tree: Path) -> Path:
    """Copy of the repository in which the quickstart has run, a replica a job (with empty results)."""
    quickstart = tree / "config" / "quickstart.yaml"
    workflow_runs.write_config(quickstart, quickstart, lambda config: config.pop("execution"))
    workflow_runs.finish_everything(tree, quickstart)
    return tree


@pytest.fixture
def jobs_after(finished: Path, tmp_path):
    """Function that lists the jobs left to do after a change of the config, or with more flags."""

    def dry_run(change=None, *flags):
        config = workflow_runs.write_config(
            tmp_path / "changed.yaml", finished / "config" / "quickstart.yaml", change
        )
        run = workflow_runs.snakemake(finished, "-n", "--configfile", str(config), *flags)
        assert run.status == 0, run.output
        return run.jobs

    return dry_run


def point(potential, temperature_K):
    """Jobs of one condition of one potential, from NVT to the Arrhenius fit, report and summary."""
    one = ("lif", potential, "Li1", temperature_K)
    return {
        ("equilibrate_nvt", *one),
        ("select_starts", *one),
        *(("simulate_replica", *one, str(replica)) for replica in (1, 2, 3)),
        ("estimate_diffusivity", *one),
        ("compute_pair_correlations", *one),
        ("fit_arrhenius", "lif", potential, "Li1"),
        REPORT,
        SUMMARY,
    }


def test_nothing_changed_nothing_runs(jobs_after):
    # the changed config is written with its keys in alphabetical order: their order has no meaning
    assert jobs_after() == set()


def test_default_written_out_repeats_nothing(jobs_after):
    assert jobs_after(lambda config: config["dynamics"]["nvt"].update(friction_per_ps=10)) == set()


def test_new_temperature_runs_only_its_jobs(jobs_after):
    # chgnet-ft gives the volume of all potentials, so its NpT run is made at the new temperature too
    jobs = jobs_after(lambda config: config["systems"]["lif"]["temperatures_K"].append(850))
    assert jobs == {("equilibrate_npt", "lif", "chgnet-ft", "bulk", "850"), *point("mace", "850")}


def test_new_potential_runs_only_its_jobs(jobs_after):
    new = {"family": "chgnet", "weights": "r2scan", "temperatures_K": [900]}
    jobs = jobs_after(lambda config: config["potentials"].update({"chgnet-r2scan": new}))
    assert jobs == {
        ("fetch_potential", "lif", "chgnet-r2scan"),
        ("evaluate_potential", "lif", "chgnet-r2scan"),
        EVALUATIONS,
        *point("chgnet-r2scan", "900"),
    }


@pytest.mark.parametrize(
    ("potential", "change", "rule"),
    [
        ("mace", {"training": {"learning_rate": 5e-3}}, "finetune_potential"),
        ("mace", {"training": {"epochs": 7}}, "finetune_potential"),
        ("mace", {"train_frames": 30}, "finetune_potential"),
        ("mace", {"seed": 2}, "finetune_potential"),
        ("chgnet-ft", {"strategy": "frozen-embeddings"}, "finetune_potential"),
        ("chgnet", {"weights": "r2scan"}, "fetch_potential"),
    ],
)
def test_a_changed_potential_is_made_anew(jobs_after, potential, change, rule):
    def edit(config):
        entry = config["potentials"][potential]
        entry |= change | (
            {"training": entry.get("training", {}) | change["training"]} if "training" in change else {}
        )

    jobs = jobs_after(edit)
    made = {job for job in jobs if job[0] in {"finetune_potential", "fetch_potential"}}
    # chgnet-ft starts from chgnet
    follows = {("finetune_potential", "lif", "chgnet-ft")} if potential == "chgnet" else set()
    assert made == {(rule, "lif", potential)} | follows
    assert ("evaluate_potential", "lif", potential) in jobs


def test_a_changed_split_makes_the_dataset_anew(jobs_after):
    jobs = jobs_after(lambda config: config["datasets"]["lif-direct"].update(valid_fraction=0.3))
    assert ("assemble_dataset", "lif", "lif-direct") in jobs


def test_new_system_leaves_the_other_alone(jobs_after):
    def add(config):
        config["systems"]["nacl"] = config["systems"]["lif"] | {
            "host": {"prototype": "rocksalt", "species": ["Na", "Cl"], "lattice_constants_A": [5.64]},
            "mobile": "Na",
        }

    jobs = jobs_after(add)
    assert {job[1] for job in jobs - {SUMMARY, EVALUATIONS}} == {"nacl"}
    assert SUMMARY in jobs
    assert ("report_system", "nacl") in jobs


def test_longer_production_repeats_replicas_and_what_follows(jobs_after):
    jobs = jobs_after(lambda config: config["dynamics"]["production"].update(duration_ps=16))
    # the CHGNet potentials have durations of their own
    assert {job[2] for job in jobs if job not in {REPORT, SUMMARY}} == {"mace"}
    assert {rule for rule, *_ in jobs} == {
        "simulate_replica",
        "estimate_diffusivity",
        "compute_pair_correlations",
        "fit_arrhenius",
        "report_system",
        "collect_summary",
    }


def test_stability_examined_anew_repeats_no_dynamics(jobs_after):
    jobs = jobs_after(lambda config: config["stability"].update(scan_points=50))
    assert jobs == {*(("evaluate_stability", "lif", name) for name in ("chgnet-ft", "mace")), REPORT}


def test_evaluations_alone_run_no_dynamics(finished):
    config = str(finished / "config" / "quickstart.yaml")
    forced = workflow_runs.snakemake(
        finished, "-n", "-F", "--configfile", config, "--", "results/evaluations.csv"
    )
    assert EVALUATIONS in forced.jobs
    assert {("finetune_potential", "lif", name) for name in ("chgnet-ft", "mace")} < forced.jobs
    assert not forced.rules & {
        "explore_configurations",
        "equilibrate_npt",
        "equilibrate_nvt",
        "simulate_replica",
    }


def test_trained_potentials_are_run_only_when_they_are_fit(finished):
    for potential, fit in (("mace", True), ("chgnet", False)):
        target = f"results/lif/dynamics/{potential}/Li1/1000K/nvt.h5"
        config = finished / "config" / "quickstart.yaml"
        forced = workflow_runs.snakemake(finished, "-n", "-F", "--configfile", str(config), "--", target)
        assert (("evaluate_stability", "lif", potential) in forced.jobs) == fit


def test_forced_rule_and_what_follows(jobs_after):
    lines = {("fit_arrhenius", "lif", potential, "Li1") for potential in ("chgnet", "chgnet-ft", "mace")}
    assert jobs_after(None, "-R", "fit_arrhenius") == lines | {REPORT, SUMMARY}


def test_deleted_result_comes_back_alone(finished, jobs_after):
    deleted = finished / "results/lif/diffusion/mace/Li1/900K.json"
    deleted.unlink()
    try:
        assert jobs_after() == {
            ("estimate_diffusivity", "lif", "mace", "Li1", "900"),
            ("fit_arrhenius", "lif", "mace", "Li1"),
            REPORT,
            SUMMARY,
        }
    finally:
        deleted.touch()
        workflow_runs.snakemake(finished, "--touch", "--cores", "1", "--configfile", "config/quickstart.yaml")


def test_script_touched_without_a_change_repeats_no_dynamics(finished, jobs_after):
    os.utime(finished / "scripts" / "simulate_replica.py")
    assert jobs_after() == set()


def test_edited_script_repeats_its_rule(finished, jobs_after):
    script = finished / "scripts" / "fit_arrhenius.py"
    original = script.read_text()
    script.write_text(original + "# edited\n")
    try:
        assert {rule for rule, *_ in jobs_after()} == {"fit_arrhenius", "report_system", "collect_summary"}
    finally:
        script.write_text(original)
