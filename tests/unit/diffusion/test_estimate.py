"""Random walks of known D come back with it, inside their interval, and with the verdict they deserve."""

import numpy as np
import pytest
from random_walks import FRAME_INTERVAL_PS, SITES_A, conserved_energies, gaussian_walk, trajectory_of

from hopline.console import InputError
from hopline.diffusion.estimate import estimate_diffusivity
from hopline.diffusion.replicas import ReplicaSource, energy_drift
from hopline.diffusion.verdict import VerdictThresholds

D_A2_PER_PS = 0.5
SI = 1e-4
FRAMES = 600


def caged_walk(*, rate_per_ps, frames, walkers, seed, jump_A=2.0, vibration_A=0.25):
    """Ions vibrating on a lattice and jumping along its axes: D = rate jump^2 / 6."""
    rng = np.random.default_rng(seed)
    jumps = rng.random((frames, walkers, 1)) < rate_per_ps * FRAME_INTERVAL_PS
    axes = np.eye(3)[rng.integers(3, size=(frames, walkers))] * rng.choice([-1, 1], size=(frames, walkers, 1))
    path = np.cumsum(jump_A * jumps * axes, axis=0)
    return path + rng.normal(scale=vibration_A, size=path.shape)


def replicas_of(walks, **settings):
    """Sources from mobile positions, total energy conserved."""
    sources = []
    for row, walk in enumerate(walks):
        energies = conserved_energies(len(walk), walk.shape[1] + len(SITES_A))
        trajectory = trajectory_of(walk, **{"observables": energies, **settings})
        sources.append(
            ReplicaSource(f"replica-{row + 1}", lambda trajectory=trajectory: trajectory, "finished")
        )
    return sources


def walks(walkers, seed, *, count=3, frames=FRAMES, make=gaussian_walk, **settings):
    settings = settings or {"diffusivity_A2_per_ps": D_A2_PER_PS}
    return [make(frames=frames, walkers=walkers, seed=1000 * seed + row, **settings) for row in range(count)]


@pytest.mark.parametrize("walkers", [1, 27])
@pytest.mark.parametrize("drift", [False, True])
def test_the_interval_covers(walkers, drift):
    """A 95 % interval must cover in at least 90 of 100 seeds: false alarm 2.8 % at exactly 95 %, and ours are wider."""
    covered, values = 0, []
    for seed in range(100):
        common = np.cumsum(np.random.default_rng(seed).normal(scale=0.3, size=(FRAMES, 1, 3)) + 0.1, axis=0)
        sources = replicas_of(walks(walkers, seed), common=common * drift)
        result, _ = estimate_diffusivity(sources, species="Li")
        low, high = result.interval_95_cm2_per_s
        covered += low <= D_A2_PER_PS * SI <= high
        values.append(result.diffusivity_cm2_per_s)
    assert covered >= 90
    assert np.mean(values) == pytest.approx(D_A2_PER_PS * SI, rel=0.03 if walkers == 1 else 0.01)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_caged_walks_of_any_number_of_replicas_cover(count):
    """As above, with 60 seeds and at least 52 of them: false alarm 0.5 % at exactly 95 %."""
    covered = 0
    for seed in range(60):
        sources = replicas_of(walks(8, seed, count=count, make=caged_walk, rate_per_ps=0.2))
        result, _ = estimate_diffusivity(sources, species="Li")
        low, high = result.interval_95_cm2_per_s
        covered += low <= 0.2 * 4 / 6 * SI <= high
    assert covered >= 52
    assert ("one replica" in result.method) == (count == 1)
    assert (result.verdict == "reliable") <= (count > 1)


