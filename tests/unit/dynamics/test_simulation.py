"""Runs of a batch: killed, stopped, lengthened, exploded, they end as they should, bit for bit."""

import contextlib
import dataclasses
import json
import os
import resource
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from md_runs import ENSEMBLES, NO_LIMITS, VARIANTS, Argon, batch, calculator_of, contents, same, stage
from model_systems import LennardJonesBatch, argon, argon_model

from hopline import files
from hopline.console import InputError, Stopped
from hopline.dynamics import checkpoint
from hopline.dynamics.checks import Limits
from hopline.dynamics.outcomes import offending_of
from hopline.dynamics.replica import Replica
from hopline.dynamics.simulation import take_over
from hopline.frames import read_frames
from hopline.potentials.forcefield import SystemRefused
from hopline.trajectories import read_trajectory


def terminate(*_):
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("engine", "name"), VARIANTS)
def test_stopped_at_any_step_it_ends_as_if_unbroken(tmp_path, engine, name):
    """Force calls 2 to 30 of 51: amid a frame interval and at its end, twice in a row."""
    asked = ENSEMBLES[name]
    batch(tmp_path / "whole", asked, calculator_of(engine), engine=engine)
    happens = {2: terminate, 30: terminate}
    for _ in happens:
        with pytest.raises(Stopped, match="the same command goes on"):
            batch(tmp_path / "cut", asked, calculator_of(engine, happens), engine=engine)
        assert not (tmp_path / "cut" / "0.h5").exists()
        interrupted = files.read_json(tmp_path / "cut" / "work" / "0" / "0.json")
        assert interrupted["status"] == "interrupted"
        # of several ways through the batch the later ones count fewer calls
        happens = {9: terminate}
    batch(tmp_path / "cut", asked, calculator_of(engine), engine=engine)
    same(tmp_path / "whole", tmp_path / "cut")
    sidecar = files.read_json(tmp_path / "cut" / "0.json")
    assert sidecar["attempts"] == 3
    assert sidecar["status"] == "finished"
    assert sidecar["engine"] == engine


def test_a_job_whose_time_is_nearly_over_stops_in_time(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + 3))
    # three seconds less the margin of a tenth
    nap = dict.fromkeys(range(2, 40), lambda *_: time.sleep(0.2))
    with pytest.raises(Stopped, match="time is nearly over, at"):
        batch(tmp_path, ENSEMBLES["nve"], Argon(nap))
    assert list(tmp_path.glob("work/0/checkpoint-*.npz"))


def test_both_engines_run_the_same_nve(tmp_path):
    for engine in ("batched", "ase"):
        batch(tmp_path / engine, ENSEMBLES["nve"], calculator_of(engine), engine=engine)
    for number in range(3):
        runs = [read_trajectory(tmp_path / engine / f"{number}.h5") for engine in ("batched", "ase")]
        np.testing.assert_allclose(runs[0].positions_A, runs[1].positions_A, atol=1e-6)
        energies = [run.observables["potential_energy_eV"] for run in runs]
        np.testing.assert_allclose(energies[0], energies[1], rtol=0, atol=1e-10)


def test_a_longer_run_goes_on_where_the_shorter_one_ended(tmp_path):
    short, long = stage("nvt", duration_ps=0.1), stage("nvt", duration_ps=0.2)
    batch(tmp_path / "whole", long, Argon())
    batch(tmp_path / "grown", short, Argon())
    ended = (tmp_path / "grown" / "0.h5").read_bytes()
    first, second = Argon(), Argon()
    batch(tmp_path / "grown", short, first)
    assert first.calls == 0
    assert (tmp_path / "grown" / "0.h5").read_bytes() == ended
    before = (tmp_path / "grown" / "0.h5").open("rb")
    batch(tmp_path / "grown", long, second)
    assert second.calls == 50
    same(tmp_path / "whole", tmp_path / "grown")
    # whoever has the shorter one open keeps it
    assert before.read() == ended
    before.close()


