"""A batch of frames labelled by pw.x one after the other, and its table: one row a frame."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from hopline import files
from hopline.console import InputError, say
from hopline.labels import espresso_run, ladder, origin
from hopline.labels.batch import CONVERGED, REJECTED, Row
from hopline.labels.espresso_output import INTERRUPTED, read_output
from hopline.labels.espresso_run import INPUT, OUTPUT


def label(inputs: Path, runs: Path, indices: Sequence[str], *, launch: espresso_run.Launch) -> list[Row]:
    """Run pw.x on ``inputs/{index}`` in ``runs/{index}`` for each index, and return their rows in that order.

    A frame that an earlier attempt finished with the same input is not run again; one that was stopped goes on from
    its charge density.

    Raises
    ------
    InputError
        If an input is missing, or as `espresso_run.run`.
    console.Stopped
        As `espresso_run.run`; the finished frames stay finished.
    """
    for index in indices:
        if not (inputs / index / INPUT).is_file():
            raise InputError(
                f"{inputs / index / INPUT} does not exist: write it with write_espresso_inputs.py"
            )
    rows = []
    for done, index in enumerate(indices, start=1):
        here = runs / index
        known = _is_finished(inputs / index, here)
        if not known:
            _bring(inputs / index, here)
            ladder.run(here / INPUT, here / OUTPUT, launch=launch)
        rows.append(row(index, here))
        energy_eV = rows[-1].energy_eV
        said = rows[-1].reason if energy_eV is None else f"{energy_eV:.6f} eV, {rows[-1].scf_steps} SCF steps"
        say(f"{done}/{len(indices)} {index}: {said}{' (from an earlier attempt)' if known else ''}")
    return rows


def row(index: str, folder: Path) -> Row:
    """Return the row of a finished frame, from what lies in its folder."""
    result = read_output(folder / OUTPUT)
    tried = ladder.read_attempts(folder / ladder.RUNGS)
    return Row(
        index=index,
        status=CONVERGED if result.converged else REJECTED,
        energy_eV=result.energy_eV,
        scf_steps=result.scf_steps,
        wall_time_s=result.wall_time_s,
        rung=tried[-1] if tried and result.converged else ladder.AS_GIVEN,
        reason=result.reason,
    )


def _is_finished(given: Path, here: Path) -> bool:
    """Tell whether a frame needs no run: its output is there, of the same input, and came to its end.

    A run that was given up for its time or broke off without a word had an accident, which a next one need not have.
    """
    if not _same_input(given, here) or not (here / OUTPUT).is_file():
        return False
    result = read_output(here / OUTPUT)
    return not result.timed_out and not result.reason.startswith(INTERRUPTED)


def _same_input(given: Path, here: Path) -> bool:
    """Tell whether two folders hold the same input; the frame names the content of the pseudopotentials."""
    return all(_content(given / name) == _content(here / name) for name in (INPUT, origin.FRAME))


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _bring(given: Path, here: Path) -> None:
    """Copy a frame's input to where it runs; an output of another input goes first, which it would claim."""
    if not _same_input(given, here):
        shutil.rmtree(here / ladder.SCRATCH, ignore_errors=True)
    for name in (OUTPUT, ladder.RUNGS, ladder.KEPT_INPUT):
        (here / name).unlink(missing_ok=True)
    for name in (INPUT, origin.FRAME):
        if (given / name).is_file() and given.resolve() != here.resolve():
            with files.whole(here / name) as temporary:
                shutil.copyfile(given / name, temporary)
