"""Large files from elsewhere: taken up where a broken connection left them, kept only if they are the right ones."""

import os
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from hopline import files
from hopline.console import InputError, Stopped, progress

BLOCK_BYTES = 1 << 20
TIMEOUT_S = 60.0
PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE = 206, 416


def fetch(url: str, path: str | os.PathLike[str], *, sha256: str | None) -> bool:
    """Download a file, of known SHA-256 (64 hexadecimal digits) if one has it; return whether anything had to be done.

    A file that is there and right is kept, another one is left alone. The download grows beside its place as
    ``.NAME.part``, which the next attempt goes on from where the server can, and gets its name only when its content is
    the one asked for.

    Raises
    ------
    InputError
        If the server refuses, another file is there already, or the content is another one: then nothing is left of it.
    Stopped
        If the connection broke; what has arrived is kept.
    """
    path, wanted = Path(path), sha256.lower() if sha256 else None
    if path.is_file():
        found = files.sha256(path)
        if wanted in {found, None}:
            return False
        raise InputError(f"{path} has the SHA-256 {found}, not {wanted}: remove it, or correct the hash")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    if not (part.is_file() and files.sha256(part) == wanted):
        try:
            _download(url, part)
        except HTTPError as error:
            raise InputError(f"{url} answers {error.code} {error.reason}: check the address") from error
        except ValueError as error:
            raise InputError(f"{url} is no address: {error}") from error
        except URLError as error:
            raise InputError(
                f"{url} cannot be reached ({error.reason}): check address and network"
            ) from error
        except (HTTPException, ConnectionError, TimeoutError) as error:
            raise _broken(url, part, str(error) or type(error).__name__) from error
        found = files.sha256(part)
        if wanted not in {found, None}:
            part.unlink()
            raise InputError(
                f"{url} has the SHA-256 {found}, not {wanted}: it is another file or was damaged on its way; nothing "
                "was kept"
            )
    part.replace(path)
    return True


def _download(url: str, part: Path) -> None:
    """Bring what is missing of a file; the server may send all of it again."""
    have = part.stat().st_size if part.is_file() else 0
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310  the user's own address
    try:
        response = urlopen(request, timeout=TIMEOUT_S)  # noqa: S310  as above
    except HTTPError as error:
        if error.code != RANGE_NOT_SATISFIABLE or not have:
            raise
        # the part is longer than the file: it was another one's
        part.unlink()
        return _download(url, part)
    with response:
        goes_on = have > 0 and response.status == PARTIAL_CONTENT
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
    kept = part.stat().st_size if part.is_file() else 0
    return Stopped(f"the connection to {url} broke ({why}): {kept} bytes are kept, the same command goes on")