OTHERS = (
    (stage("nvt", friction_per_ps=21.0), {}),
    (stage("nvt", seed=6), {}),
    (stage("nvt", temperature_K=301.0), {}),
    (stage("nvt"), {"depends_on": {"potential": "another"}}),
)


def test_a_run_of_other_settings_begins_anew_and_the_earlier_one_comes_back(tmp_path):
    batch(tmp_path, stage("nvt"), Argon())
    known = contents(tmp_path / "0.h5")
    for asked, settings in OTHERS:
        calculator = Argon()
        batch(tmp_path, asked, calculator, **settings)
        assert calculator.calls == 51
    for asked, settings in (*OTHERS, (stage("nvt"), {})):
        again = Argon()
        batch(tmp_path, asked, again, **settings)
        assert again.calls == 0
    assert contents(tmp_path / "0.h5") == known
    # what the ensemble does not use makes no other run
    unused = Argon()
    batch(tmp_path, stage("nvt", thermostat_time_fs=50.0, pressure_GPa=1.0), unused)
    assert unused.calls == 0


def test_a_shorter_run_costs_no_longer_one(tmp_path):
    long, short = stage("nvt", duration_ps=0.2), stage("nvt", duration_ps=0.1)
    batch(tmp_path, long, Argon())
    known = contents(tmp_path / "0.h5")
    calculator, again = Argon(), Argon()
    batch(tmp_path, short, calculator)
    assert calculator.calls == 51
    batch(tmp_path, long, again)
    assert again.calls == 0
    assert contents(tmp_path / "0.h5") == known


def test_lengths_asked_for_in_any_order_are_what_is_written(tmp_path):
    for duration_ps in (0.04, 0.02, 0.06, 0.02, 0.04, 0.02, 0.06, 0.04):
        batch(tmp_path, stage("nvt", duration_ps=duration_ps), Argon(), n=1)
        [reached_ps] = read_trajectory(tmp_path / "0.h5").time_ps[-1:]
        assert reached_ps == pytest.approx(duration_ps)
        assert files.read_json(tmp_path / "0.json")["simulated_ps"] == pytest.approx(duration_ps)


def test_a_run_of_the_version_before_checkpoints_had_moments_is_no_lost_one(tmp_path, monkeypatch):
    def as_before(folder, one):
        head = {name: getattr(one, name) for name in ("step", "identity", "ended", "values")}
        content = {checkpoint.HEAD: np.array(json.dumps({"format": 1, **head})), **one.arrays}
        np.savez(folder / f"checkpoint-{one.step:012d}.npz", **content)

    with monkeypatch.context() as earlier:
        earlier.setattr(checkpoint, "write", as_before)
        batch(tmp_path / "finished", stage("nvt"), Argon())
        with pytest.raises(Stopped):
            batch(tmp_path / "cut", stage("nvt"), Argon({20: terminate}))
    rest = Argon()
    batch(tmp_path / "finished", stage("nvt"), rest)
    assert rest.calls == 0
    batch(tmp_path / "cut", stage("nvt"), rest)
    assert 0 < rest.calls < 40
    same(tmp_path / "finished", tmp_path / "cut")


def test_limits_tightened_on_a_stopped_batch_end_the_run_that_was_beyond_them(tmp_path):
    """One of three: it is put in its place as exploded, the others go on; under looser limits so does it."""
    asked = ENSEMBLES["langevin"]
    batch(tmp_path / "whole", asked, Argon())
    with pytest.raises(Stopped):
        batch(tmp_path / "cut", asked, Argon({30: terminate}), publish=False)
    work = [tmp_path / "cut" / "work" / f"{row}" / f"{row}.json" for row in range(3)]
    largest = [files.read_json(path)["checks"]["max_force_eV_per_A"] for path in work]
    worst = int(np.argmax(largest))
    hot = Limits(**{**vars(NO_LIMITS), "max_force_eV_per_A": sum(sorted(largest)[1:]) / 2})
    for _ in range(2):
        outcomes = batch(tmp_path / "cut", asked, Argon(), limits=hot, publish=False)
        assert outcomes[worst].status == "exploded"
        assert outcomes[worst].reason.startswith("within 0.058 ps: a force of")
        seed = dataclasses.replace(asked, seed=asked.seed + worst)
        replica = Replica(argon(seed=worst), seed, tmp_path / "cut" / f"{worst}.h5")
        take_over([replica], depends_on={}, batch=tmp_path / "batch.json")
        assert files.read_json(tmp_path / "cut" / f"{worst}.json")["status"] == "exploded"
    batch(tmp_path / "cut", asked, Argon())
    same(tmp_path / "whole", tmp_path / "cut")