def test_a_good_run_is_reliable_and_adds_up():
    result, curve = estimate_diffusivity(
        replicas_of(walks(27, 1, make=caged_walk, rate_per_ps=0.3)), species="Li"
    )
    assert result.verdict == "reliable", result.reasons
    each = np.array([one.diffusivity_cm2_per_s for one in result.replicas])
    assert result.diffusivity_cm2_per_s == pytest.approx(each.mean())
    assert result.standard_error_cm2_per_s == pytest.approx(each.std(ddof=1) / np.sqrt(3))
    assert result.hops == sum(one.hops for one in result.replicas)
    jumps = 0.3 * 27 * FRAMES * FRAME_INTERVAL_PS * 3
    assert result.hops == pytest.approx(jumps, rel=0.1)
    assert result.msd_exponent == pytest.approx(1, abs=0.2)
    assert result.temperature_K == pytest.approx(700)
    assert result.n_mobile == 27
    start, stop = result.lag_window_ps
    assert 0 < start < stop == pytest.approx(0.3 * (FRAMES - 1) * FRAME_INTERVAL_PS, abs=FRAME_INTERVAL_PS)
    assert curve.msd_A2.shape == (3, len(curve.lag_ps))
    np.testing.assert_allclose(curve.mean_msd_A2, curve.msd_A2.mean(axis=0))
    assert len(curve.table()) == len(curve.lag_ps) + 1


def test_a_stated_window_is_kept():
    result, _ = estimate_diffusivity(
        replicas_of(walks(27, 2)), species="Li", fit_start_ps=2.0, fit_stop_ps=10.0
    )
    assert result.lag_window_ps == pytest.approx((2.0, 10.0))
    assert result.diffusivity_cm2_per_s == pytest.approx(D_A2_PER_PS * SI, rel=0.1)


def test_lattice_vibrations_show_no_diffusion():
    vibrating = walks(4, 3, make=caged_walk, rate_per_ps=0.0)
    result, _ = estimate_diffusivity(replicas_of(vibrating), species="Li")
    assert result.verdict == "no-diffusion-seen"
    assert result.diffusivity_cm2_per_s is None
    assert result.hops == 0
    exposure_ps = 3 * 4 * (FRAMES - 1) * FRAME_INTERVAL_PS
    expected = -np.log(0.05) / exposure_ps * (2 * result.hop_length_A) ** 2 / 6 * SI
    assert result.upper_bound_cm2_per_s == pytest.approx(expected)
    assert result.interval_95_cm2_per_s == pytest.approx((0.0, expected))


def test_few_hops_are_weak():
    result, _ = estimate_diffusivity(
        replicas_of(walks(1, 4, make=caged_walk, rate_per_ps=0.06)), species="Li"
    )
    assert result.verdict == "weak"
    assert any("hops in the quietest replica" in reason for reason in result.reasons)


def test_exploded_replicas_are_left_out_unread_beside_sound_ones():
    good = replicas_of(walks(27, 5))

    def never():
        raise AssertionError("an exploded trajectory was read")

    exploded = ReplicaSource("replica-x", never, "exploded", "temperature above 10000 K")
    result, _ = estimate_diffusivity([*good[:2], exploded], species="Li")
    assert [one.used for one in result.replicas] == [True, True, False]
    assert "replica-x is left out, it exploded: temperature above 10000 K." in result.reasons
    assert result.diffusivity_cm2_per_s == pytest.approx(D_A2_PER_PS * SI, rel=0.2)
    result, curve = estimate_diffusivity(
        [good[0], exploded, ReplicaSource("y", never, "exploded")], species="Li"
    )
    assert (result.verdict, result.diffusivity_cm2_per_s, curve) == ("invalid", None, None)
    assert "1 of 3 replicas can be used, 2 are needed." in result.reasons


def test_an_absent_species_is_refused_though_every_replica_exploded():
    trajectory = trajectory_of(walks(8, 1)[0])
    exploded = [ReplicaSource(name, lambda: trajectory, "exploded") for name in "ab"]
    assert estimate_diffusivity(exploded, species="Li")[0].verdict == "invalid"
    with pytest.raises(InputError, match="has no H"):
        estimate_diffusivity(exploded, species="H")


def test_a_cut_replica_does_not_cut_the_window():
    short, long = walks(27, 6, frames=200)[:1], walks(27, 7)[:2]
    result, _ = estimate_diffusivity(replicas_of([*long, *short]), species="Li")
    assert [one.used for one in result.replicas] == [True, True, False]


