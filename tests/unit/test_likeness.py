"""The same structure is known in every disguise, and frames that move alike from those that do not."""

import numpy as np
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st
from small import rocksalt_lif, shaken

from hopline import likeness


def disguised(atoms, rng, *, digits_A=0.0):
    """Return the same structure with atoms shuffled, wrapped anywhere, turned, and moved within ``digits_A``."""
    other = atoms[rng.permutation(len(atoms))]
    other.positions += rng.integers(-3, 4, (len(other), 3)) @ other.cell.array
    other.positions += rng.uniform(-1, 1, (len(other), 3)) * digits_A / np.sqrt(3)
    other.rotate(rng.uniform(0, 360), rng.normal(size=3), rotate_cell=True)
    return other


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_atoms=st.integers(1, 12))
def test_a_structure_is_known_in_any_disguise_and_differs_once_an_atom_has_moved(seed, n_atoms):
    rng = np.random.default_rng(seed)
    cell = np.eye(3) * rng.uniform(4, 9, 3) + rng.uniform(-2, 2, (3, 3))
    numbers = rng.choice([1, 3, 9], n_atoms)
    atoms = Atoms(numbers, positions=rng.uniform(0, 1, (n_atoms, 3)) @ cell, cell=cell, pbc=True)
    same = disguised(atoms, rng, digits_A=0.9 * likeness.SAME_A)
    moved = atoms.copy()
    step = rng.normal(size=3)
    moved.positions[rng.integers(n_atoms)] += 10 * likeness.SAME_A * step / np.linalg.norm(step)
    kinds = likeness.first_of_kind([atoms, same, moved, disguised(moved, rng)])
    assert kinds.tolist() == [0, 0, 2, 2]


def test_cells_tell_structures_apart():
    perfect = rocksalt_lif(rattle_A=0)
    frames = []
    for strain in (0.0, 0.001, 0.01):
        frames.append(perfect.copy())
        frames[-1].set_cell(perfect.cell * (1 + strain), scale_atoms=True)
        sheared = perfect.cell.array.copy()
        sheared[1, 0] = strain * 4
        frames.append(perfect.copy())
        frames[-1].set_cell(sheared, scale_atoms=True)
    assert likeness.first_of_kind(frames).tolist() == [0, 0, 2, 3, 4, 5]


def test_frames_without_a_cell_are_compared_where_they_stand():
    molecule = Atoms("LiF", positions=[[0, 0, 0], [0, 0, 1.6]])
    farther = Atoms("LiF", positions=[[0, 0, 0], [0, 0, 2.6]])
    slab = Atoms("LiF", positions=[[0, 0, 0], [0, 0, 1.6]], cell=[4, 4, 0], pbc=(True, True, False))
    across = slab.copy()
    across.positions[1] += [4, -8, 0]
    frames = [molecule, farther, molecule[::-1], slab, across]
    assert likeness.first_of_kind(frames).tolist() == [0, 1, 0, 3, 3]
    assert likeness.first_of_kind([]).tolist() == []


def test_frames_are_found_in_sets_in_any_disguise():
    rng = np.random.default_rng(4)
    made = [rocksalt_lif(seed=seed) for seed in range(6)]
    sets = {"a": made[:2], "b": [disguised(made[3], rng), made[4]], "c": [made[4]]}
    wanted = [disguised(made[row], rng) for row in (5, 4, 0, 2, 3)]
    # of two sets the first is named; a frame that is twice among the wanted ones is not found for that
    assert likeness.found_in([*wanted, wanted[0]], sets) == [None, "b", "a", None, "b", None]
    assert likeness.found_in(wanted, {}) == [None] * 5
    assert likeness.found_in([], sets) == []


def test_neighbours_in_time_move_alike_and_independent_frames_do_not():
    for memory, expected in ((0.8, 1.0), (0.65, 1.0), (0.35, 0.0), (0.0, 0.0)):
        frames = shaken(60, memory=memory, seed=1)
        alike, comparable = likeness.moving_alike([frames[::2], frames[1::2]])
        assert comparable.all()
        assert alike[:30, 1].mean() == alike[30:, 0].mean() == expected


def test_order_wrapping_drift_and_volume_do_not_hide_neighbours():
    frames = shaken(40, memory=0.8, seed=2)
    rng = np.random.default_rng(3)
    for frame in frames[1::2]:
        frame.positions += [0.3, -0.2, 0.1]
        frame.set_cell(frame.cell * rng.uniform(0.97, 1.03), scale_atoms=True)
    others = [frame[rng.permutation(len(frame))] for frame in frames[1::2]]
    alike, comparable = likeness.moving_alike([frames[::2], others])
    assert comparable.all()
    assert alike[:20, 1].all()
    assert alike[20:, 0].all()


def test_an_atom_that_hops_does_not_make_frames_alike():
    frames = shaken(40, memory=0.0, seed=4)
    for frame in frames[:20]:
        frame.positions[0] += [2.0, 2.0, 2.0]
    alike, comparable = likeness.moving_alike([frames])
    assert comparable.all()
    assert not alike.any()


def test_a_liquid_cannot_be_compared():
    rng = np.random.default_rng(5)
    frames = [Atoms("Li60", rng.uniform(0, 12, (60, 3)), cell=np.eye(3) * 12, pbc=True) for _ in range(8)]
    alike, comparable = likeness.moving_alike([frames])
    assert not comparable.any()
    assert not alike.any()