def test_other_limits_are_judged_without_running_what_was_run(tmp_path):
    asked = ENSEMBLES["langevin"]
    free = batch(tmp_path / "free", asked, Argon())
    largest = [outcome.checks["max_force_eV_per_A"] for outcome in free]
    hot = Limits(**{**vars(NO_LIMITS), "max_force_eV_per_A": sum(sorted(largest)[1:]) / 2})
    calculator = Argon()
    judged = batch(tmp_path / "free", asked, calculator, limits=hot)
    assert calculator.calls == 0
    worst = int(np.argmax(largest))
    assert [outcome.status for outcome in judged] == [
        "exploded" if row == worst else "finished" for row in range(3)
    ]
    assert judged[worst].reason.startswith("within 0.1 ps: a force of")
    # a run that exploded goes on under looser ones, as if they had always been
    first = batch(tmp_path / "hot", asked, Argon(), limits=hot)
    assert first[worst].status == "exploded"
    rest = Argon()
    batch(tmp_path / "hot", asked, rest)
    assert rest.joined_sizes == [1]
    assert 0 < rest.calls < 51
    batch(tmp_path / "free", asked, Argon())
    same(tmp_path / "hot", tmp_path / "free")
    assert not list((tmp_path / "hot").glob("*.offending.extxyz"))


def test_a_start_that_is_refused_holds_up_no_other(tmp_path):
    def refuse(positions_A, _):
        if len(positions_A) == 96:
            raise SystemRefused("an atom is isolated", 1)

    asked = ENSEMBLES["langevin"]
    known = batch(tmp_path / "whole", asked, Argon())
    outcomes = batch(tmp_path / "cut", asked, Argon({1: refuse}))
    assert [outcome.status for outcome in outcomes] == ["finished", "exploded", "finished"]
    assert outcomes[1].reason == "not run, since the potential refuses its start (an atom is isolated)"
    assert read_trajectory(tmp_path / "cut" / "1.h5").n_frames == 1
    assert outcomes[0].checks == known[0].checks
    again = Argon()
    assert batch(tmp_path / "cut", asked, again) == outcomes
    assert again.calls == 0


def test_a_sweep_that_one_system_cannot_follow_ends_that_one(tmp_path):
    """The third of three is refused once its cell is 1 % longer."""
    alone_or_all = {3}

    def refuse(positions_A, cells_A):
        if len(cells_A) in alone_or_all and positions_A[-32:].abs().max() > longest:
            raise SystemRefused("too far", len(cells_A) - 1)

    longest = 1.01 * argon(seed=2).positions.max()
    asked = ENSEMBLES["sweep"]
    outcomes = batch(tmp_path, asked, Argon(dict.fromkeys(range(1, 80), refuse)))
    assert [outcome.status for outcome in outcomes] == ["finished", "finished", "exploded"]


def test_a_batch_put_together_anew_runs_what_is_missing(tmp_path):
    asked = stage("nvt")
    batch(tmp_path / "whole", asked, Argon())
    batch(tmp_path / "grown", asked, Argon(), n=2)
    calculator = Argon()
    batch(tmp_path / "grown", asked, calculator)
    assert calculator.joined_sizes == [1]
    same(tmp_path / "whole", tmp_path / "grown")


