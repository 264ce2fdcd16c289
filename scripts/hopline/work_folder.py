"""Folders in which a long computation keeps what its next attempt needs, held by one process at a time."""

import fcntl
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hopline.console import InputError, say


@contextmanager
def held(folder: Path) -> Iterator[Path]:
    """Hold a folder for this process alone, making it where it is not there.

    The lock lies beside the folder: a network file system cannot remove a folder that holds an open file.

    Raises
    ------
    InputError
        If another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _lock_of(folder).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{folder} is in use by another process: wait for it or stop it") from error
        except OSError as error:
            say(
                f"{_lock_of(folder)} cannot be locked ({error.strerror}): see to it that no other process uses {folder}"
            )
        yield folder


@contextmanager
def own_folder(folder: Path, *, outputs: Iterable[Path] = ()) -> Iterator[Path]:
    """Hold a folder of Hopline's own, which is removed when the block succeeds.

    Its lock tells a folder that a killed computation left from one that holds something else, which would go with it.

    Raises
    ------
    InputError
        If another process is in the folder, it holds files of somebody else's, or is to hold one of ``outputs``.
    """
    for path in outputs:
        if path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{folder} is removed in the end, and {path} with it: name another folder")
    if folder.exists() and not _lock_of(folder).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not Hopline's: name a folder of its own, which is removed in the end")
    with held(folder):
        yield folder
        shutil.rmtree(folder)
        _lock_of(folder).unlink()


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")
