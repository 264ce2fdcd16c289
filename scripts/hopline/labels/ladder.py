"""The ladder for runs without a label: other numerical routes to the same answer, tried in turn.

Every rung leaves the level of theory alone: mixing, diagonalisation, the first guess and empty bands decide whether
the SCF cycle arrives, not where. Occupations may be fixed in an insulator (see `fixed_occupations`).
"""

import csv
import math
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from hopline import files
from hopline.console import say
from hopline.labels import espresso_run, origin
from hopline.labels.espresso import keyword, with_keywords
from hopline.labels.espresso_output import (
    PW_ERROR,
    UNCONVERGED,
    WRONG_FERMI_LEVEL,
    PwOutput,
    parse_output,
    rungs_note,
)
from hopline.units import RYDBERG_EV

AS_GIVEN, FIXED, MIXING, BANDS, SMEARING, DIAGONALISATION = (
    "as given", "fixed occupations", "gentle mixing", "more bands", "wider smearing first", "conjugate gradients",
)  # fmt: skip
SCRATCH, RUNGS, KEPT_INPUT = ".scratch", "rungs.csv", "rung.in"
"""Beside a frame's pw.out: what it goes on from, how each rung went, and the input of the rung that gave pw.out."""
NON_MONOTONIC = {"cold", "m-v", "mv", "marzari-vanderbilt", "m-p", "mp", "methfessel-paxton"}
MIN_GAP_IN_WIDTHS = 10.0
"""From a Fermi level in the middle of such a gap every band is filled or empty to better than 1e-8."""
GENTLE_BETA = 0.3
MORE_BANDS_FACTOR, MORE_BANDS_MIN = 1.6, 10
"""pw.x takes 1.2 times the filled bands and at least 4 more for a metal."""
WIDER = 3.0
BAND_TROUBLE = re.compile(
    r"c_bands:\s+\d+ eigenvalues not converged|too many bands are not converged|S matrix not positive|"
    r"problems computing cholesky|eigenvectors failed to converge|diagonalization .*failed"
)
"""Words of pw.x that the diagonalisation is at fault: too few empty bands, or an algorithm that broke down."""


@dataclass(frozen=True)
class Attempt:
    """One rung and how it went; ``reason`` is empty where it gave the label."""

    rung: str
    reason: str
    scf_steps: int
    wall_time_s: float | None


@dataclass(frozen=True, eq=False)
class Climbed:
    """The result that counts, the rung it is from, and all that was tried."""

    result: PwOutput
    rung: str
    attempts: Sequence[Attempt]


def fixed_occupations(text: str, first: PwOutput) -> str | None:
    """Return the input of the same crystal as an insulator; None where that may not be tried.

    Cold and Methfessel-Paxton smearing have several Fermi levels in an insulator: pw.x then converges to a wrong one
    or jumps between them (see `espresso_output`). With fixed occupations there is none to find, and where the gap is
    wide against the smearing the bands are filled exactly as at the right level: the same energy at the same level of
    theory.
    """
    smeared = (keyword(text, "smearing") or "").lower() in NON_MONOTONIC
    if not smeared or first.n_electrons is None or first.n_electrons % 2:
        return None
    bands = round(first.n_electrons / 2) + 1  # the first empty one shows the gap
    return with_keywords(
        text, "system", {"occupations": "fixed", "smearing": None, "degauss": None, "nbnd": bands}
    )


def _number(word: str) -> float:
    """Return a number as Fortran may spell it, 0.3d0."""
    return float(word.lower().replace("d", "e"))


def gentle_mixing(text: str, _: PwOutput) -> str:
    """Return the input with less of each new density mixed in, screened by its local value: for sloshing charge."""
    beta = min(GENTLE_BETA, _number(keyword(text, "mixing_beta") or str(GENTLE_BETA)))
    return with_keywords(text, "electrons", {"mixing_beta": beta, "mixing_mode": "local-TF"})


def more_bands(text: str, first: PwOutput) -> str | None:
    """Return the input with gentle mixing and more empty bands; None for occupations that are fixed."""
    if keyword(text, "occupations") != "smearing" or first.n_electrons is None:
        return None
    filled = first.n_electrons / 2
    bands = math.ceil(max(MORE_BANDS_FACTOR * filled, filled + MORE_BANDS_MIN))
    return with_keywords(gentle_mixing(text, first), "system", {"nbnd": bands})


def conjugate_gradients(text: str, first: PwOutput) -> str:
    """Return the input with a slower, surer diagonalisation, on top of the rungs below it."""
    return with_keywords(
        more_bands(text, first) or gentle_mixing(text, first), "electrons", {"diagonalization": "cg"}
    )


ROUTES: dict[str, Callable[[str, PwOutput], str | None]] = {
    FIXED: fixed_occupations, MIXING: gentle_mixing, BANDS: more_bands, SMEARING: more_bands,
    DIAGONALISATION: conjugate_gradients,
}  # fmt: skip


