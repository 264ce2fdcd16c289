"""Large files from elsewhere: taken up where a broken connection left them, kept only if they are the right ones."""

import os
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from hopline import files
from hopline.console import InputError, Stopped, progress

BLOCK_BYTES = 1 << 20
TIMEOUT_S = 60.0
WEAK = "W/"
"""Begins an entity tag of content that may differ in its bytes: no part may be joined on to another by it."""


def fetch(url: str, path: str | os.PathLike[str], *, sha256: str | None) -> bool:
    """Download a file, of known SHA-256 (64 hexadecimal digits) if one has it; return whether anything had to be done.

    A file that is there and right is kept, another one is left alone. The download grows beside its place as
    ``.NAME.part``, which the next attempt goes on from where the server can, and gets its name only when its content is
    the one asked for. ``.NAME.part.version`` keeps which version of the file was sent (its address, and entity tag or
    date): only of that one the rest is asked for. A part whose version is not known is gone on from where a hash will
    tell whether the halves belong together, else begun again.

    Raises
    ------
    InputError
        If the server refuses, another file is there already, or the content is another one: then nothing is left of it.
    Stopped
        If the connection broke, or the server is overloaded or out of order (429, 5xx); what has arrived is kept.
    """
    path, wanted = Path(path), sha256.lower() if sha256 else None
    if path.is_file():
        found = files.sha256(path)
        if wanted in {found, None}:
            return False
        raise InputError(f"{path} has the SHA-256 {found}, not {wanted}: remove it, or correct the hash")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    if wanted is None and _version(url, part) is None:
        _discard(part)
    if not (part.is_file() and files.sha256(part) == wanted):
        _download_or_say_why(url, part)
        found = files.sha256(part)
        if wanted not in {found, None}:
            _discard(part)
            raise InputError(
                f"{url} has the SHA-256 {found}, not {wanted}: it is another file or was damaged on its way; nothing "
                "was kept"
            )
    part.replace(path)
    _version_of(part).unlink(missing_ok=True)
    return True


def _download_or_say_why(url: str, part: Path) -> None:
    try:
        _download(url, part)
    except HTTPError as error:
        answer = f"{url} answers {error.code} {error.reason}"
        if error.code == HTTPStatus.TOO_MANY_REQUESTS or error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            why = "the server is busy or out of order, try again later"
            raise Stopped(f"{answer}: {why}: {_kept(part)}") from error
        raise InputError(f"{answer}: check the address") from error
    except ValueError as error:
        raise InputError(f"{url} is no address: {error}") from error
    except URLError as error:
        raise InputError(f"{url} cannot be reached ({error.reason}): check address and network") from error
    except (HTTPException, ConnectionError, TimeoutError) as error:
        raise _broken(url, part, str(error) or type(error).__name__) from error


def _download(url: str, part: Path) -> None:
    """Bring what is missing of a file; the server may send all of it again."""
    have = part.stat().st_size if part.is_file() else 0
    version = _version(url, part) if have else None
    headers = {"Range": f"bytes={have}-"} if have else {}
    headers |= {"If-Range": version} if version else {}
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT_S)  # noqa: S310  the user's own address
    except HTTPError as error:
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise
        # the part is longer than the file: it was another one's
        _discard(part)
        return _download(url, part)
    with response:
        goes_on = have > 0 and response.status == HTTPStatus.PARTIAL_CONTENT
        sent = _version_in(response.headers)
        if goes_on and version and sent not in {version, None}:
            # a server that does not know If-Range sends the rest of whatever lies there now
            _discard(part)
            return _download(url, part)
        if not goes_on:
            _discard(part)
            if sent:
                with files.whole(_version_of(part)) as temporary:
                    temporary.write_text(f"{url}\n{sent}\n")
        length = response.headers.get("Content-Length")
        n_blocks = None if length is None else -(-int(length) // BLOCK_BYTES)
        blocks = progress(
            iter(lambda: response.read(BLOCK_BYTES), b""), total=n_blocks, label="fetch", unit="MiB"
        )
        arrived = 0
        with part.open("ab" if goes_on else "wb") as file:
            for block in blocks:
                file.write(block)
                arrived += len(block)
            file.flush()
            os.fsync(file.fileno())
    if length is not None and arrived < int(length):
        raise _broken(url, part, f"{int(length) - arrived} bytes are missing")
    return None


def _broken(url: str, part: Path, why: str) -> Stopped:
    return Stopped(f"the connection to {url} broke ({why}): {_kept(part)}")


def _kept(part: Path) -> str:
    return f"{part.stat().st_size if part.is_file() else 0} bytes are kept, the same command goes on"


def _discard(part: Path) -> None:
    for path in (part, _version_of(part)):
        path.unlink(missing_ok=True)


def _version_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _version(url: str, part: Path) -> str | None:
    """Return which version of the file at an address a part is of; None where nothing says so."""
    path = _version_of(part)
    lines = path.read_text().splitlines() if path.is_file() else []
    return lines[1] if lines[:1] == [url] else None


def _version_in(headers: Any) -> str | None:
    """Return what tells a file's version byte by byte: its strong entity tag, or its date where it has no tag."""
    tag = headers.get("ETag")
    if tag is None:
        return headers.get("Last-Modified")
    return None if tag.startswith(WEAK) else tag
