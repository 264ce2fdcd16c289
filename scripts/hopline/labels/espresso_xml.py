"""The XML that pw.x leaves (data-file-schema.xml): judged as strictly as what it prints, with all its digits."""

import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hopline.labels.espresso_output import (
    MAX_SMEARING_ENERGY_EV_PER_ATOM,
    NOT_PW,
    SHORT_NAMES,
    UNCONVERGED,
    WRONG_FERMI_LEVEL,
    PwOutput,
    bands_overlap,
)
from hopline.units import BOHR_A, MEV_PER_EV, RYDBERG_EV, RYDBERG_PER_HARTREE

HARTREE_EV = RYDBERG_PER_HARTREE * RYDBERG_EV
SELF_CONSISTENT = {"scf", "relax", "vc-relax", "md", "vc-md"}
MOVING = SELF_CONSISTENT - {"scf"}
SMEARING_NAMES = {
    "gaussian": "Gaussian smearing", "gauss": "Gaussian smearing", "mv": "Marzari-Vanderbilt smearing",
    "m-v": "Marzari-Vanderbilt smearing", "cold": "Marzari-Vanderbilt smearing",
    "mp": "Methfessel-Paxton smearing", "m-p": "Methfessel-Paxton smearing",
    "methfessel-paxton": "Methfessel-Paxton smearing", "fd": "Fermi-Dirac smearing", "f-d": "Fermi-Dirac smearing",
}  # fmt: skip
"""As pw.x prints them, so that a run has one level of theory whichever of its files is read."""


def parse_xml(text: str) -> PwOutput:
    """Read the XML of a pw.x run and decide from its own statements whether its labels may be believed.

    Units are Hartree atomic units; energy, forces and stress are those of the last self-consistent calculation, under
    the element ``output``; the energy is the free one, as in what pw.x prints. ``pseudopotentials`` holds the names of
    the files: the XML has no checksums. A document type or entity is refused unread: pw.x writes none, and entities
    can be made to grow without bound or to name files.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return _nothing("refused: it declares a document type or entities, which pw.x never writes")
    try:
        root = ET.fromstring(text)  # noqa: S314  see above
    except ET.ParseError as error:
        whole = text.rstrip().endswith("espresso>")
        return _nothing(f"{'damaged' if whole else 'interrupted'}: the XML is not whole ({error})")
    output = root.find("output")
    if not root.tag.endswith("espresso"):
        return _nothing(NOT_PW)
    if output is None:
        return _nothing("interrupted: the XML has no results in it")
    try:
        return _judged(root, output)
    except (ValueError, TypeError) as error:
        return _nothing(f"damaged: a number of the XML cannot be read ({error})")


def _judged(root: ET.Element, output: ET.Element) -> PwOutput:
    atoms = _structure(output)
    energy = _number(output, "total_energy/etot")
    smearing = _number(output, "total_energy/demet") or 0.0
    forces = _table(output, "forces", 0 if atoms is None else len(atoms))
    stress = _table(output, "stress", 3)
    electrons = _number(output, "band_structure/nelec")
    steps = int(_number(output, "convergence_info/scf_conv/n_scf_steps") or 0)
    energy_eV = None if energy is None else energy * HARTREE_EV
    forces_eV = None if forces is None else forces * (HARTREE_EV / BOHR_A)
    # as printed: the stress that the crystal exerts; ASE takes the one it feels
    stress_eV = None if stress is None else -(stress + stress.T) / 2 * (HARTREE_EV / BOHR_A**3)
    smearing_eV = smearing * HARTREE_EV
    labels = {"the energy": energy_eV, "a force": forces_eV, "a stress": stress_eV}
    smearing_meV = smearing_eV * MEV_PER_EV / max(1, 0 if atoms is None else len(atoms))
    astray = smearing_meV > MAX_SMEARING_ENERGY_EV_PER_ATOM * MEV_PER_EV and not bands_overlap(
        _bands(output), electrons
    )
    checks = (
        *_states(root, output, steps),
        (atoms is None, "no structure could be read from it"),
        (energy is None, "no total energy in it"),
        (forces is None, "no forces in it"),
        (
            astray,
            f"{WRONG_FERMI_LEVEL}: the smearing adds {smearing_meV:.1f} meV/atom; use Gaussian smearing or none",
        ),
        *(
            (part is not None and not np.isfinite(part).all(), f"{name} is not a number")
            for name, part in labels.items()
        ),
    )
    reason = next((why for holds, why in checks if holds), "")
    creator, wall = root.find("general_info/creator"), _number(root, "timing_info/total/wall")
    cutoffs = _cutoffs(output)
    return PwOutput(
        converged=not reason,
        reason=reason,
        energy_eV=None if reason else energy_eV,
        forces_eV_per_A=None if reason else forces_eV,
        stress_eV_per_A3=None if reason else stress_eV,
        smearing_eV=smearing_eV,
        gap_eV=_gap(output),
        atoms=atoms,
        scf_steps=steps,
        wall_time_s=wall,
        version=None if creator is None else creator.get("VERSION"),
        n_electrons=electrons,
        theory="; ".join(
            filter(None, (f"{_functional(output)} pw.x", cutoffs, _occupations(output), *_more(output)))
        ),
        cutoffs=cutoffs,
        pseudopotentials={
            str(species.get("name")): (species.findtext("pseudo_file") or "").strip()
            for species in output.findall("atomic_species/species")
        },
    )


def _more(output: ET.Element) -> Iterator[str]:
    """Yield spin and dispersion, where there are any, in the words of what pw.x prints."""
    if "true" in {output.findtext(f"magnetization/{name}", "").strip() for name in ("lsda", "noncolin")}:
        yield "spin-polarised"
    correction = output.findtext("dft/vdW/vdw_corr", "").strip().upper()
    names = {"GRIMME-D2": "DFT-D2", "GRIMME-D3": "DFT-D3", "TS": "Tkatchenko-Scheffler"}
    if correction not in {"", "NONE"}:
        yield names.get(correction, correction)


def _states(root: ET.Element, output: ET.Element, steps: int) -> tuple[tuple[bool, str], ...]:
    """Return what the file states about the run: kind of calculation, end, convergence."""
    kind = (root.findtext("input/control_variables/calculation") or "").strip()
    converged = output.findtext("convergence_info/scf_conv/convergence_achieved")
    arrived = output.findtext("convergence_info/opt_conv/convergence_achieved")
    # 0: ended well; 2: SCF unconverged; 3: ions unconverged; 255 and others: stopped. Older files call it status
    status = (root.findtext("exit_status") or root.findtext("status") or "").strip()
    return (
        (
            kind not in SELF_CONSISTENT,
            f"no self-consistent calculation in it, but {kind or 'none that is named'}",
        ),
        (converged is None, f"{UNCONVERGED}: no convergence is reported"),
        (not _true(converged), f"{UNCONVERGED} after {steps} steps"),
        (root.find("closed") is None, "interrupted: the XML was not closed"),
        # its structure has moved on from the one that the forces belong to
        (
            kind in MOVING and not _true(arrived),
            f"the {kind} did not arrive: ingest what pw.x printed instead",
        ),
        (status not in {"", "0"}, f"pw.x ended with status {status}"),
    )


def _true(text: str | None) -> bool:
    return (text or "").strip() == "true"


def _nothing(reason: str) -> PwOutput:
    """Return a run that tells nothing but why."""
    return PwOutput(
        converged=False, reason=reason, energy_eV=None, forces_eV_per_A=None, stress_eV_per_A3=None, smearing_eV=0.0,
        gap_eV=None, atoms=None, scf_steps=0, wall_time_s=None, version=None, n_electrons=None, theory="",
        cutoffs="", pseudopotentials={},
    )  # fmt: skip


def _number(parent: ET.Element, path: str) -> float | None:
    text = parent.findtext(path)
    return None if text is None else float(text)


def _numbers(text: str | None) -> NDArray[np.float64]:
    return np.array([float(word) for word in (text or "").split()])


def _table(parent: ET.Element, name: str, n_rows: int) -> NDArray[np.float64] | None:
    """Return an element's numbers as (n_rows, 3); None where it is missing or holds another count of them."""
    element = parent.find(name)
    values = _numbers(None if element is None else element.text)
    return values.reshape(n_rows, 3) if n_rows and values.size == 3 * n_rows else None


