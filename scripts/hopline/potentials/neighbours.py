"""Neighbours in a batch of periodic systems: searched for with a skin, picked by the distances there are now."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from vesin import NeighborList

from hopline.potentials.forcefield import SystemRefused

SKIN_A = 1.0
"""How much farther than the cutoff is searched. Measured on recorded dynamics (9 x Mg16H, 5 A, 900 K, 0.5 fs; 64 LiF,
6 A, 1000 K, 1 fs; one core), ms a step with searches: 0.25 A 3.0 and 2.5, 0.5 A 2.1 and 2.0, 1 A 1.3 and 1.7, 1.5 A 1.6
and 1.7. With 1 A a system is searched again every 15 to 20 steps."""
ROUNDING_A = 1e-6
"""Searched for besides the skin, so that rounding in the search cannot decide which edges lie within the cutoff."""
MAX_CELLS_AWAY = 1e9
MAX_PER_A3 = 20.0
"""Atoms; a hundred times a solid's. The search in a cell that has collapsed would take all memory."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Directed edges between the atoms of a batch, sorted by centre, neighbour and image; int64 on the model's device.

    ``centre`` and ``neighbour`` (n_edges,) count the atoms through the batch. ``image`` (n_edges, 3) is the lattice
    vector, in cells, that the neighbour is moved by, counted from positions as they are, in the cell or not.
    ``system`` (n_edges,) is the centre's. ``reverse`` (n_edges,) is the edge that sees the same two from the other end.
    """

    centre: Tensor
    neighbour: Tensor
    image: Tensor
    system: Tensor
    reverse: Tensor

    def within(self, kept: Tensor, rows: Tensor) -> "Pairs":
        """Return the edges for which ``kept`` (n_edges,) is true, which ``rows`` are; with an edge goes its reverse."""
        new_rows = kept.cumsum(0) - 1
        centre, neighbour, image, system, reverse = (
            part.index_select(0, rows)
            for part in (self.centre, self.neighbour, self.image, self.system, self.reverse)
        )
        return Pairs(centre, neighbour, image, system, new_rows.index_select(0, reverse))


class Edges(NamedTuple):
    """The pairs within the cutoff and the way from centre to neighbour: A (n_edges, 3), and its square A^2 (n_edges,).

    ``pairs`` is the same object for as long as the same pairs lie within the cutoff. An edge's vector is the exact
    opposite of its reverse's.
    """

    pairs: Pairs
    vectors_A: Tensor
    squares_A2: Tensor


class _Found(NamedTuple):
    """Edges of one system as the search left them, atoms counted from the system's first."""

    centre: NDArray[np.int64]
    neighbour: NDArray[np.int64]
    image: NDArray[np.int64]
    reverse: NDArray[np.int64]


