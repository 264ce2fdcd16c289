"""Who is held out of a replay set: an even share of the materials, the same ones whatever the set."""

import itertools

import numpy as np
import pytest
from scipy import stats
from small import calculations, label, rocksalt_lif

from hopline import splits
from hopline.console import InputError
from hopline.finetuning import replay, replay_pool, replay_split
from hopline.finetuning.replay_pool import Elements
from hopline.finetuning.replay_split import material_of, share_of
from hopline.frames import write_frames
from hopline.labels.ingest import Limits

FRACTIONS = {"valid_fraction": 0.1, "test_fraction": 0.2}
FALSE_ALARM = 1e-3
"""Of each test of chance: so often would names that were drawn at random fail it (these are fixed)."""
N_NAMES = 20_000


@pytest.mark.parametrize("name", ["mp-{}", "mvc-{}", "trajectory {}", "run.extxyz {}"])
def test_places_are_even(name):
    """Kolmogorov-Smirnov against the even distribution; false alarms: one in a thousand."""
    places = np.array([share_of(name.format(number)) for number in range(N_NAMES)])
    assert (places >= 0).all()
    assert (places < 1).all()
    assert stats.kstest(places, "uniform").pvalue > FALSE_ALARM


@pytest.mark.parametrize(("valid_fraction", "test_fraction"), [(0.01, 0.5), (0.1, 0.1), (0.3, 0.02)])
def test_the_fractions_are_those_of_the_materials(valid_fraction, test_fraction):
    """Binomial test of each count; false alarms: one in a thousand."""
    roles = [
        replay_split.role_of(f"mp-{number}", valid_fraction=valid_fraction, test_fraction=test_fraction)
        for number in range(N_NAMES)
    ]
    for role, fraction in (("valid", valid_fraction), ("test", test_fraction)):
        assert stats.binomtest(roles.count(role), N_NAMES, fraction).pvalue > FALSE_ALARM


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A file of 200 materials with three frames each."""
    path = tmp_path_factory.mktemp("source") / "mptrj.extxyz"
    write_frames(path, calculations(200, 3))
    return path


def made(source, *, seed, select, n_frames, fractions=FRACTIONS):
    """Return the materials of the three sets that a replay set of these settings has."""
    pool = replay_pool.gather(
        [source], file_format="auto", elements=Elements(), max_rejected_fraction=0.0, seed=seed,
        limits=Limits(0.5, 50.0, float("inf"), require_stress=True),
        most=n_frames if select == "random" else 2 * n_frames,
    )  # fmt: skip
    found = replay.assemble(
        pool, select=select, n_frames=n_frames, **fractions,
        encode=lambda some: np.array([atoms.positions[0] for atoms in some]),
    )  # fmt: skip
    return {
        name: {material_of(atoms) for atoms in getattr(found, name)} for name in ("train", "valid", "test")
    }


def test_what_one_set_holds_out_no_other_trains_on(source):
    sets = [
        made(source, seed=seed, select=select, n_frames=n_frames)
        for (select, n_frames), seed in itertools.product(
            [("random", 100), ("random", 300), ("random", 600), ("farthest-point", 150), ("direct", 150)],
            (1, 2),
        )
    ]
    assert len({frozenset(one["train"]) for one in sets}) > 2
    for one, other in itertools.permutations(sets, 2):
        assert not one["test"] & (other["train"] | other["valid"])
        assert not one["valid"] & (other["train"] | other["test"])


def test_smaller_fractions_hold_out_some_of_the_same(source):
    larger = made(source, seed=1, select="random", n_frames=600)
    smaller = made(
        source,
        seed=2,
        select="random",
        n_frames=600,
        fractions={"valid_fraction": 0.05, "test_fraction": 0.1},
    )
    for name in ("valid", "test"):
        assert smaller[name] < larger[name]
    assert not smaller["test"] & larger["train"]


@pytest.mark.parametrize("role", ["test", "valid", "train"])
def test_an_empty_set_is_refused_with_its_fraction_and_the_number_of_materials(role):
    names = [
        f"mp-{number}" for number in range(60)
        if replay_split.role_of(f"mp-{number}", **FRACTIONS) != role
    ]  # fmt: skip
    pool = [atoms for atoms in calculations(60, 3) if material_of(atoms) in names]
    share = {"test": "0.2", "valid": "0.1", "train": "0.7"}[role]
    remedy = "lower the other fractions" if role == "train" else f"raise {role}_fraction"
    told = f"the {role} set of these {len(pool)} frames came out empty: of {len(names)} materials .* share of {share}, "
    with pytest.raises(InputError, match=f"{told}.*{remedy}"):
        replay_split.split(pool, **FRACTIONS)


@pytest.mark.parametrize(
    ("fractions", "why"),
    [
        ((0.0, 0.1), "must lie between 0 and 1, got 0.0"),
        ((0.1, 1.5), "must lie between 0 and 1, got 1.5"),
        ((0.5, 0.5), r"validation \(0.5\) and test \(0.5\) leave nothing to train on"),
    ],
)
def test_fractions_that_cannot_be_are_refused(fractions, why):
    valid_fraction, test_fraction = fractions
    with pytest.raises(InputError, match=why):
        replay_split.split(calculations(20, 3), valid_fraction=valid_fraction, test_fraction=test_fraction)


def run(places, source="one run"):
    """Return frames of a long run at these places."""
    return [
        label(rocksalt_lif(seed=place), source=source, source_frame=place, stress=np.zeros(9))
        for place in places
    ]


def test_a_long_run_is_split_by_stretches_that_keep_their_distance():
    every = run(range(1000))
    parts = replay_split.split(every, **FRACTIONS)
    sets = {name: [every[row] for row in getattr(parts, name)] for name in ("train", "valid", "test")}
    splits.refuse_leakage(sets, gap_frames=replay_split.GAP_FRAMES)
    assert parts.dropped == 1000 - sum(map(len, sets.values())) > 0
    assert len(sets["test"]) % replay_split.BLOCK_FRAMES == 0


def test_two_samples_of_a_long_run_hold_out_the_same_stretches():
    rng = np.random.default_rng(3)
    samples = []
    for _ in range(2):
        some = run(sorted(rng.choice(1000, 400, replace=False).tolist()))
        parts = replay_split.split(some, **FRACTIONS)
        samples.append(
            {name: [some[row] for row in getattr(parts, name)] for name in ("train", "valid", "test")}
        )
    for one, other in itertools.permutations(samples):
        for mine, theirs in (("test", "train"), ("test", "valid"), ("valid", "train")):
            splits.refuse_leakage(
                {mine: one[mine], theirs: other[theirs]}, gap_frames=replay_split.GAP_FRAMES
            )


def test_a_structure_by_two_names_goes_to_the_set_with_the_greater_right():
    roles = {
        role: next(
            f"mp-{number}"
            for number in range(60)
            if replay_split.role_of(f"mp-{number}", **FRACTIONS) == role
        )
        for role in ("train", "valid", "test")
    }
    pool = calculations(60, 1)
    for number, name in enumerate(roles.values()):
        twin = label(rocksalt_lif(seed=999_999), source=name, stress=np.zeros(9))
        pool.insert(7 * number, twin)
    parts = replay_split.split(pool, **FRACTIONS)
    assert parts.dropped == 2
    (kept,) = {0, 7, 14} & {*parts.train, *parts.valid, *parts.test}
    assert kept in parts.test
