"""Checkpoints: all that a replica's next step depends on, in files that appear whole or not at all.

Each replica has its own, named by the step, so that a batch may be put together anew. Replicas of a batch go on from
the newest moment that all of them have: what a batch computes for one may change in the last bit with the others.
"""

import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hopline.console import say
from hopline.files import whole

WITHOUT_MOMENT, FORMAT = 1, 2
"""Raised whenever a state holds something else, or means something else: runs of versions not known begin anew."""
HEAD = "head"
INTERVAL_S = 300.0
"""Time between checkpoints where nobody says another: a run that is killed loses less."""


class Moment(NamedTuple):
    """When in the life of a batch: its replicas may have come to it at different steps of their own."""

    batch: str
    steps: int
    """How many the batch has advanced."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One replica at one step: ``arrays`` of the engine, plain ``values`` of engine and run, and whose it is.

    ``ended`` is true where the run exploded here and does not go on.
    """

    step: int
    identity: str
    moment: Moment
    ended: bool
    arrays: Mapping[str, NDArray[Any]]
    values: Mapping[str, Any]


def write(folder: Path, checkpoint: Checkpoint) -> None:
    """Add a checkpoint to a replica's folder; it is on the disk when this returns."""
    names = ("step", "identity", "moment", "ended", "values")
    text = json.dumps({"format": FORMAT, **{name: getattr(checkpoint, name) for name in names}})
    with whole(_path(folder, checkpoint.step)) as temporary, temporary.open("wb") as file:
        arrays: dict[str, Any] = {HEAD: np.array(text), **checkpoint.arrays}
        np.savez(file, **arrays)


def forget_others(folder: Path, step: int) -> None:
    """Remove a replica's checkpoints of other steps: called when all replicas of the batch have this one."""
    for path in _all(folder):
        if path != _path(folder, step):
            path.unlink(missing_ok=True)


def read_common(
    folders: Sequence[Path], identities: Sequence[str], n_steps: Sequence[int]
) -> list[Checkpoint | None]:
    """Return where each replica goes on: at the newest moment common to all, or each at its last where there is none.

    A replica that is over (exploded, or at its last of ``n_steps``) has all later moments of its batch in common with
    the others; where it has no earlier checkpoint left it was over before the others' last, and stays out of it.
    Checkpoints of other runs (other settings, start or potential) and damaged ones do not count.
    """
    found = [
        [one for path in _all(folder) if (one := _read(path, identity)) is not None and one.step <= last]
        for folder, identity, last in zip(folders, identities, n_steps, strict=True)
    ]
    over = [
        bool(mine) and (mine[-1].ended or mine[-1].step == last)
        for mine, last in zip(found, n_steps, strict=True)
    ]
    together = [
        (mine, is_over) for mine, is_over in zip(found, over, strict=True) if not (is_over and len(mine) == 1)
    ]
    moments = {one.moment for mine, _ in together for one in mine}
    common = [
        moment for moment in moments if all(_at(moment, mine, is_over=is_over) for mine, is_over in together)
    ]
    if not common:
        return [mine[-1] if mine else None for mine in found]
    newest = max(common, key=lambda moment: moment.steps)
    return [
        _at(newest, mine, is_over=is_over) or (mine[-1] if mine else None)
        for mine, is_over in zip(found, over, strict=True)
    ]


def _at(moment: Moment, mine: Sequence[Checkpoint], *, is_over: bool) -> Checkpoint | None:
    """Return a replica's checkpoint of a moment, or of its end if the batch came to the moment later."""
    for one in mine:
        if one.moment == moment:
            return one
    last = mine[-1] if is_over else None
    has_ended = last and last.moment.batch == moment.batch and last.moment.steps < moment.steps
    return last if has_ended else None


def take_folder(folder: Path, identity: str, n_steps: int) -> None:
    """Make a replica's folder that of this run: another run's files go to a shelf beside it, or come back from there.

    So a setting that was changed and changed back, or a shorter run in between, costs no run that was made.
    """
    shelf = _shelf(folder, identity)
    here, there = _last(folder), _last(shelf)
    reached = -1 if here is None or here.identity != identity or here.step > n_steps else here.step
    comes_back = there is not None and reached < there.step <= n_steps
    if here is not None and reached < 0:
        away = _shelf(folder, here.identity)
        kept = _last(away)
        if kept is None or kept.step < here.step:
            _move(folder, away)
            say(f"{folder} held another run, or a longer one, which is kept in {away}")
        else:
            # what is kept went further
            shutil.rmtree(folder)
        folder.mkdir()
    if comes_back:
        _move(shelf, folder)
        say(f"{folder} is back from {shelf}")


def _move(folder: Path, to: Path) -> None:
    """Move what is in a folder to another, in place of what is there."""
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(to, ignore_errors=True)
    folder.rename(to)


def _shelf(folder: Path, identity: str) -> Path:
    return folder.parent / "earlier" / f"{folder.name}-{identity[:12]}"


def _last(folder: Path) -> Checkpoint | None:
    """Return a folder's newest checkpoint, whosever it is; None where there is none."""
    whole_ones = (_read(path, None) for path in reversed(_all(folder)))
    return next((one for one in whole_ones if one is not None), None)


def _path(folder: Path, step: int) -> Path:
    return folder / f"checkpoint-{step:012d}.npz"


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*.npz"))


def _read(path: Path, identity: str | None) -> Checkpoint | None:
    """Return a checkpoint, if it is of a run (None: of any)."""
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        head = json.loads(str(arrays.pop(HEAD)))
        version = head.pop("format")
        if head["identity"] != (identity or head["identity"]):
            return None
        if version not in {WITHOUT_MOMENT, FORMAT}:
            say(f"{path} is of another version of Hopline: it does not count")
            return None
        moment = Moment(*head.pop("moment")) if version == FORMAT else Moment("", head["step"])
        return Checkpoint(arrays=arrays, moment=moment, **head)
    except (OSError, EOFError, ValueError, LookupError, TypeError, zipfile.BadZipFile) as error:
        say(f"{path} cannot be read ({error}): it does not count")
        return None