@pytest.mark.parametrize(("drift", "verdict"), [(0.03, "reliable"), (0.2, "weak"), (2.0, "invalid")])
def test_energy_drift_decides(drift, verdict):
    sources = []
    for row, walk in enumerate(walks(27, 1, make=caged_walk, rate_per_ps=0.3)):
        energies = conserved_energies(FRAMES, 35, drift_meV_per_atom_per_ps=drift)
        trajectory = trajectory_of(walk, observables=energies)
        assert energy_drift(trajectory) == pytest.approx(drift)
        sources.append(ReplicaSource(str(row), lambda trajectory=trajectory: trajectory, "finished"))
    result, _ = estimate_diffusivity(sources, species="Li")
    assert result.verdict == verdict, result.reasons
    assert result.energy_drift_meV_per_atom_per_ps == pytest.approx(drift)


@pytest.mark.parametrize(("mean_temperature_K", "verdict"), [(960.0, "reliable"), (917.0, "weak")])
def test_replicas_at_another_temperature_than_stated_are_weak(mean_temperature_K, verdict):
    sources = []
    for row, walk in enumerate(walks(27, 1, make=caged_walk, rate_per_ps=0.3)):
        energies = conserved_energies(FRAMES, 35, drift_meV_per_atom_per_ps=0.0)
        energies["temperature_K"] = np.full(FRAMES, mean_temperature_K)
        trajectory = trajectory_of(walk, observables=energies)
        sources.append(ReplicaSource(str(row), lambda trajectory=trajectory: trajectory, "finished"))
    result, _ = estimate_diffusivity(sources, species="Li", temperature_K=1000.0)
    assert result.verdict == verdict, result.reasons
    assert any("917 K on average" in reason for reason in result.reasons) == (verdict == "weak")


def test_thresholds_are_the_users():
    sources = replicas_of(walks(27, 1, make=caged_walk, rate_per_ps=0.3))
    strict = VerdictThresholds(min_hops_per_replica=10**6)
    result, _ = estimate_diffusivity(sources, species="Li", thresholds=strict)
    assert result.verdict == "weak"


def test_without_energies_the_unchecked_drift_is_told():
    sources = replicas_of(walks(27, 1, make=caged_walk, rate_per_ps=0.3), observables={})
    result, _ = estimate_diffusivity(sources, species="Li")
    assert result.verdict == "reliable"
    assert result.energy_drift_meV_per_atom_per_ps is None
    assert "no total energy" in result.reasons[0]


def test_replicas_of_different_truth_disagree():
    fast = [gaussian_walk(diffusivity_A2_per_ps=2.0, frames=FRAMES, walkers=27, seed=8)]
    result, _ = estimate_diffusivity(replicas_of([*walks(27, 9)[:2], *fast]), species="Li")
    assert result.verdict == "weak"
    assert any("differ more than" in reason for reason in result.reasons)


def test_bad_input_is_refused():
    good = replicas_of(walks(2, 10))
    with pytest.raises(InputError, match="at least 20"):
        estimate_diffusivity(replicas_of(walks(2, 10, frames=10)), species="Li")
    with pytest.raises(InputError, match="beyond the shortest"):
        estimate_diffusivity(good, species="Li", fit_stop_ps=1e4)
    with pytest.raises(InputError, match="fewer than three lags"):
        estimate_diffusivity(good, species="Li", fit_start_ps=5.0, fit_stop_ps=5.1)
    with pytest.raises(InputError, match="positive and finite"):
        estimate_diffusivity(good, species="Li", fit_stop_ps=float("nan"))
    with pytest.raises(InputError, match="given twice"):
        estimate_diffusivity([good[0], good[0]], species="Li")
    with pytest.raises(InputError, match="one frame interval"):
        estimate_diffusivity([good[0], *replicas_of(walks(2, 11), interval_ps=0.2)[1:]], species="Li")
    with pytest.raises(InputError, match="same atoms"):
        estimate_diffusivity([good[0], *replicas_of(walks(3, 11))[1:]], species="Li")
    with pytest.raises(InputError, match="has status melted"):
        estimate_diffusivity([ReplicaSource("a", good[0].load, "melted")], species="Li")
