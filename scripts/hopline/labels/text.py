"""Files from strangers, read line by line: compressed or not, and never more than one line in memory."""

import bz2
import gzip
import lzma
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from hopline.labels.candidates import Broken

OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open,
}  # fmt: skip
SUFFIXES = (".gz", ".bz2", ".xz")
CORRUPT = (EOFError, zlib.error, lzma.LZMAError)
"""What the decompressors raise on a file that was cut off or damaged."""
MAX_LINE_BYTES = 1 << 20
MAX_UNPACKED_BYTES = 1 << 31
HEAD_BYTES = 8192
NUL = b"\0"


def plain_name(path: str | os.PathLike[str]) -> str:
    """Return a file's name without the suffix of a compression."""
    name = Path(path).name
    return name.removesuffix(next((suffix for suffix in SUFFIXES if name.endswith(suffix)), ""))


@contextmanager
def open_bytes(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file for reading, decompressed if it is gzip, bzip2 or xz (told by content, not by name).

    Raises
    ------
    Broken
        Where the compressed stream ends early or is damaged.
    """
    with Path(path).open("rb") as file:
        magic = file.read(6)
    opener = next((opener for start, opener in OPENERS.items() if magic.startswith(start)), None)
    with Path(path).open("rb") if opener is None else opener(Path(path)) as stream:
        try:
            yield stream
        except (*CORRUPT, OSError) as error:
            # bz2 says with an OSError of its own, without a number, that its data are damaged
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise Broken(f"cut off: the compressed file is damaged or ends early ({error})") from error


def head(path: str | os.PathLike[str]) -> bytes:
    """Return the first bytes of a file, decompressed; what can be had of a damaged one."""
    try:
        with open_bytes(path) as stream:
            return stream.read(HEAD_BYTES)
    except (Broken, OSError):
        return b""


def lines(path: str | os.PathLike[str]) -> Iterator[str]:
    r"""Yield a text file's lines with their ends, so that the last one without an end can be told.

    ``\r\n`` becomes ``\n``; bytes that are no UTF-8 become the replacement character.

    Raises
    ------
    Broken
        Where the file turns out to be binary (a NUL byte), a line is longer than a text file's lines are, or the
        compressed stream ends early.
    """
    with open_bytes(path) as stream:
        number = 0
        while line := stream.readline(MAX_LINE_BYTES):
            number += 1
            if NUL in line:
                raise Broken(f"line {number} holds binary data: this is no text file, or one in UTF-16")
            if len(line) == MAX_LINE_BYTES:
                raise Broken(f"line {number} is longer than {MAX_LINE_BYTES} characters")
            yield line.decode(errors="replace").replace("\r\n", "\n")


def text(path: str | os.PathLike[str], *, max_bytes: int) -> str:
    """Return a whole text file, decompressed.

    Raises
    ------
    Broken
        As `lines`, or where the text is longer than ``max_bytes``.
    """
    kept: list[str] = []
    size = 0
    for line in lines(path):
        kept.append(line)
        size += len(line)
        if size > max_bytes:
            raise Broken(f"longer than {max_bytes >> 20} MiB: too long for one calculation's output")
    return "".join(kept)


@contextmanager
def unpacked(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the path of the decompressed file, for readers that must be given a path; the file itself if plain.

    Raises
    ------
    Broken
        Where the compressed stream ends early or unpacks to more than two GiB.
    """
    path = Path(path)
    with path.open("rb") as file:
        magic = file.read(6)
    if not magic.startswith(tuple(OPENERS)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="hopline-") as folder:
        target = Path(folder) / plain_name(path)
        with open_bytes(path) as stream, target.open("wb") as file:
            while block := stream.read(MAX_LINE_BYTES):
                if file.tell() + len(block) > MAX_UNPACKED_BYTES:
                    raise Broken(f"unpacks to more than {MAX_UNPACKED_BYTES >> 30} GiB: unpack it yourself")
                file.write(block)
        yield target
