"""Frames of a pre-training set, however large its files: read as a stream, filtered, judged, and sampled evenly."""

import hashlib
import heapq
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms

from hopline import console, frames
from hopline.console import InputError
from hopline.labels import ingest
from hopline.labels.candidates import Candidate
from hopline.labels.sources import UNDERSTOOD, candidates

CORRECTED_ENERGY = "corrected_energy"
"""Of a replay frame's ``info``: its total energy (eV) with the Materials Project's corrections, where that is known."""
SYSTEM = "replay"
"""The system of frames that do not say theirs."""
NEIGHBOUR_A, BOND_A = 6.0, 3.3
"""CHGNet's and MACE's cutoff: CHGNet makes no graph of a frame with an atom that has nobody within it. Most atoms have
somebody within the second already, which is ten times faster to see."""
DETAILS = (
    (re.compile(r"\b[A-Z][a-z]?\d* \d+\b"), "an atom"),
    (re.compile(r"-?\b\d[\d.]*(?:e[+-]?\d+)?"), "..."),
)
"""What tells two rejections of one kind apart: which atom, and by how much."""
MAX_KINDS, OTHER = 100, "other reasons"


@dataclass(frozen=True)
class Elements:
    """Which frames to take: of elements in ``only``, at least one in ``any_of``, none in ``without``; empty: all."""

    only: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def admit(self, atoms: Atoms) -> bool:
        """Tell whether a frame passes."""
        found = set(atoms.symbols)
        return (
            (not self.only or found <= set(self.only))
            and (not self.any_of or bool(found & set(self.any_of)))
            and not found & set(self.without)
        )


@dataclass(frozen=True)
class Rejections:
    """Frames refused for one kind of reason: how many, and the first of them as an example."""

    reason: str
    frames: int
    example: str


@dataclass(frozen=True, eq=False)
class Pool:
    """An even random sample of the frames that may be taken, in an order that is random too.

    ``found`` frames were read: ``other_elements`` of them did not pass the filter, ``rejected`` did not keep the
    limits, ``fit`` may be taken.
    """

    frames: list[Atoms]
    found: int
    other_elements: int
    rejected: list[Rejections]

    @property
    def fit(self) -> int:
        """Number of frames that may be taken."""
        return self.found - self.other_elements - sum(kind.frames for kind in self.rejected)


def gather(
    sources: Iterable[str | os.PathLike[str]],
    *,
    file_format: str,
    elements: Elements,
    limits: ingest.Limits,
    most: int,
    seed: int,
    max_rejected_fraction: float,
    defaults: Mapping[str, str | None] | None = None,
) -> Pool:
    """Read frames one by one and keep an even random sample of at most ``most``.

    A frame's place in the random order is a hash of its content and the seed, and the first ``most`` are kept: each
    frame is as likely as any other, and the picks do not depend on the order of the files or of the frames in them. Of
    frames with one structure one is kept. Each frame is judged by itself (see `ingest`), not by its energy against
    those of other compositions, since a pre-training set holds too many kinds of matter for that.

    Parameters
    ----------
    sources, file_format
        As `sources.candidates` takes them.
    limits, defaults
        As `ingest.ingest` takes them.

    Raises
    ------
    InputError
        If a source is missing, cut off or damaged; if more than ``max_rejected_fraction`` of the frames that pass the
        filter are rejected; or if none is left.
    """
    sources = list(sources)
    sample, refused = _Sample(most, seed), _Refused()
    found = other_elements = 0
    every = candidates(sources, file_format=file_format)
    for candidate in console.progress(every, total=None, label="read", unit="frames"):
        if candidate.ends_early:
            raise InputError(
                f"{candidate.source} cannot be read to its end, only {candidate.frame} frames ({candidate.reason}): "
                "part of a set is no replay set, fetch or copy it again"
            )
        found += 1
        if candidate.atoms is not None and not elements.admit(candidate.atoms):
            other_elements += 1
            continue
        reason = ingest.reason_against(candidate, limits) or _lonely(candidate)
        if reason:
            refused.add(candidate, reason)
        else:
            sample.offer(candidate, {"system": SYSTEM} | dict(defaults or {}))
    pool = Pool(sample.frames(), found, other_elements, refused.kinds())
    if len(refused) > max_rejected_fraction * (found - other_elements) or not pool.frames:
        raise InputError(_why_not(sources, pool, max_rejected_fraction))
    return pool


