"""The neighbour list against all pairs of images counted out, and with a skin against itself without one."""

import itertools

import numpy as np
import pytest
import torch
from small import rocksalt_lif

from hopline.potentials.forcefield import SystemRefused
from hopline.potentials.neighbours import NeighbourList

CUTOFF_A = 3.5


def tensors(frames):
    return (
        torch.tensor(np.concatenate([atoms.positions for atoms in frames])),
        torch.tensor(np.stack([atoms.cell.array for atoms in frames])),
    )


def rows(edges):
    """Return centre, neighbour and image of each edge, in the order found."""
    columns = (edges.pairs.centre[:, None], edges.pairs.neighbour[:, None], edges.pairs.image)
    return [tuple(row) for row in torch.cat(columns, dim=1).tolist()]


def counted_out(positions, cell, reach):
    """Return the same by looking at all images up to ``reach`` cells away."""
    images = np.array(list(itertools.product(range(-reach, reach + 1), repeat=3)))
    ways = (positions[None] - positions[:, None])[None] + (images @ cell)[:, None, None]
    near = np.argwhere((ways**2).sum(axis=-1) <= CUTOFF_A**2)
    found = [(i, j, *images[row].tolist()) for row, i, j in near.tolist()]
    return sorted(edge for edge in found if edge[0] != edge[1] or any(edge[2:]))


def crowds(n_cells, seed):
    """Yield atoms, wrapped or not, in random cells: skewed, left-handed, with sides far shorter than the cutoff."""
    rng = np.random.default_rng(seed)
    while n_cells:
        cell = rng.normal(size=(3, 3)) * 2.2
        # in the thinnest cells there are too many images to count out
        if np.linalg.svd(cell)[1].min() > 1.0:
            n_cells -= 1
            n_atoms = rng.integers(1, 6)
            yield rng.uniform(size=(n_atoms, 3)) @ cell + 1.5 * rng.normal(size=(n_atoms, 3)), cell


@pytest.mark.parametrize("skin_A", [0.0, 0.5])
def test_all_images_within_the_cutoff_are_found_in_order(skin_A):
    for positions, cell in crowds(15, seed=1):
        neighbours = NeighbourList([len(positions)], cutoff_A=CUTOFF_A, skin_A=skin_A)
        edges = neighbours.find(torch.tensor(positions), torch.tensor(cell)[None])
        widest_A = CUTOFF_A + np.ptp(positions, axis=0).sum()
        reach = int(widest_A / np.linalg.svd(cell)[1].min()) + 1
        assert rows(edges) == counted_out(positions, cell, reach)


def test_vectors_lead_to_the_neighbour_and_back_again():
    frames = [rocksalt_lif(seed=1), rocksalt_lif((1, 2, 1), seed=2)]
    positions, cells = tensors(frames)
    pairs, vectors, squares = NeighbourList([8, 16], cutoff_A=5.0, skin_A=0.5).find(positions, cells)
    shifts = torch.einsum("ei,eij->ej", pairs.image.double(), cells[pairs.system])
    torch.testing.assert_close(
        vectors, positions[pairs.neighbour] - positions[pairs.centre] + shifts, rtol=0, atol=1e-12
    )
    torch.testing.assert_close(squares, vectors.square().sum(dim=1), rtol=1e-12, atol=0)
    assert torch.equal(pairs.system, (pairs.centre >= 8).long())
    assert torch.equal(pairs.reverse[pairs.reverse], torch.arange(len(pairs.centre)))
    assert torch.equal(pairs.centre[pairs.reverse], pairs.neighbour)
    assert torch.equal(pairs.image[pairs.reverse], -pairs.image)
    assert torch.equal(vectors[pairs.reverse], -vectors)


def fresh(sizes, positions, cells):
    return NeighbourList(sizes, cutoff_A=CUTOFF_A, skin_A=0.0).find(positions, cells)


def assert_same(found, expected):
    for name in ("centre", "neighbour", "image", "system", "reverse"):
        assert torch.equal(getattr(found.pairs, name), getattr(expected.pairs, name))
    assert torch.equal(found.vectors_A, expected.vectors_A)
    assert torch.equal(found.squares_A2, expected.squares_A2)


