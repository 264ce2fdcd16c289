"""VASP's POTCARs: found by symbol in the user's folder, checked by content, never shipped.

A set of inputs carries what its POTCARs must be in ``POTCAR.checks``: lines of symbol, release and SHA-256, with ``-``
where one is not known.
"""

import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hopline import files
from hopline.console import InputError
from hopline.labels import text
from hopline.labels.candidates import Broken

CHECKS = "POTCAR.checks"
UNKNOWN = "-"
MAX_BYTES = 1 << 26
END = b"End of Dataset"
OWN_HASH = re.compile(rb"^\s*SHA256\s*=\s*([0-9a-fA-F]{64})", re.MULTILINE)
TITLE = re.compile(rb"^\s*TITEL\s*=\s*(\S.*)$", re.MULTILINE)


@dataclass(frozen=True, eq=False)
class Potcar:
    """A POTCAR that passed its checks."""

    symbol: str
    content: bytes
    sha256: str


@dataclass(frozen=True)
class Check:
    """What a POTCAR must be: of a release (PBE, PBE_54, ...), of a content; None where any will do."""

    release: str | None = None
    sha256: str | None = None


def load(folder: Path, symbol: str, check: Check) -> Potcar:
    """Return the POTCAR of a symbol, checked.

    Looked for are ``SYMBOL/POTCAR`` and ``POTCAR.SYMBOL``, compressed or not, in the folder and below it where
    pymatgen keeps the release (``POT_PAW_PBE_64/...``).

    Raises
    ------
    InputError
        If there is none; if it is damaged, by its own hash or its end; if it is of another symbol; if its SHA-256 is
        not the one asked for; or if without one pymatgen does not know it as a genuine one of this symbol and release.
    """
    path = _find(folder, symbol, check.release)
    try:
        with text.open_bytes(path) as stream:
            content = stream.read(MAX_BYTES)
    except Broken as error:
        raise InputError(f"{path}: {error}") from error
    found = hashlib.sha256(content).hexdigest()
    reason = _damage(content) or _not_the_one(content, found, symbol, check)
    if reason:
        raise InputError(f"{path} is not the POTCAR of {symbol} that is needed: {reason}")
    return Potcar(symbol, content, found)


def _find(folder: Path, symbol: str, release: str | None) -> Path:
    from pymatgen.io.vasp.inputs import POTCAR_FUNCTIONAL_MAP

    if not folder.is_dir():
        raise InputError(f"the folder of POTCARs {folder} does not exist")
    tops = [folder / POTCAR_FUNCTIONAL_MAP[release], folder] if release in POTCAR_FUNCTIONAL_MAP else [folder]
    names = [f"{symbol}/POTCAR", f"POTCAR.{symbol}"]
    tried = [top / (name + suffix) for top in tops for name in names for suffix in ("", *text.SUFFIXES)]
    found = next((path for path in tried if path.is_file()), None)
    if found is None:
        raise InputError(
            f"{folder} holds no POTCAR of {symbol}: put it there as {symbol}/POTCAR or POTCAR.{symbol}"
        )
    return found


def _damage(content: bytes) -> str:
    """Return how a file shows by itself that it is no whole POTCAR; empty where it does not."""
    if TITLE.search(content) is None:
        return "it has no TITEL, as a POTCAR has"
    if content.count(END) != 1 or not content.rstrip().endswith(END):
        return "it does not end as a POTCAR does, or holds several: it was cut off, or joined"
    own = OWN_HASH.search(content)
    # the hash is of all lines but itself and the copyright
    lines = [line for line in content.split(b"\n") if not line.strip().startswith((b"SHA256", b"COPYR"))]
    if own is not None and own[1].decode().lower() != hashlib.sha256(b"\n".join(lines)).hexdigest():
        return "its content does not fit the SHA256 in its own header: it was damaged, edited or given other line ends"
    return ""


def _not_the_one(content: bytes, found: str, symbol: str, check: Check) -> str:
    """Return why a whole POTCAR is another than asked for; empty where it is the one."""
    title = TITLE.findall(content)[0].decode(errors="replace").strip()
    if check.sha256 is not None:
        return (
            "" if found == check.sha256.lower() else f"its SHA-256 is {found}, not {check.sha256} ({title})"
        )
    releases, symbols = _known_as(content.decode(errors="ignore"))
    if not releases:
        return f"pymatgen does not know {title} with this content; if you trust it, give its SHA-256 in the preset"
    if symbol not in symbols:
        return f"it is of {', '.join(sorted(symbols))} ({title})"
    if check.release is not None and check.release not in releases:
        return f"it is of release {', '.join(sorted(releases))}, not {check.release} ({title})"
    return ""


def _known_as(content: str) -> tuple[set[str], set[str]]:
    """Return the releases and symbols under which pymatgen knows the statistics of a POTCAR's numbers."""
    from pymatgen.io.vasp.inputs import PotcarSingle

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of what is asked here
        try:
            releases, symbols = PotcarSingle(content).identify_potcar(mode="file")
        except Exception:  # noqa: BLE001  its parser raises whatever it stumbles over; such a file is unknown
            return set(), set()
    return {release.removesuffix("_W_HASH") for release in releases}, set(symbols)


def write_checks(path: Path, checks: Mapping[str, Check]) -> None:
    """Write what the POTCARs of a set of inputs must be, a line a symbol."""
    lines = [
        f"{symbol} {check.release or UNKNOWN} {check.sha256 or UNKNOWN}\n"
        for symbol, check in sorted(checks.items())
    ]
    with files.whole(path) as temporary:
        temporary.write_text("".join(lines))


def read_checks(path: Path) -> dict[str, Check]:
    """Return what the POTCARs of a set of inputs must be, by symbol; a missing or broken file is refused."""
    if not path.is_file():
        raise InputError(f"{path} does not exist: write the inputs with write_vasp_inputs.py")
    rows = [line.split() for line in path.read_text().splitlines()]
    if not all(len(row) == 3 for row in rows):  # noqa: PLR2004
        raise InputError(f"{path} must hold lines of symbol, release and SHA-256")
    return {
        symbol: Check(*(None if word == UNKNOWN else word for word in (release, sha256)))
        for symbol, release, sha256 in rows
    }


def joined(potcars: Sequence[Potcar]) -> bytes:
    """Return the POTCAR of a run: those of its species in the order of its POSCAR, one after the other."""
    return b"".join(
        potcar.content if potcar.content.endswith(b"\n") else potcar.content + b"\n" for potcar in potcars
    )
