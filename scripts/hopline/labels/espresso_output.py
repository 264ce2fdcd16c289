"""What pw.x printed: whether it may be believed, and energy, forces, stress and structure if so."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hopline.console import InputError
from hopline.units import BOHR_A, MEV_PER_EV, RYDBERG_EV

START = "Program PWSCF"
SCF_START = "Self-consistent Calculation"
TIMEOUT_NOTE = "Hopline stopped this run after"
TIMED_OUT = "cut off: stopped at Hopline's timeout"
RUNGS_NOTE = "Hopline tried"
ENERGY_KIND = "free"
"""The line marked ``!`` is the free energy E - TS (Mermin), whose derivatives the forces and stress are."""
SHORT_NAMES = {"SLA PW PBX PBC": "PBE", "SLA PW PSX PSC": "PBESOL", "SLA PZ NOGX NOGC": "LDA"}
DISPERSIONS = {
    "DFT-D3 Dispersion": "DFT-D3",
    "Dispersion XDM Correction": "XDM",
    "Dispersion T-S Correction": "Tkatchenko-Scheffler",
    "Dispersion Correction": "DFT-D2",
}
"""What pw.x calls the part of the energy that each correction adds."""
NOT_PW = "it is not a pw.x output"
INTERRUPTED = "interrupted"
MAX_SMEARING_ENERGY_EV_PER_ATOM = 0.01
"""Where the filled bands lie below a gap, a smearing term -TS above this comes from a wrong Fermi level.