def test_an_exploded_replica_is_a_result_and_the_others_go_on(tmp_path):
    """The second of three is refused by the model at its call 20; the others are the same bits as without it."""

    def refuse(*_):
        raise SystemRefused("atom 3 is isolated", 1)

    asked = ENSEMBLES["langevin"]
    batch(tmp_path / "whole", asked, Argon())
    outcomes = batch(tmp_path / "cut", asked, Argon({20: refuse}))
    assert [outcome.status for outcome in outcomes] == ["finished", "exploded", "finished"]
    # calls 1 to 19: the start and 18 steps; frames each second step
    assert outcomes[1].reason.startswith(
        "after 0.036 ps: the potential refuses what came next (atom 3 is isolated"
    )
    assert outcomes[1].simulated_ps == pytest.approx(0.036)
    kept, known = read_trajectory(tmp_path / "cut" / "1.h5"), read_trajectory(tmp_path / "whole" / "1.h5")
    np.testing.assert_array_equal(kept.positions_A, known.positions_A[:10])
    [offending] = read_frames(offending_of(tmp_path / "cut" / "1.h5"))
    np.testing.assert_allclose(offending.positions, known.positions_A[9], atol=1e-5)
    for number in (0, 2):
        assert contents(tmp_path / "cut" / f"{number}.h5") == contents(tmp_path / "whole" / f"{number}.h5")
    # called again it is over, and says the same
    again = Argon()
    assert batch(tmp_path / "cut", asked, again) == outcomes
    assert again.calls == 0


def test_a_batch_cut_off_before_and_after_an_explosion_ends_as_if_unbroken(tmp_path):
    asked = ENSEMBLES["langevin"]
    largest = sorted(
        outcome.checks["max_force_eV_per_A"] for outcome in batch(tmp_path / "unwatched", asked, Argon())
    )
    # one of the three has a larger force than the others ever
    hot = Limits(**{**vars(NO_LIMITS), "max_force_eV_per_A": sum(largest[1:]) / 2})
    whole = batch(tmp_path / "whole", asked, Argon(), limits=hot)
    assert sorted(outcome.status for outcome in whole) == ["exploded", "finished", "finished"]
    for call in range(3, 50, 6):
        folder = tmp_path / str(call)
        with pytest.raises(Stopped):
            batch(folder, asked, Argon({call: terminate}), limits=hot)
        batch(folder, asked, Argon(), limits=hot)
        same(tmp_path / "whole", folder)


def test_no_number_ends_a_run(tmp_path):
    def spoil(positions_A, _):
        positions_A[40] = torch.nan

    [first, second, third] = batch(tmp_path, ENSEMBLES["nve"], Argon({20: spoil}))
    assert (first.status, third.status) == ("finished", "finished")
    assert second.status == "exploded"
    assert "no longer finite" in second.reason


def test_all_that_can_explode_may(tmp_path):
    outcomes = batch(tmp_path, ENSEMBLES["nve"], Argon(), limits=Limits(max_temperature_ratio=0.01))
    assert {outcome.status for outcome in outcomes} == {"exploded"}
    assert all(outcome.reason.startswith("after 0 ps: temperature") for outcome in outcomes)
    assert read_trajectory(tmp_path / "0.h5").n_frames == 1


def test_a_lost_or_damaged_trajectory_is_made_anew(tmp_path, capsys):
    asked = ENSEMBLES["langevin"]
    batch(tmp_path / "whole", asked, Argon())
    for damage in (lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:3000])):
        with pytest.raises(Stopped):
            batch(tmp_path / "cut", asked, Argon({30: terminate}))
        damage(tmp_path / "cut" / "work" / "1" / "1.h5")
        batch(tmp_path / "cut", asked, Argon())
        assert "1.h5 begins anew" in capsys.readouterr().err
        same(tmp_path / "whole", tmp_path / "cut")
        for path in (tmp_path / "cut").glob("work/*/*"):
            path.unlink()


def test_what_a_killed_writer_left_over_is_removed(tmp_path):
    with pytest.raises(Stopped):
        batch(tmp_path, ENSEMBLES["nve"], Argon({9: terminate}))
    work = tmp_path / "work" / "0"
    kept = {path.name for path in work.iterdir()}
    for name in (".0-k3_a9b2c.h5", ".checkpoint-000000000008-abcdefgh.npz"):
        (work / name).write_bytes(b"cut off")
    batch(tmp_path, ENSEMBLES["nve"], Argon())
    assert {path.suffix for path in work.iterdir()} == {Path(name).suffix for name in kept}
    assert not [path for path in work.iterdir() if path.name.startswith(".")]


