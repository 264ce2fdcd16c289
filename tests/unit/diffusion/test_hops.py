"""Jumps are counted once each; vibrations, however long, never."""

import numpy as np
import pytest
from random_walks import trajectory_of

from hopline.diffusion.hops import count_hops, default_hop_length

INTERVAL_PS = 0.02
JUMP_A = 2.0


def jumper(jump_frames, frames, *, transit=5, vibration_A=0.15, seed=1):
    """One ion that jumps along x at given frames, passing over in ``transit`` frames, and vibrates."""
    path = np.zeros(frames)
    for frame in jump_frames:
        path += JUMP_A * np.clip((np.arange(frames) - frame) / transit, 0, 1)
    noise = np.random.default_rng(seed).normal(scale=vibration_A, size=(frames, 3))
    return (np.stack([path, 0 * path, 0 * path], axis=1) + noise)[:, None]


def count(positions):
    return count_hops(positions, frame_interval_ps=INTERVAL_PS, hop_length_A=JUMP_A / 2).tolist()


def test_each_jump_counts_once():
    assert count(jumper([100, 300, 307, 520, 800], 1000)) in ([4], [5])  # two of them 0.14 ps apart
    assert count(jumper([100, 300, 520, 800], 1000)) == [4]


def test_there_and_back_counts_twice():
    there = jumper([200], 1000)
    back = jumper([600], 1000, vibration_A=0.0)
    assert count(there - back) == [2]


def test_vibrations_do_not_count():
    """A hundred ions at 0.3 A per direction for 20 ps, as hot as crystals get."""
    rng = np.random.default_rng(2)
    assert sum(count(rng.normal(scale=0.3, size=(1000, 100, 3)))) == 0


def test_short_excursions_do_not_count():
    there = jumper([200], 1000)
    back = jumper([204], 1000, vibration_A=0.0)
    assert count(there - back) == [0]


def test_default_length_is_half_the_bond_within_bounds():
    def length(bond_A):
        return default_hop_length(trajectory_of(np.zeros((2, 1, 3)), np.array([[bond_A, 0, 0]])), "Li")

    assert length(2.04) == pytest.approx(1.02)
    assert length(0.1) == pytest.approx(0.8)
    assert length(5.9) == pytest.approx(1.5)
    assert default_hop_length(trajectory_of(np.zeros((2, 1, 3)), np.empty((0, 3))), "Li") == pytest.approx(
        1.0
    )
