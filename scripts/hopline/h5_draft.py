"""Changes to an HDF5 file, worked out in memory and carried out in steps that each leave the file whole."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from hopline.files import whole

SUPERBLOCK, INDICES_AND_ROWS, FIRST_COUNT = range(3)
"""Steps of changing a file; counts follow one by one. The superblock, at its very start, says where it ends."""
JOURNAL = ("starts", "lengths", "pieces")
"""What a journal holds: where in the file the changes begin, their bytes' numbers, and the bytes."""


class Draft:
    """What HDF5 means to do to an existing file, which ``h5py.File`` takes for an open one; nothing is done to it yet.

    HDF5 itself does not survive a full disk: at closing it goes on with metadata of what could not be written. Nor does
    it write in an order that makes every instant good, but in SWMR mode, and that leaves a mark in the file of a killed
    writer for which other programs refuse it.

    Parameters
    ----------
    descriptor
        Of the file, open for reading and writing; the caller closes it.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.size_before = self.size = os.fstat(descriptor).st_size
        self.place = 0
        self.tail = bytearray()
        self.changes: dict[tuple[int, int], bytes] = {}

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; from the end only for asking the size."""
        self.place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.size}[whence]
        return self.place

    def tell(self) -> int:
        """Return the place."""
        return self.place

    def read(self, length: int) -> bytearray:
        """Read the file as it would be, zeros behind its end."""
        found = self._read(self.place, length)
        self.place += length
        return found

    def write(self, data: Any) -> int:
        """Note a change."""
        piece = bytes(data)
        start, stop = self.place, self.place + len(piece)
        n_inside = max(0, min(len(piece), self.size_before - start))
        if n_inside:
            # a later write of the same place is the last one again
            self.changes.pop((start, n_inside), None)
            self.changes[start, n_inside] = piece[:n_inside]
        if n_inside < len(piece):
            first = start + n_inside - self.size_before
            self.tail.extend(bytes(max(0, first - len(self.tail))))
            self.tail[first : stop - self.size_before] = piece[n_inside:]
        self.place, self.size = stop, max(self.size, stop)
        return len(piece)

    def truncate(self, size: int) -> int:
        """Note the size."""
        n_tail = max(0, size - self.size_before)
        del self.tail[n_tail:]
        self.tail.extend(bytes(n_tail - len(self.tail)))
        self.size = size
        return size

    def flush(self) -> None:
        """Do nothing: HDF5's word that now would be a good moment."""

    def carry_out(self, counts: list[int], journal: Path) -> None:
        """Write to the file; ``counts`` are the places that say how many rows there are, in the order to write them.

        First what lies behind the present end: it may meet a full disk, and nothing refers to it yet. Then where the
        end is, else what refers to it would be refused; then rows of chunks begun before and the indices of chunks;
        last the counts. Each step is on the disk before the next begins. A block of indices that lies on two pages of
        the disk may be torn by the loss of the node all the same: so all changes are kept in ``journal`` until they
        are done, see `redo`.
        """
        steps = [(_step(start, start + length, counts), start, length) for start, length in self.changes]
        changes = [(step, start, bytes(self._read(start, length))) for step, start, length in sorted(steps)]
        try:
            _write_at(self.descriptor, self.tail, self.size_before)
            os.fsync(self.descriptor)  # network file systems find out here that they are full
            _keep(journal, [(start, piece) for _, start, piece in changes])
        except OSError:
            os.ftruncate(self.descriptor, self.size_before)
            raise
        before = SUPERBLOCK
        for step, start, piece in changes:
            if min(step, FIRST_COUNT) > before:
                os.fsync(self.descriptor)
                before = min(step, FIRST_COUNT)
            _write_at(self.descriptor, piece, start)
        if self.size < self.size_before:  # what a killed writer left unused
            os.ftruncate(self.descriptor, self.size)
        os.fsync(self.descriptor)
        journal.unlink()

    def _read(self, start: int, length: int) -> bytearray:
        found = bytearray(os.pread(self.descriptor, max(0, min(length, self.size_before - start)), start))
        for (place, n_changed), piece in self.changes.items():
            first, last = max(start, place), min(start + length, place + n_changed)
            if first < last:
                found[first - start : last - start] = piece[first - place : last - place]
        behind = start + len(found) - self.size_before
        found += self.tail[behind : behind + length - len(found)]
        return found.ljust(length, b"\0")


def redo(path: Path, journal: Path) -> None:
    """Carry out the changes that a killed writer, or a lost node, may have left half done; none without a journal."""
    if not journal.exists():
        return
    with np.load(journal, allow_pickle=False) as kept:
        starts, lengths, pieces = (kept[name] for name in JOURNAL)
    ends = np.cumsum(lengths)
    descriptor = os.open(path, os.O_RDWR)
    try:
        for start, length, end in zip(starts.tolist(), lengths.tolist(), ends.tolist(), strict=True):
            _write_at(descriptor, pieces[end - length : end].tobytes(), start)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    journal.unlink()


def _keep(journal: Path, changes: list[tuple[int, bytes]]) -> None:
    arrays: dict[str, Any] = {
        "starts": np.array([start for start, _ in changes], np.int64),
        "lengths": np.array([len(piece) for _, piece in changes], np.int64),
        "pieces": np.frombuffer(b"".join(piece for _, piece in changes), np.uint8),
    }
    with whole(journal) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _step(start: int, stop: int, counts: list[int]) -> int:
    """Return when to write a change of ``start`` to ``stop``: with the last of what it holds."""
    held = [FIRST_COUNT + n for n, place in enumerate(counts) if start <= place < stop]
    return max(held, default=INDICES_AND_ROWS if start else SUPERBLOCK)


def _write_at(descriptor: int, data: bytes | bytearray, place: int) -> None:
    with memoryview(data) as view:
        done = 0
        while done < len(view):  # the system may write less than it was given
            done += os.pwrite(descriptor, view[done:], place + done)
