"""How scripts speak to a person: one clear line on bad input, progress on anything long."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

EXIT_BAD_INPUT = 2
EXIT_TRY_AGAIN = 75
"""EX_TEMPFAIL of sysexits.h: stopped before the end; the same command goes on."""
PLAIN_LINE_INTERVAL_S = 10.0
BAR_NOTE_INTERVAL_S = 1.0


class InputError(Exception):
    """Input that its author can put right; the message says what, where, and what to do."""


class Stopped(Exception):  # noqa: N818  it names the state of a run
    """Work that was asked to stop before its end, its state kept: the same command goes on."""


def run(main: Callable[[], None]) -> None:
    """Run a script's ``main``; bad input becomes one line on stderr and exit status 2, a stop one line and status 75.

    Any other exception is a defect of Hopline and keeps its traceback.
    """
    try:
        main()
    except Stopped as stopped:
        say(str(stopped))
        sys.exit(EXIT_TRY_AGAIN)
    except InputError as error:
        _refuse(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _refuse(f"{where}{error.strerror or error}")


def _refuse(message: str) -> None:
    script = sys.argv[0].rsplit("/", 1)[-1]
    print(f"{script}: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(EXIT_BAD_INPUT)


def say(message: str) -> None:
    """Print one plain line to stderr at once (stdout is kept for results)."""
    print(message, file=sys.stderr, flush=True)


def progress(
    items: Iterable[T], *, total: int | None, label: str, unit: str, note: Callable[[], str] = str
) -> Iterator[T]:
    """Yield ``items`` while showing how many of ``total`` (None: nobody knows) are done, the rate and the time left.

    A bar on a terminal; elsewhere (a log file, a batch system) one plain line every ten seconds. ``note`` returns what
    else there is to say.
    """
    if sys.stderr.isatty():
        yield from _bar(items, total=total, label=label, unit=unit, note=note)
        return
    started = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= PLAIN_LINE_INTERVAL_S:
            last = now
            rate = done / (now - started)
            told = f"{label}: {done} {unit}, {rate:.3g} {unit}/s"
            if total is not None:
                told = (
                    f"{label}: {done}/{total} {unit}, {rate:.3g} {unit}/s, {(total - done) / rate:.0f} s left"
                )
            say("; ".join(filter(None, (told, note()))))


def _bar(
    items: Iterable[T], *, total: int | None, label: str, unit: str, note: Callable[[], str]
) -> Iterator[T]:
    from tqdm import tqdm

    with tqdm(total=total, desc=label, unit=f" {unit}", file=sys.stderr) as bar:
        last = time.monotonic()
        for item in items:
            yield item
            now = time.monotonic()
            if now - last >= BAR_NOTE_INTERVAL_S:
                last = now
                bar.set_postfix_str(note(), refresh=False)
            bar.update()