@pytest.mark.parametrize("cell_moves", [False, True], ids=["fixed cell", "moving cell"])
def test_a_list_kept_for_long_finds_what_a_fresh_one_does(cell_moves):
    """Atoms walk out of their cells and never come back; of a moving cell, sides and angles change."""
    rng = np.random.default_rng(2)
    frames = [rocksalt_lif(seed=1), rocksalt_lif((1, 2, 1), seed=2), rocksalt_lif(seed=3)]
    sizes = [len(atoms) for atoms in frames]
    positions, cells = tensors(frames)
    # two systems start many cells away, by whole lattice vectors and otherwise
    positions[:3] += 1000 * cells[0, 1] - 7 * cells[0, 2]
    positions[-4:] += 321.7
    kept = NeighbourList(sizes, cutoff_A=CUTOFF_A, skin_A=0.6)
    drift = 0.03 * torch.tensor(rng.normal(size=positions.shape))
    for _ in range(300):
        positions = positions + drift + 0.02 * torch.tensor(rng.normal(size=positions.shape))
        if cell_moves:
            strains = torch.eye(3) + 0.002 * torch.tensor(rng.normal(size=(3, 3, 3)))
            cells = cells @ strains
            positions = torch.cat(
                [part @ strain for part, strain in zip(positions.split(sizes), strains, strict=True)]
            )
        assert_same(kept.find(positions, cells), fresh(sizes, positions, cells))
    assert 3 < kept.searches < 300


def test_a_list_is_kept_while_the_cell_breathes_and_searched_anew_when_it_shrinks_too_far():
    atoms = rocksalt_lif((2, 2, 2))
    positions, cells = tensors([atoms])
    neighbours = NeighbourList([64], cutoff_A=CUTOFF_A, skin_A=0.5)
    neighbours.find(positions, cells)
    # a pair that was at cutoff + skin comes to the cutoff when the cell shrinks by this
    for scale, searches in ((1.05, 1), (0.9, 1), (0.874, 2)):
        found = neighbours.find(positions * scale, cells * scale)
        assert neighbours.searches == searches
        assert_same(found, fresh([64], positions * scale, cells * scale))


def test_only_the_system_whose_atoms_went_too_far_is_searched_again():
    positions, cells = tensors([rocksalt_lif(seed=seed) for seed in range(3)])
    neighbours = NeighbourList([8, 8, 8], cutoff_A=CUTOFF_A, skin_A=0.5)
    first = neighbours.find(positions, cells)
    assert neighbours.searches == 3
    assert neighbours.find(positions.clone(), cells.clone()).pairs is first.pairs
    positions[9, 0] += 0.3
    assert_same(neighbours.find(positions, cells), fresh([8, 8, 8], positions, cells))
    assert neighbours.searches == 4


@pytest.mark.parametrize("kept", [False, True], ids=["first call", "later call"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_positions_that_are_no_places_are_refused_by_row(kept, value):
    positions, cells = tensors([rocksalt_lif(), rocksalt_lif(seed=1)])
    neighbours = NeighbourList([8, 8], cutoff_A=CUTOFF_A, skin_A=0.5)
    if kept:
        neighbours.find(positions, cells)
    lost = positions.clone()
    lost[11, 2] = value
    with pytest.raises(SystemRefused, match=r"no finite numbers|cells away") as refusal:
        neighbours.find(lost, cells)
    assert refusal.value.row == 1
    # and the refused positions leave nothing behind
    assert_same(neighbours.find(positions, cells), fresh([8, 8], positions, cells))


@pytest.mark.parametrize("scale", [np.nan, 0.0, 0.1])
def test_a_cell_that_is_none_is_refused_by_row(scale):
    positions, cells = tensors([rocksalt_lif(), rocksalt_lif(seed=1)])
    neighbours = NeighbourList([8, 8], cutoff_A=CUTOFF_A, skin_A=0.5)
    neighbours.find(positions, cells)
    cells[1] *= scale
    with pytest.raises(SystemRefused, match=r"no finite numbers|atoms in a cell of") as refusal:
        neighbours.find(positions, cells)
    assert refusal.value.row == 1
