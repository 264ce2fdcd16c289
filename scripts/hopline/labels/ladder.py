"""A pw.x run that gives no label is tried once more by another numerical route to the same answer."""

import os
import re
from pathlib import Path
from typing import Any

from hopline.console import InputError, say
from hopline.files import whole
from hopline.labels import espresso
from hopline.labels.espresso_output import UNCONVERGED, WRONG_FERMI_LEVEL, PwOutput
from hopline.units import RYDBERG_EV

NON_MONOTONIC = re.compile(
    r"^ *smearing *= *'(?:cold|m-v|mv|marzari-vanderbilt|m-p|mp|methfessel-paxton)'\n", re.MULTILINE
)
WIDTH = re.compile(r"^ *degauss *= *(\S+)\n", re.MULTILINE)
BANDS = re.compile(r"^ *nbnd *=.*\n", re.MULTILINE)
OCCUPATIONS = re.compile(r"^( *occupations *= *)'smearing'\n", re.MULTILINE)
MIN_GAP_IN_WIDTHS = 10.0
"""From a Fermi level in the middle of such a gap every band is filled or empty to better than 1e-8."""


def run(input_path: str | os.PathLike[str], output_path: str | os.PathLike[str], **how: Any) -> PwOutput:
    """Run pw.x and, where its Fermi level went astray, once more as an insulator; return what counts.

    Cold and Methfessel-Paxton smearing have several Fermi levels in an insulator: pw.x then converges to a wrong one
    or jumps between them (see ``espresso_output``). With fixed occupations there is none to find, and where the gap is
    wide against the smearing the bands are filled exactly as at the right level: the same energy at the same level of
    theory. Then, and only then, the second run's output takes the first one's place; its input is
    ``pw.insulator.in`` beside it. Without a ``frame.extxyz`` that states the level of theory there is no second run.
    ``how`` is what ``espresso.run`` takes: launcher, pools, timeout_s.
    """
    second_input = insulator_input(output_path)
    # that of an earlier attempt would claim an output it did not make
    second_input.unlink(missing_ok=True)
    first = espresso.run(input_path, output_path, **how)
    text = Path(input_path).read_text()
    width_Ry = WIDTH.search(text)
    astray = first.reason.startswith((UNCONVERGED, WRONG_FERMI_LEVEL)) and NON_MONOTONIC.search(text)
    if not astray or width_Ry is None or first.n_electrons is None or first.n_electrons % 2:
        return first
    if not Path(input_path).with_name("frame.extxyz").is_file():
        return first
    say(f"{output_path}: {first.reason}; once more with fixed occupations")
    second_output = second_input.with_name("pw.insulator.out.tmp")
    bands = f"   nbnd             = {round(first.n_electrons / 2) + 1}\n"
    without = text
    for line in (NON_MONOTONIC, WIDTH, BANDS):
        without = line.sub("", without)
    fixed = OCCUPATIONS.sub(rf"\1'fixed'\n{bands}", without)
    with whole(second_input) as temporary:
        temporary.write_text(fixed)
    try:
        second = espresso.run(second_input, second_output, **how)
    except InputError as error:  # pw.x did not start a second time: what the first run said still holds
        say(f"{output_path}: {error}; the first run stands")
        second_input.unlink()
        return first
    needed_eV = MIN_GAP_IN_WIDTHS * float(width_Ry[1]) * RYDBERG_EV
    if second.converged and second.gap_eV is not None and second.gap_eV >= needed_eV:
        say(f"{output_path}: an insulator, its gap of {second.gap_eV:.2f} eV is wide against the smearing")
        second_output.replace(output_path)
        return second
    why = (
        second.reason
        or f"a gap of {second.gap_eV} eV is not the {needed_eV:.2f} eV that make the two runs equal"
    )
    say(f"{output_path}: {why}; the first run stands")
    second_output.unlink()
    second_input.unlink()
    return first


def insulator_input(output_path: str | os.PathLike[str]) -> Path:
    """Return where the input of a second run lies, if its output is the one that was kept."""
    return Path(output_path).resolve().with_name("pw.insulator.in")