def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_room(tmp_path):
    """Every size at which the file may not grow further, whatever is being written then."""
    asked = ENSEMBLES["piston"]
    batch(tmp_path / "whole", asked, Argon(), checkpoint_interval_s=0.0)
    largest = max(path.stat().st_size for path in (tmp_path / "whole").rglob("*.h5"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for limit in np.linspace(1000, largest + 1000, 14).astype(int):
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), before[1]))
            with pytest.raises(OSError, match="cut") if limit < largest else contextlib.nullcontext():
                batch(tmp_path / "cut", asked, Argon(), checkpoint_interval_s=0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    batch(tmp_path / "cut", asked, Argon(), checkpoint_interval_s=0.0)
    same(tmp_path / "whole", tmp_path / "cut")


def test_two_runs_in_one_folder_are_refused(tmp_path):
    def another(*_):
        with pytest.raises(InputError, match="in use by another process"):
            batch(tmp_path, ENSEMBLES["nve"], Argon())

    calculator = Argon({5: another})
    batch(tmp_path, ENSEMBLES["nve"], calculator)
    assert calculator.calls == 51


def test_a_batch_too_large_for_the_card_is_parted_and_says_so(tmp_path, capsys):
    """A card that holds two systems: five go in parts of three, then of two, and come out the same."""

    class Small(LennardJonesBatch):
        def compute(self, positions_A, cells_A, *, stress):
            if len(cells_A) > 2:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return super().compute(positions_A, cells_A, stress=stress)

    asked = ENSEMBLES["piston"]
    batch(tmp_path / "whole", asked, Argon(), n=5)
    calculator = Argon(model=partial(argon_model, Small))
    batch(tmp_path / "parted", asked, calculator, n=5)
    told = capsys.readouterr().err
    assert "5 systems do not fit in the card's memory: 3 at a time" in told
    assert "2 at a time" in told
    assert calculator.joined_sizes == [5, 3, 2, 2, 2, 1]
    same(tmp_path / "whole", tmp_path / "parted", n=5)


def test_one_system_too_large_for_the_card_is_told(tmp_path):
    class Full(LennardJonesBatch):
        def compute(self, *_, **__):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(InputError, match="one system of 32 atoms is more than the card's memory holds"):
        batch(tmp_path, ENSEMBLES["nve"], Argon(model=partial(argon_model, Full)), n=2)


def test_what_a_batch_left_in_work_folders_is_put_in_its_place_later(tmp_path):
    asked = ENSEMBLES["nve"]
    batch(tmp_path, asked, Argon(), publish=False)
    assert not list(tmp_path.glob("*.h5"))
    replica = Replica(argon(seed=0), asked, tmp_path / "0.h5")
    take_over([replica], depends_on={}, batch=tmp_path / "batch.json")
    assert read_trajectory(tmp_path / "0.h5").n_frames == 26
    assert files.read_json(tmp_path / "0.json")["replicas_in_batch"] == 3
    assert (tmp_path / "0.h5").stat().st_nlink == 2
    longer = Replica(argon(seed=0), stage("nve", duration_ps=0.2), tmp_path / "0.h5")
    with pytest.raises(InputError, match="does not hold this run to its end"):
        take_over([longer], depends_on={}, batch=tmp_path / "batch.json")


def test_the_line_tells_how_far_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("hopline.console.PLAIN_LINE_INTERVAL_S", 0.0)
    batch(tmp_path, ENSEMBLES["nve"], Argon())
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("nve: ")]
    assert len(lines) >= 50
    assert all(" ns/day each of 3 replicas; T " in line and " s left; " in line for line in lines[2:])
    assert " of 0.1 ps, " in lines[-1]
    assert "drift " in lines[-1]