class NeighbourList:
    """All pairs of a batch within a cutoff, images of an atom itself included.

    What is found depends on the positions and cells given alone, to the last bit: the list with a skin only says where
    to look. A list is good while no atom can have come within the cutoff from beyond it: while twice the farthest way
    of an atom, against where the cell took it, is below ``(cutoff + skin) s - cutoff``, s being the smallest singular
    value of the cell's deformation. Only the systems whose list is not good any more are searched again.
    """

    def __init__(
        self, sizes: Sequence[int], *, cutoff_A: float, skin_A: float, device: str | torch.device = "cpu"
    ) -> None:
        self.sizes, self.cutoff_A, self.skin_A = list(sizes), cutoff_A, skin_A
        self.device = torch.device(device)
        self.owner = torch.repeat_interleave(torch.arange(len(self.sizes)), torch.tensor(self.sizes)).to(
            device
        )
        self.starts = np.cumsum([0, *self.sizes])
        self.searches = 0
        reach_A = cutoff_A + skin_A + ROUNDING_A
        # each pair once: the other direction is made here, so that both are there whatever the rounding
        self._search = NeighborList(cutoff=reach_A, full_list=False, n_threads=1)
        self._found: list[_Found] = []
        self._listed: Pairs | None = None
        self._positions_A = torch.empty(0)
        self._cells_A = torch.empty(0)
        self._shifted: tuple[Tensor, Tensor] | None = None
        self._picked: tuple[Tensor, Tensor, Pairs] | None = None

    def find(self, positions_A: Tensor, cells_A: Tensor) -> Edges:
        """Return the edges at ``positions_A`` (n_atoms, 3), wrapped or not, in ``cells_A`` (n_systems, 3, 3); float64.

        Raises
        ------
        SystemRefused
            If positions or a cell are no finite numbers, or a cell has no volume.
        """
        listed = self._good_list(positions_A, cells_A)
        # rounding is the same in both directions of the difference, and so it is of the sum
        vectors = positions_A.index_select(0, listed.neighbour) - positions_A.index_select(0, listed.centre)
        vectors += self._shifts(listed, cells_A)
        x, y, z = vectors.square().unbind(1)
        squares = x + y + z
        kept = squares <= self.cutoff_A**2
        if self._picked is None or not torch.equal(kept, self._picked[0]):
            rows = kept.nonzero()[:, 0]
            self._picked = (kept, rows, listed.within(kept, rows))
        _, rows, pairs = self._picked
        return Edges(pairs, vectors.index_select(0, rows), squares.index_select(0, rows))

    def _shifts(self, listed: Pairs, cells_A: Tensor) -> Tensor:
        """Return the vectors in A that the listed neighbours are moved by, kept while the cells stay."""
        if self._shifted is None or not torch.equal(self._shifted[0], cells_A):
            a, b, c = cells_A.index_select(0, listed.system).unbind(1)
            i, j, k = listed.image.to(cells_A.dtype)[..., None].unbind(1)
            # element by element: a matrix product rounds by the number of its rows
            self._shifted = (cells_A.clone(), i * a + j * b + k * c)
        return self._shifted[1]

    def _good_list(self, positions_A: Tensor, cells_A: Tensor) -> Pairs:
        """Return the list with skin, searched anew where atoms have gone too far."""
        if self._listed is None:
            stale = list(range(len(self.sizes)))
        else:
            same_cells = torch.equal(cells_A, self._cells_A)
            moved = (positions_A - self._positions_A).square_().sum(1)
            if same_cells and bool(4.0 * moved.max() <= self.skin_A**2):
                return self._listed
            stale = self._stale(positions_A, cells_A, None if same_cells else cells_A)
        if self._listed is not None and not stale:
            return self._listed
        found = self._searched(positions_A, cells_A, stale)
        if self._listed is None:
            self._positions_A, self._cells_A = positions_A.clone(), cells_A.clone()
            self._found = list(found.values())
        for row, edges in found.items():
            here = slice(self.starts[row], self.starts[row + 1])
            self._positions_A[here], self._cells_A[row] = positions_A[here], cells_A[row]
            self._found[row] = edges
        self._listed, self._shifted, self._picked = self._joined(), None, None
        return self._listed

    def _stale(self, positions_A: Tensor, cells_A: Tensor, changed: Tensor | None) -> list[int]:
        """Return the systems whose list is not good any more; one with a position that is no number is among them."""
        if changed is None:
            expected, stretch = self._positions_A, torch.ones(len(self.sizes), dtype=torch.float64)
        else:
            # the CPU is faster at a few small matrices
            deformation = torch.linalg.solve(self._cells_A.cpu(), cells_A.cpu())
            finite = deformation.isfinite().all(dim=(1, 2))
            stretch = torch.zeros(len(self.sizes), dtype=torch.float64)
            stretch[finite] = torch.linalg.svdvals(deformation[finite])[:, -1]
            by_atom = deformation.to(self.device).index_select(0, self.owner)
            expected = torch.bmm(self._positions_A[:, None, :], by_atom)[:, 0]
        squares = (positions_A - expected).square().sum(1).nan_to_num(nan=torch.inf)
        farthest_A = (
            squares.new_zeros(len(self.sizes)).scatter_reduce(0, self.owner, squares, "amax").sqrt().cpu()
        )
        good = 2.0 * farthest_A <= (self.cutoff_A + self.skin_A) * stretch - self.cutoff_A
        return (~good).nonzero()[:, 0].tolist()

    def _searched(self, positions_A: Tensor, cells_A: Tensor, rows: Sequence[int]) -> dict[int, _Found]:
        positions, cells = positions_A.cpu().numpy(), cells_A.cpu().numpy()
        return {
            row: self._search_one(positions[self.starts[row] : self.starts[row + 1]], cells[row], row)
            for row in rows
        }

    def _search_one(self, positions_A: NDArray[np.float64], cell_A: NDArray[np.float64], row: int) -> _Found:
        """Return the edges of one system within cutoff and skin, sorted by centre, neighbour and image."""
        _refuse_impossible(positions_A, cell_A, row)
        self.searches += 1
        away = np.floor(positions_A @ np.linalg.inv(cell_A))
        if not np.abs(away).max() < MAX_CELLS_AWAY:
            raise SystemRefused(f"atoms are more than {MAX_CELLS_AWAY:.0e} cells away from theirs", row)
        half = self._search.compute(positions_A - away @ cell_A, cell_A, periodic=True, quantities="ijS")
        first, second, image = (part.astype(np.int64) for part in half)
        n_atoms, n_pairs, width = len(positions_A), len(first), int(np.abs(image).max(initial=0))
        centre, neighbour = np.concatenate([first, second]), np.concatenate([second, first])
        image = np.concatenate([image, -image])
        key = centre * n_atoms + neighbour
        for axis in range(3):
            key = key * (2 * width + 1) + image[:, axis] + width
        order = np.argsort(key)
        place = np.empty_like(order)
        place[order] = np.arange(2 * n_pairs)
        centre, neighbour = centre[order], neighbour[order]
        cells = away.astype(np.int64)
        # all images of a pair move alike, which keeps their order
        image = image[order] + cells[centre] - cells[neighbour]
        return _Found(centre, neighbour, image, place[(order + n_pairs) % max(2 * n_pairs, 1)])

    def _joined(self) -> Pairs:
        counts = [len(one.centre) for one in self._found]
        edge_starts = np.cumsum([0, *counts])

        def joined(parts: Sequence[NDArray[np.int64]]) -> Tensor:
            return torch.from_numpy(np.concatenate(parts)).to(self.device)

        return Pairs(
            centre=joined([one.centre + start for one, start in zip(self._found, self.starts, strict=False)]),
            neighbour=joined(
                [one.neighbour + start for one, start in zip(self._found, self.starts, strict=False)]
            ),
            image=joined([one.image for one in self._found]),
            system=joined([np.repeat(np.arange(len(counts)), counts)]),
            reverse=joined(
                [one.reverse + start for one, start in zip(self._found, edge_starts, strict=False)]
            ),
        )


def _refuse_impossible(positions_A: NDArray[np.float64], cell_A: NDArray[np.float64], row: int) -> None:
    if not (np.isfinite(positions_A).all() and np.isfinite(cell_A).all()):
        raise SystemRefused("positions or cell are no finite numbers", row)
    volume_A3 = abs(float(np.linalg.det(cell_A)))
    if not volume_A3 * MAX_PER_A3 > len(positions_A):
        raise SystemRefused(
            f"{len(positions_A)} atoms in a cell of {volume_A3:.3g} A^3 are more than {MAX_PER_A3:g} to the cubic A",
            row,
        )