def rungs_for(first: PwOutput, printed: str) -> list[str]:
    """Return the rungs that fit what a run said, the most promising one first; none where no rung can help."""
    if first.reason.startswith(WRONG_FERMI_LEVEL):
        return [FIXED]
    if BAND_TROUBLE.search(printed) and first.reason.startswith((UNCONVERGED, PW_ERROR)):
        return [FIXED, BANDS, DIAGONALISATION, SMEARING, MIXING]
    if first.reason.startswith(UNCONVERGED):
        return [FIXED, MIXING, BANDS, SMEARING, DIAGONALISATION]
    return []


def run(input_path: Path, output_path: Path, *, launch: espresso_run.Launch) -> Climbed:
    """Run pw.x on an input, by other routes where it gives no label, and keep the output that counts.

    Beside the output lie its input and ``frame.extxyz``; where more than one rung was tried, ``rungs.csv`` says how
    each went, and ``rung.in`` is the input of the one that gave the output. If no rung gives a label, the output of
    the input as given is kept, with a note of all that was tried. At most one run a rung, and one that prepares the
    density of the rung with wider smearing. A run that was killed or stopped goes on where it was.

    Raises
    ------
    InputError
        As `espresso_run.run`.
    console.Stopped
        As `espresso_run.run`; what is done so far is kept in the hidden folder ``.scratch``.
    """
    text, scratch = input_path.read_text(), output_path.parent / SCRATCH
    first = espresso_run.run(text, scratch / AS_GIVEN, launch=launch)
    printed = (scratch / AS_GIVEN / espresso_run.OUTPUT).read_text(errors="replace")
    attempts, kept, result = [_attempt(AS_GIVEN, first)], AS_GIVEN, first
    tried = {text}
    # the printed level of theory of fixed occupations is another: only with a frame.extxyz the right one is known
    stated = input_path.with_name(origin.FRAME).is_file()
    for rung in [] if first.converged else rungs_for(first, printed):
        changed = ROUTES[rung](text, first)
        if changed is None or (changed in tried and rung != SMEARING) or (rung == FIXED and not stated):
            continue
        tried.add(changed)
        say(f"{output_path}: {attempts[-1].reason}; next: {rung}")
        result = _run_rung(rung, changed, scratch, launch)
        reason = result.reason or (_not_the_same(text, result) if rung == FIXED else "")
        attempts.append(_attempt(rung, result, reason))
        if not reason:
            kept = rung
            say(f"{output_path}: {rung} gave the label")
        if not reason or result.timed_out:
            break
    _keep(output_path, scratch, kept, attempts)
    return Climbed(parse_output(output_path.read_text(errors="replace")), kept, attempts)


def _run_rung(rung: str, text: str, scratch: Path, launch: espresso_run.Launch) -> PwOutput:
    folder, width = scratch / rung, keyword(text, "degauss")
    if rung != SMEARING or width is None:
        return espresso_run.run(text, folder, launch=launch)
    wide = with_keywords(text, "system", {"degauss": WIDER * _number(width)})
    wider = scratch / f"{rung}, prepared"
    prepared = espresso_run.run(wide, wider, launch=launch, keep_density=True)
    return (
        prepared
        if not prepared.converged
        else espresso_run.run(text, folder, launch=launch, density_of=wider)
    )


def _not_the_same(text: str, result: PwOutput) -> str:
    """Return why fixed occupations are not what the smearing asked for means; empty where they are."""
    needed_eV = MIN_GAP_IN_WIDTHS * _number(keyword(text, "degauss") or "inf") * RYDBERG_EV
    if result.gap_eV is not None and result.gap_eV >= needed_eV:
        return ""
    return f"a gap of {result.gap_eV} eV is not the {needed_eV:.2f} eV that make both ways equal"


def _attempt(rung: str, result: PwOutput, reason: str | None = None) -> Attempt:
    return Attempt(rung, result.reason if reason is None else reason, result.scf_steps, result.wall_time_s)


def _keep(output_path: Path, scratch: Path, kept: str, attempts: Sequence[Attempt]) -> None:
    """Put the output that counts in its place, last of all, and clear the scratch unless it is worth going on."""
    folder = output_path.parent
    (folder / KEPT_INPUT).unlink(missing_ok=True)
    (folder / RUNGS).unlink(missing_ok=True)
    if len(attempts) > 1:
        write_attempts(folder / RUNGS, attempts)
    if kept != AS_GIVEN:
        with files.whole(folder / KEPT_INPUT) as temporary:
            shutil.copyfile(scratch / kept / espresso_run.INPUT, temporary)
    printed = (scratch / kept / espresso_run.OUTPUT).read_text(errors="replace")
    failed = len(attempts) > 1 and attempts[-1].reason
    with files.whole(output_path) as temporary:
        temporary.write_text(printed + (rungs_note([attempt.rung for attempt in attempts]) if failed else ""))
    if not parse_output(printed).timed_out:
        shutil.rmtree(scratch)


def write_attempts(path: Path, attempts: Sequence[Attempt]) -> None:
    """Write how each rung went as CSV."""
    files.write_rows(path, [field.name for field in fields(Attempt)], map(asdict, attempts))


def read_attempts(path: Path) -> list[str]:
    """Return the rungs that were tried for an output, in order; none where the input as given was enough."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [line["rung"] for line in csv.DictReader(file)]
