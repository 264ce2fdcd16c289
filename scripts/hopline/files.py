"""Files appear whole or not at all, and are known by their content."""

import csv
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hopline.console import InputError

if TYPE_CHECKING:
    import pandas as pd

HEAD_BYTES, MOST_LETTERS = 200, 40
"""Read of a file that is not what it should be, and shown of it if it is text."""
TEMPORARY = re.compile(r"\..+-[a-z0-9_]{8}(\.(?!changes$)\w+)*")
"""Names that `whole` gives; a trajectory's changes (`trajectory_writer`) are something else."""


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that becomes ``path`` only if the block succeeds.

    The suffix is kept, since many writers choose a format by it. The data reach the disk before the name
    does, so a killed job or a full disk leaves either the old file or the complete new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_left_over(folder: Path) -> None:
    """Remove what killed writers left in a folder (see `whole`); nobody else may be writing to it."""
    for path in folder.iterdir():
        if TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def link_or_copy(source: Path, path: Path) -> None:
    """Let a file appear under a second name as well, in one instant; where the disk cannot do that it is copied."""
    with tempfile.TemporaryDirectory(prefix=".link-", dir=path.parent) as folder:
        second = Path(folder) / path.name
        try:
            second.hardlink_to(source)
        except OSError:
            with whole(path) as temporary:
                shutil.copyfile(source, temporary)
        else:
            second.replace(path)
    path.touch()  # Snakemake takes an output older than its inputs for one of an earlier run


def unlink_second_names(path: Path) -> None:
    """Make a file that has other names too (`link_or_copy`) one of its own, so that it can be changed."""
    if path.stat().st_nlink > 1:
        with whole(path) as temporary:
            shutil.copyfile(path, temporary)


def write_json(path: str | os.PathLike[str], content: object) -> None:
    """Write ``content`` as indented JSON, whole or not at all; NaN and infinity become null."""
    text = json.dumps(_plain(content), indent=1, allow_nan=False) + "\n"
    with whole(path) as temporary:
        temporary.write_text(text)


def write_tensors(path: str | os.PathLike[str], content: object) -> None:
    """Write what torch saves (tensors, models), whole or not at all.

    Torch's own writer turns a full disk into an error that does not say so.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    with whole(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_torch(path: str | os.PathLike[str], *, kind: str, only_tensors: bool) -> Any:
    """Read what torch saved, on the CPU; a file that cannot be opened is refused by name, with what is wrong with it.

    ``kind`` says what the file should be. With ``only_tensors`` nothing in it can run code; without, a pickle runs what
    its author put there.
    """
    import torch

    if not Path(path).is_file():
        raise InputError(f"the {kind} file {path} does not exist")
    try:
        return torch.load(path, map_location="cpu", weights_only=only_tensors)
    except Exception as error:  # bytes that are no pickle, or somebody else's, may raise whatever there is
        raise InputError(f"{path} is not a whole {kind} file: {_why_closed(Path(path), error)}") from error


def _why_closed(path: Path, error: Exception) -> str:
    """Return why torch could not open a file: its own words know neither broken downloads nor missing packages."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    text = head.decode("ascii", errors="replace")
    if text.isascii() and all(letter.isprintable() or letter.isspace() for letter in text):
        return f"it is text, beginning with {text.strip()[:MOST_LETTERS]!r}" if head else "it is empty"
    if head.startswith(b"PK"):
        try:
            parts = zipfile.ZipFile(path).namelist()
        except zipfile.BadZipFile:
            return "its end is missing; fetch or copy it again"
        if not any(name.endswith("data.pkl") for name in parts):
            return "it is a zip archive of something else"
    if isinstance(error, ModuleNotFoundError):
        return f"it was made with the package {error.name}, which is not installed"
    if isinstance(error, pickle.UnpicklingError) and str(error).startswith("Weights only load failed"):
        return "it holds more than plain tensors and values, or is none of torch's; it was not opened"
    # torch goes on with advice to programmers, of many lines
    words = " ".join(str(error).split()).partition(". ")[0]
    return f"torch says {type(error).__name__} ({words or 'no more'})"


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object; a missing, truncated or non-object file is refused by name."""
    try:
        content = json.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not complete JSON ({error}); make it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__} where an object is expected")
    return content


def read_array(path: str | os.PathLike[str]) -> NDArray[np.float64]:
    """Read a NumPy array of numbers (.npy); a missing, truncated or other file is refused by name."""
    try:
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except (ValueError, EOFError, TypeError) as error:
        raise InputError(f"{path} is not a whole NumPy array of numbers: {error}") from error


def read_table(path: str | os.PathLike[str], columns: Sequence[str]) -> "pd.DataFrame":
    """Read a CSV; a missing or broken file, or one that lacks one of ``columns``, is refused by name."""
    import pandas as pd

    try:
        table = pd.read_csv(path)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except ValueError as error:  # pandas' own parser errors are ValueErrors
        raise InputError(f"{path} is not a whole CSV table: {error}") from error
    missing = [name for name in columns if name not in table]
    if missing:
        raise InputError(f"{path} has no column {', '.join(missing)}")
    return table


def write_table(path: str | os.PathLike[str], table: "pd.DataFrame", *, digits: int | None = None) -> None:
    """Write a table as CSV, whole or not at all; with ``digits`` its fractions are cut to so many significant ones."""
    with whole(path) as temporary:
        table.to_csv(temporary, index=False, float_format=None if digits is None else f"%.{digits}g")


def write_rows(
    path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Write rows as CSV, whole or not at all; with none, the header alone. Bytes that are no text become ``?``."""
    with whole(path) as temporary, temporary.open("w", newline="", errors="replace") as file:
        table = csv.DictWriter(file, fieldnames=list(columns))
        table.writeheader()
        table.writerows(rows)


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(value: Any) -> Any:
    """Turn numpy values, paths and non-finite floats into what JSON can hold."""
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
