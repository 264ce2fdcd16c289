"""Who is held out of a replay set: whole materials, by a hash of their names alone.

Sets of one source may differ in seed, selection and size, and a potential that replays one is tested on what another
held out. So none of these has a say: sets of equal fractions hold out the same materials, and of smaller ones fewer.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ase import Atoms

from hopline.console import InputError
from hopline.frames import UNSTATED
from hopline.likeness import first_of_kind
from hopline.splits import PLACE

TRAIN, VALID, TEST = "train", "valid", "test"
ROLES = (TRAIN, VALID, TEST)
"""In the order of their right to a frame: one that is like another's is in the later set only."""
MATERIAL = re.compile(r"(?:mp|mvc)-[^/]+")
"""The Materials Project's name of a material, of which MPtrj has several calculations."""
GAP_FRAMES = 10
"""Frames of one trajectory this close are neighbours, as in a dataset."""
BLOCK_FRAMES = 50
"""A long run, or a file whose frames say nothing of themselves, is held out by stretches; each costs two gaps."""
DIGITS = 53
"""Bits of a float's mantissa: a hash of more would be rounded, at worst up to 1."""


@dataclass(frozen=True)
class Parts:
    """Row numbers of the three sets, in the pool's order, and how many rows are in none: like one held out, or near."""

    train: list[int]
    valid: list[int]
    test: list[int]
    dropped: int


def material_of(frame: Atoms) -> str:
    """Return what a frame shares with those that resemble it: its material, else its trajectory."""
    source = str(frame.info.get("source", UNSTATED))
    found = MATERIAL.match(source)
    return found[0] if found else source


def share_of(name: str) -> float:
    """Return a material's place in [0, 1): a hash of its name, as good as drawn at random once for all sets."""
    number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
    return (number >> (64 - DIGITS)) / 2**DIGITS


def role_of(name: str, *, valid_fraction: float, test_fraction: float) -> str:
    """Return the set that a material belongs to: test below one fraction, validation above one less the other."""
    share = share_of(name)
    if share < test_fraction:
        return TEST
    return VALID if share >= 1 - valid_fraction else TRAIN


def split(pool: Sequence[Atoms], *, valid_fraction: float, test_fraction: float) -> Parts:
    """Split a pool by material, each fraction that of all materials.

    A frame with no material of the Materials Project but a known place in its trajectory (``source_frame``) goes with
    the frames of its stretch of `BLOCK_FRAMES`; within `GAP_FRAMES` of a stretch that has more right to it, it is in no
    set. Nor is one that is the same structure as another that is held out, by whatever name.

    Raises
    ------
    InputError
        If a fraction is no share, the two leave nothing to train on, or a set comes out empty.
    """
    for fraction in (valid_fraction, test_fraction):
        if not 0.0 < fraction < 1.0:
            raise InputError(f"the share to hold out must lie between 0 and 1, got {fraction}")
    if valid_fraction + test_fraction >= 1.0:
        raise InputError(
            f"validation ({valid_fraction:g}) and test ({test_fraction:g}) leave nothing to train on: both are "
            "fractions of all materials"
        )
    rows: dict[str, list[int]] = {role: [] for role in ROLES}
    for row, frame in enumerate(pool):
        roles = [
            role_of(name, valid_fraction=valid_fraction, test_fraction=test_fraction)
            for name in _units(frame)
        ]
        if roles[0] == max(roles, key=ROLES.index):
            rows[roles[0]].append(row)
    kinds = first_of_kind(pool)
    taken: set[int] = set()
    for role in reversed(ROLES):
        rows[role] = [row for row in rows[role] if int(kinds[row]) not in taken]
        taken |= {int(kinds[row]) for row in rows[role]}
    _refuse_empty(
        pool, rows, {TRAIN: 1 - valid_fraction - test_fraction, VALID: valid_fraction, TEST: test_fraction}
    )
    return Parts(rows[TRAIN], rows[VALID], rows[TEST], len(pool) - sum(map(len, rows.values())))


def _units(frame: Atoms) -> list[str]:
    """Return the name that a frame is held out by, then those of the stretches beside it."""
    name = material_of(frame)
    if MATERIAL.match(name) or frame.info.get(PLACE) is None:
        return [name]
    place = int(frame.info[PLACE])
    return [f"{name} {near // BLOCK_FRAMES}" for near in (place, place - GAP_FRAMES, place + GAP_FRAMES)]


def _refuse_empty(pool: Sequence[Atoms], rows: dict[str, list[int]], fractions: dict[str, float]) -> None:
    for role in ROLES:
        if not rows[role]:
            n_units = len({_units(frame)[0] for frame in pool})
            raise InputError(
                f"the {role} set of these {len(pool)} frames came out empty: of {n_units} materials (or stretches of "
                f"trajectories) none is left for its share of {fractions[role]:g}, which a hash of names decides: "
                + ("lower the other fractions" if role == TRAIN else f"raise {role}_fraction")
                + ", or take a larger source, more frames or fewer filters"
            )