def place(frame_id: str, seed: int) -> int:
    """Return a frame's place in the random order of a seed: a number of 64 bits."""
    key = str(seed).encode()
    return int.from_bytes(hashlib.blake2b(frame_id.encode(), digest_size=8, key=key[:64]).digest())


class _Sample:
    """The frames of the lowest places among all that were offered."""

    def __init__(self, most: int, seed: int) -> None:
        self.most, self.seed = most, seed
        self.heap: list[tuple[int, str]] = []
        self.kept: dict[str, Atoms] = {}

    def offer(self, candidate: Candidate, defaults: Mapping[str, str | None]) -> None:
        """Take a frame in, if it is among the first; of two with one structure that of the lower energy stays."""
        if candidate.atoms is None:
            return
        identity = frames.frame_id(candidate.atoms)
        entry = (-place(identity, self.seed), identity)
        if identity in self.kept:
            self.kept[identity] = min(self.kept[identity], _frame(candidate, defaults), key=_content)
            return
        if len(self.heap) < self.most:
            heapq.heappush(self.heap, entry)
        elif entry > self.heap[0]:
            del self.kept[heapq.heapreplace(self.heap, entry)[1]]
        else:
            return
        self.kept[identity] = _frame(candidate, defaults)

    def frames(self) -> list[Atoms]:
        """Return the frames by their place."""
        return [self.kept[identity] for _, identity in sorted(self.heap, reverse=True)]


@dataclass
class _Refused:
    """Rejected frames by kind of reason; a kind is counted under `OTHER` where there are too many."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.counts.total()

    def add(self, candidate: Candidate, reason: str) -> None:
        kind = reason
        for pattern, instead in DETAILS:
            kind = pattern.sub(instead, kind)
        if kind not in self.counts and len(self.counts) >= MAX_KINDS:
            kind = OTHER
        self.counts[kind] += 1
        self.examples.setdefault(kind, f"{candidate.source} frame {candidate.frame}: {reason}")

    def kinds(self) -> list[Rejections]:
        return [Rejections(kind, count, self.examples[kind]) for kind, count in self.counts.most_common()]


def _frame(candidate: Candidate, defaults: Mapping[str, str | None]) -> Atoms:
    """Return a candidate under the labelled-frame contract, with both of its energies where it has two."""
    frame = ingest.labelled(candidate, defaults)
    corrected = candidate.corrected_energy_eV
    if corrected is not None and np.isfinite(corrected):
        frame.info[CORRECTED_ENERGY] = corrected
    return frame


def _content(frame: Atoms) -> tuple[float, str]:
    """Return what tells frames of one structure apart, whichever was read first."""
    return frame.info[frames.ENERGY], str(frame.info["source"])


def _lonely(candidate: Candidate) -> str:
    """Return what is wrong with a frame in which an atom has no neighbour; empty where nothing is."""
    atoms: Any = candidate.atoms
    # an atom's own image counts: most cells need no search
    if atoms.pbc.all() and atoms.cell.lengths().min() < NEIGHBOUR_A:
        return ""
    from matscipy.neighbours import neighbour_list

    for within_A in (BOND_A, NEIGHBOUR_A):
        alone = np.flatnonzero(np.bincount(neighbour_list("i", atoms, within_A), minlength=len(atoms)) == 0)
        if not len(alone):
            return ""
    return f"{atoms.symbols[alone[0]]} {alone[0]} has no neighbour within {NEIGHBOUR_A:g} A: nothing to learn from it"


def _why_not(sources: Sequence[object], pool: Pool, max_rejected_fraction: float) -> str:
    where = ", ".join(map(str, sources))
    if not pool.found:
        return f"no frame was found in {where}; {UNDERSTOOD}"
    lost = sum(kind.frames for kind in pool.rejected)
    if not lost:
        return f"none of the {pool.found} frames of {where} passes the filter of elements"
    table = "; ".join(
        f"{kind.frames} times {kind.reason} (first {kind.example})" for kind in pool.rejected[:3]
    )
    return (
        f"{lost} of {pool.found - pool.other_elements} frames were rejected, more than the {max_rejected_fraction:.0%} "
        f"that are allowed: {table}"
    )