def _structure(output: ET.Element) -> Atoms | None:
    structure = output.find("atomic_structure")
    if structure is None:
        return None
    sites = structure.findall("atomic_positions/atom")
    cell = [_numbers(structure.findtext(f"cell/a{axis}")) for axis in (1, 2, 3)]
    positions = [_numbers(site.text) for site in sites]
    if not sites or {row.size for row in (*cell, *positions)} != {3}:
        return None
    if not np.isfinite([*cell, *positions]).all():
        return None
    symbols = []
    for site in sites:
        # a species may be called Fe1 or H_a
        symbol = re.match(r"[A-Z][a-z]?", site.get("name", ""))
        if symbol is None:
            return None
        symbols.append(symbol[0])
    return Atoms(symbols, positions=np.array(positions) * BOHR_A, cell=np.array(cell) * BOHR_A, pbc=True)


def _bands(output: ET.Element) -> list[list[float]]:
    """Return the eigenvalues of each k-point, of each spin by itself, in Ha."""
    polarised = _true(output.findtext("band_structure/lsda"))
    found = []
    for point in output.findall("band_structure/ks_energies"):
        values = [float(word) for word in (point.findtext("eigenvalues") or "").split()]
        half = len(values) // 2
        found += [values[:half], values[half:]] if polarised else [values]
    return found


def _gap(output: ET.Element) -> float | None:
    bands = output.find("band_structure")
    filled = None if bands is None else _number(bands, "highestOccupiedLevel")
    empty = None if bands is None else _number(bands, "lowestUnoccupiedLevel")
    return None if filled is None or empty is None else (empty - filled) * HARTREE_EV


def _cutoffs(output: ET.Element) -> str:
    wavefunction, density = (
        (_number(output, f"basis_set/{name}") or 0) * RYDBERG_PER_HARTREE for name in ("ecutwfc", "ecutrho")
    )
    return f"{wavefunction:g}/{density:g} Ry"


def _functional(output: ET.Element) -> str:
    name = " ".join((output.findtext("dft/functional") or "?").split())
    return SHORT_NAMES.get(name, name)


def _occupations(output: ET.Element) -> str:
    smearing = output.find("band_structure/smearing")
    if smearing is None:
        return "fixed occupations"
    name = (smearing.text or "").strip()
    width = float(smearing.get("degauss", "nan")) * RYDBERG_PER_HARTREE
    return f"{SMEARING_NAMES.get(name.lower(), name)} {width:g} Ry"
