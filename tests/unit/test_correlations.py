"""Ideal gases have g = 1 and crystals their known shells."""

import numpy as np
import pytest
from ase.build import bulk

from hopline.console import InputError
from hopline.correlations import pair_correlations
from hopline.trajectories import Trajectory


def trajectory_of(positions, numbers, cells):
    frames = len(positions)
    return Trajectory(
        numbers=np.asarray(numbers), masses_amu=np.ones(len(numbers)), positions_A=np.asarray(positions),
        cells_A=np.broadcast_to(cells, (frames, 3, 3)), time_ps=np.arange(frames, dtype=float), observables={},
    )  # fmt: skip


@pytest.mark.parametrize("cell", [10 * np.eye(3), np.array([[9.0, 0, 0], [4.0, 8.0, 0], [-3.0, 2.0, 9.0]])])
def test_ideal_gas(cell):
    """1 within five standard errors of the counts in each bin: false alarm about 1e-4 over all bins."""
    rng = np.random.default_rng(30)
    frames, numbers = 400, [3] * 6 + [9] * 9
    found = pair_correlations(
        # the same gas in two replicas of unequal length
        [trajectory_of(rng.random((part, 15, 3)) @ cell, numbers, cell) for part in (100, frames - 100)],
        bin_width_A=0.5,
    )
    volume = abs(np.linalg.det(cell))
    shells = 4 / 3 * np.pi * np.diff(np.concatenate([[0], found.upper_edges_A]) ** 3)
    for (one, other), n_pairs in {("Li", "Li"): 15, ("F", "F"): 36, ("Li", "F"): 54}.items():
        counts = frames * n_pairs * shells / volume
        enough = counts > 20
        error = 1 / np.sqrt(counts[enough])
        assert (np.abs(found.distribution[one, other][enough] - 1) < 5 * error).all()
    reach = 0.5 / np.linalg.norm(np.linalg.inv(cell), axis=0).max()
    assert reach - 0.5 < found.upper_edges_A[-1] <= reach + 1e-9


@pytest.mark.parametrize(
    ("crystal", "shells"),
    [
        (
            bulk("LiF", "rocksalt", a=4.0, cubic=True) * 3,
            {("Li", "F"): [(2.1, 6), (3.6, 14)], ("Li", "Li"): [(2.9, 12)]},
        ),
        (bulk("Cu", "fcc", a=3.6) * 5, {("Cu", "Cu"): [(2.6, 12), (3.7, 18), (4.5, 42)]}),
        (bulk("Mg", "hcp", a=3.2, c=5.22) * (6, 6, 4), {("Mg", "Mg"): [(3.3, 12)]}),
    ],
)
def test_crystals_have_their_coordination_numbers(crystal, shells):
    crystal.positions += 100.0 * crystal.cell.array[0]  # images must not matter
    found = pair_correlations(
        [trajectory_of([crystal.positions], crystal.numbers, crystal.cell.array)], bin_width_A=0.05
    )
    for pair, steps in shells.items():
        for radius_A, expected in steps:
            below = found.upper_edges_A <= radius_A
            assert found.coordination[pair][below][-1] == pytest.approx(expected)


def test_coordination_belongs_to_the_centre():
    positions = np.array([[[0.0, 0, 0], [1.1, 0, 0], [-1.1, 0, 0]]])
    found = pair_correlations([trajectory_of(positions, [3, 9, 9], 8 * np.eye(3))], bin_width_A=0.25)
    at = np.flatnonzero(found.upper_edges_A > 1.2)[0]
    assert found.coordination["Li", "F"][at] == pytest.approx(2)
    assert found.coordination["F", "Li"][at] == pytest.approx(1)
    np.testing.assert_array_equal(found.distribution["Li", "F"], found.distribution["F", "Li"])
    assert ("Li", "Li") not in found.distribution


@pytest.mark.parametrize("width", [0.0, -1.0, 5.0, float("nan")])
def test_bad_bins_are_refused(width):
    with pytest.raises(InputError, match="bin width"):
        pair_correlations([trajectory_of(np.zeros((1, 2, 3)), [3, 3], 8 * np.eye(3))], bin_width_A=width)


def test_replicas_of_other_atoms_are_refused():
    replicas = [trajectory_of(np.zeros((1, 2, 3)), numbers, 8 * np.eye(3)) for numbers in ([3, 3], [3, 9])]
    with pytest.raises(InputError, match="other atoms"):
        pair_correlations(replicas, bin_width_A=0.5)