Occupations by cold smearing or Methfessel-Paxton do not grow monotonically with the Fermi level, so an insulator has
several that give the right number of electrons; pw.x 6.7 may return one inside the valence band (dos Santos and
Marzari, Phys. Rev. B 107, 195122, 2023). LiF gained 48 meV/atom and 0.9 GPa that way, SCF converged.
"""
UNCONVERGED, WRONG_FERMI_LEVEL, PW_ERROR = (
    "SCF not converged",
    "wrong Fermi level",
    "pw.x stopped with an error",
)
SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


@dataclass(frozen=True, eq=False)
class PwOutput:
    """One pw.x run, from its last self-consistent calculation.

    Energy (eV, free energy), forces (n_atoms, 3) in eV/A and stress (3, 3) in eV/A^3 (ASE sign: positive
    under tension) are None unless the run may be believed (``converged``); ``reason`` says in one phrase
    why not. A converged run lacks a stress where none was asked for. ``smearing_eV`` is the entropy term -TS of the
    cell, zero without smearing; ``gap_eV`` the band gap that a run with fixed occupations and empty bands prints.
    ``pseudopotentials`` holds MD5 sums.
    """

    converged: bool
    reason: str
    energy_eV: float | None
    forces_eV_per_A: NDArray[np.float64] | None
    stress_eV_per_A3: NDArray[np.float64] | None
    smearing_eV: float
    gap_eV: float | None
    atoms: Atoms | None
    scf_steps: int
    wall_time_s: float | None
    version: str | None
    n_electrons: float | None
    theory: str
    cutoffs: str
    pseudopotentials: Mapping[str, str]
    energy_kind: str = ENERGY_KIND

    @property
    def timed_out(self) -> bool:
        """Whether Hopline gave the run up: with more time it may go on."""
        return self.reason.startswith(TIMED_OUT)


def is_whole(text: str) -> bool:
    """Tell whether pw.x came to an end of its own: by convergence, failure, or because it was asked to stop."""
    return "JOB DONE." in text


def was_asked_to_stop(text: str) -> bool:
    """Tell whether pw.x stopped because of its stop file, its charge density kept."""
    return "stopped by user request" in text


def rungs_note(rungs: Sequence[str]) -> str:
    """Return the line to add to an output if no way to a label has worked (see `ladder`)."""
    return f"\n     {RUNGS_NOTE} {len(rungs)} rungs: {', '.join(rungs)}\n"


def read_output(path: str | os.PathLike[str]) -> PwOutput:
    """Read a pw.x output file; see `parse_output`."""
    try:
        return parse_output(Path(path).read_text(errors="replace"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error


def parse_output(text: str) -> PwOutput:
    """Read what pw.x printed and decide from the text itself whether its labels may be believed.

    They may if the last self-consistent calculation converged, forces of every atom follow it, all of them
    are numbers, and pw.x came to its end. In a relaxation only the last calculation counts; of several runs
    in one file, only the last run.
    """
    text = text[max(text.rfind(START), 0) :]
    before, _, last = text.rpartition(SCF_START)
    atoms = _structure(before) if before else None
    forces = _forces(last, 0 if atoms is None else len(atoms))
    stress = _stress(last)
    energies = re.findall(r"^!\s+total energy\s+=\s+(\S+)\s+Ry", last, flags=re.MULTILINE)
    energy = _number(energies[-1]) * RYDBERG_EV if energies else None
    smearing = re.findall(r"^\s+smearing contrib\. \(-TS\)\s+=\s+(\S+)\s+Ry", last, flags=re.MULTILINE)
    smearing_eV = _number(smearing[-1]) * RYDBERG_EV if smearing else 0.0
    reason = _why_not(text, last, atoms, energy, smearing_eV, forces, stress)
    steps = re.findall(r"iteration #\s*(\d+)", last)
    good = not reason
    return PwOutput(
        converged=good,
        reason=reason,
        energy_eV=energy if good else None,
        forces_eV_per_A=forces if good else None,
        stress_eV_per_A3=stress if good else None,
        smearing_eV=smearing_eV,
        gap_eV=_gap(last),
        atoms=atoms,
        scf_steps=int(steps[-1]) if steps else 0,
        wall_time_s=_wall_time(text),
        version=_first(r"Program PWSCF v\.?\s*(\S+)", text),
        n_electrons=_maybe_number(_first(r"number of electrons\s+=\s+(\S+)", text)),
        theory=_theory(text),
        cutoffs=_cutoffs(text),
        pseudopotentials=dict(
            re.findall(
                r"PseudoPot\. #\s*\d+ for\s+([A-Z][a-z]?)\S*\s.*?MD5 check sum:\s+(\w+)",
                text,
                flags=re.DOTALL,
            )
        ),
    )


def _why_not(
    text: str,
    last: str,
    atoms: Atoms | None,
    energy: float | None,
    smearing_eV: float,
    forces: NDArray[np.float64] | None,
    stress: NDArray[np.float64] | None,
) -> str:
    """Return why the run may not be believed, or an empty string; the cause comes before its consequences."""
    if START not in text:
        return NOT_PW
    unconverged = re.search(r"convergence NOT achieved after\s+(\d+)\s+iterations", last)
    error = re.search(r"Error in routine\s+(\S+)[^\n]*\n\s*([^\n%]+)", text)
    smearing_meV = smearing_eV * MEV_PER_EV / max(1, 0 if atoms is None else len(atoms))
    stopped = re.search(rf"{TIMEOUT_NOTE} (\S+ s)", text)
    checks = (
        (unconverged, f"{UNCONVERGED} after {unconverged[1]} steps" if unconverged else ""),
        ("Maximum CPU time exceeded" in text, "cut off: pw.x reached its walltime limit"),
        (stopped, f"{TIMED_OUT} of {stopped[1]}" if stopped else ""),
        (error, f"{PW_ERROR} in {error[1]}: {error[2].strip()}" if error else ""),
        (was_asked_to_stop(text), "cut off: pw.x was asked to stop"),
        (not is_whole(text), f"{INTERRUPTED}: the output ends without JOB DONE"),
        (not last, "no self-consistent calculation in it"),
        ("convergence has been achieved" not in last, f"{UNCONVERGED}: no convergence is reported"),
        (atoms is None, "no structure could be read from it"),
        (energy is None, "no total energy printed"),
        (forces is None, "no forces printed"),
        (
            smearing_meV > MAX_SMEARING_ENERGY_EV_PER_ATOM * MEV_PER_EV and not _is_metal(text, last),
            f"{WRONG_FERMI_LEVEL}: the smearing adds {smearing_meV:.1f} meV/atom; use Gaussian smearing or none",
        ),
        (energy is not None and not np.isfinite(energy), "the energy is not a number"),
        (forces is not None and not np.isfinite(forces).all(), "a force is not a number"),
        (stress is not None and not np.isfinite(stress).all(), "a stress is not a number"),
    )
    tried = re.search(rf"{RUNGS_NOTE} \d+ rungs: [^\n]+", text)
    reason = next((reason for holds, reason in checks if holds), "")
    return f"{reason} ({tried[0]})" if reason and tried else reason


def _is_metal(text: str, last: str) -> bool:
    """Return whether the printed bands show no gap above the filled ones; False where none are printed."""
    electrons = _maybe_number(_first(r"number of electrons\s+=\s+(\S+)", text))
    blocks = re.findall(r"bands \(ev\):\s*\n\s*\n((?:[ \d.\-]+\n)+)", last)
    bands = [[float(value) for value in re.findall(r"-?\d+\.\d+", block)] for block in blocks]
    return bands_overlap(bands, electrons)


def bands_overlap(bands: Sequence[Sequence[float]], n_electrons: float | None) -> bool:
    """Return whether no gap lies above the filled bands, given each k-point's levels; False where nothing is known."""
    filled = int((n_electrons or 0) // 2)
    if not filled or not bands or min(map(len, bands)) <= filled:
        return False
    return max(levels[filled - 1] for levels in bands) >= min(levels[filled] for levels in bands)


def _gap(last: str) -> float | None:
    levels = re.search(r"highest occupied, lowest unoccupied level \(ev\):\s+(\S+)\s+(\S+)", last)
    return _number(levels[2]) - _number(levels[1]) if levels else None


def _number(word: str) -> float:
    """Fortran prints stars where a number does not fit: that is no number."""
    try:
        return float(word)
    except ValueError:
        return float("nan")


def _maybe_number(word: str | None) -> float | None:
    return None if word is None else _number(word)


def _first(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return None if match is None else match[1]


def _rows(text: str, n_rows: int, n_columns: int) -> NDArray[np.float64] | None:
    """Return ``n_columns`` numbers of each of the first ``n_rows`` lines; None if a line is too short."""
    rows = [line.split()[:n_columns] for line in text.splitlines()[:n_rows]]
    if len(rows) < n_rows or any(len(row) < n_columns for row in rows):
        return None
    return np.array([[_number(word) for word in row] for row in rows])


def _forces(last: str, n_atoms: int) -> NDArray[np.float64] | None:
    _, heading, block = last.rpartition("Forces acting on atoms")
    if not heading or not n_atoms:
        return None
    # the contributions printed at high verbosity follow the total and look the same: only the first n count
    lines = re.findall(r"^\s+atom\s+\d+\s+type\s+\d+\s+force =(.*)$", block, flags=re.MULTILINE)[:n_atoms]
    rows = _rows("\n".join(re.sub(r"(?<=\d)-", " -", line) for line in lines), n_atoms, 3)
    return None if rows is None else rows * (RYDBERG_EV / BOHR_A)


def _stress(last: str) -> NDArray[np.float64] | None:
    _, heading, block = last.rpartition("total   stress")
    if not heading:
        return None
    rows = _rows(block.partition("\n")[2], 3, 3)
    if rows is None:
        return None
    # pw.x prints the stress that the crystal exerts (positive when compressed), ASE the one it feels
    return -(rows + rows.T) / 2 * (RYDBERG_EV / BOHR_A**3)


def _structure(before: str) -> Atoms | None:
    """Return the structure that the last self-consistent calculation started from."""
    alat_bohr = _maybe_number(_first(r"celldm\(1\)=\s*(\S+)", _from_last("celldm(1)=", before)))
    heading, axes = "crystal axes:", _from_last("crystal axes:", before)
    vectors = re.findall(r"a\(\d\) = \((.*?)\)", axes)[:3]
    block = _from_last("positions (alat units)", before)
    sites = _leading_matches(r"^\s+\d+\s+([A-Z][a-z]?)\S*\s+tau\(\s*\d+\) = \((.*?)\)", block)
    if alat_bohr is None or heading not in before or len(vectors) < 3 or not sites:  # noqa: PLR2004
        return None
    alat_A = alat_bohr * BOHR_A
    cell = _rows("\n".join(vectors), 3, 3)
    symbols = [symbol for symbol, _ in sites]
    positions = _rows("\n".join(tau for _, tau in sites), len(sites), 3)
    if cell is None or positions is None:
        return None
    cell, positions = cell * alat_A, positions * alat_A
    # a relaxation prints its later structures as cards, after the header's
    header_end = max(before.rfind(heading), before.rfind("positions (alat units)"))
    cards = before[header_end:]
    unit, card = _card("CELL_PARAMETERS", cards, 3)
    if card is not None:
        cell = card * _length_unit(unit, alat_A)
    unit, card = _card("ATOMIC_POSITIONS", cards, len(symbols), skip_columns=1)
    if card is not None:
        positions = card @ cell if unit == "crystal" else card * _length_unit(unit, alat_A)
    if not (np.isfinite(cell).all() and np.isfinite(positions).all()):
        return None
    return Atoms(symbols, positions=positions, cell=cell, pbc=True)


def _from_last(heading: str, text: str) -> str:
    place = text.rfind(heading)
    return text[place:] if place >= 0 else ""


def _leading_matches(pattern: str, block: str) -> list[tuple[str, str]]:
    """Return the matches on consecutive lines after the heading, up to the first line that does not match."""
    found = []
    for line in block.splitlines()[1:]:
        match = re.search(pattern, line)
        if match is None:
            break
        found.append((match[1], match[2]))
    return found


def _card(
    name: str, text: str, n_lines: int, *, skip_columns: int = 0
) -> tuple[str, NDArray[np.float64] | None]:
    """Return the unit and the numbers, (n_lines, 3), of the last card of a name; None where there is none."""
    block = _from_last(name, text).splitlines()
    if not block:
        return "", None
    lines = [" ".join(line.split()[skip_columns:]) for line in block[1:]]
    return block[0].removeprefix(name).strip(" ()").lower(), _rows("\n".join(lines), n_lines, 3)


def _length_unit(unit: str, alat_A: float) -> float:
    """Return the length unit of a card in A."""
    stated = re.search(r"alat\s*=\s*(\S+)", unit)
    if stated:
        return float(stated[1]) * BOHR_A
    return {"alat": alat_A, "bohr": BOHR_A}.get(unit, 1.0)


def _wall_time(text: str) -> float | None:
    printed = re.findall(r"^\s+PWSCF\s+:.*CPU(.*)WALL", text, flags=re.MULTILINE)
    if not printed:
        return None
    parts = re.findall(r"([\d.]+)\s*([dhms])", printed[-1])
    return sum(float(number) * SECONDS[unit] for number, unit in parts)


def _cutoffs(text: str) -> str:
    """Return both cutoffs as a level of theory spells them."""
    wavefunction = _maybe_number(_first(r"kinetic-energy cutoff\s+=\s+(\S+)", text))
    density = _maybe_number(_first(r"charge density cutoff\s+=\s+(\S+)", text))
    return f"{wavefunction or 0:g}/{density or 0:g} Ry"


def _theory(text: str) -> str:
    """Return functional, cutoffs, smearing, spin and dispersion as printed; pseudopotentials have their own sums.

    The number of k-points that is printed depends on cell and symmetry: two runs of one set differ in it rightly.
    """
    printed = " ".join((_first(r"Exchange-correlation\s*=([^\n(]*)", text) or "?").split())
    functional = SHORT_NAMES.get(printed, printed)
    smearing = re.search(r"number of k points=\s*\d+\s+(\S.*?), width \(Ry\)=\s*(\S+)", text)
    how = f"{smearing[1]} {_number(smearing[2]):g} Ry" if smearing else "fixed occupations"
    if smearing is None and "smearing contrib." in text:  # an output that somebody has shortened
        how = "smearing of unstated width"
    spin = (
        "spin-polarised"
        if re.search(r"number of electrons .*\(up:|Starting magnetic structure", text)
        else ""
    )
    dispersion = next((name for words, name in DISPERSIONS.items() if re.search(rf"{words}\s+=", text)), "")
    parts = (f"{functional} pw.x", _cutoffs(text), how, spin, dispersion)
    return "; ".join(part for part in parts if part)
