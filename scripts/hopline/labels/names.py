"""Labels under the names and in the units that people give them, made one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hopline import frames, units
from hopline.labels.candidates import FREE, Broken, Candidate, numbers

REFERENCE_PREFIXES = ("REF_", "dft_", "DFT_")
PREFIXES = (*REFERENCE_PREFIXES, "")
"""Reference labels win over plain names, which may be a potential's own."""
ENERGY_NAMES, FORCES_NAMES = ("energy",), ("forces", "force")
STRESS_NAMES, VIRIAL_NAMES = (
    ("stress", "plain_stress"),
    ("virial", "virials", "plain_virial", "plain_virials"),
)
FREE_ENERGY = "free_energy"
PLAIN_LABELS = {*ENERGY_NAMES, *FORCES_NAMES, *STRESS_NAMES, *VIRIAL_NAMES, FREE_ENERGY}
CORRECTED_NAMES = ("corrected_energy", "corrected_total_REF_energy")
"""Energies with the Materials Project's corrections: Hopline's own name, and that of MACE's replay files."""
TRAJECTORY_KEYS = ("trajectory", "mptrj_traj_id", "mp_id")
"""Where sets say which run a frame comes from; ``source`` is Hopline's own name for it and is read elsewhere."""
ENERGY_UNITS = {
    "ev": 1.0,
    "mev": 1 / units.MEV_PER_EV,
    "ry": units.RYDBERG_EV,
    "ha": units.RYDBERG_PER_HARTREE * units.RYDBERG_EV,
    "hartree": units.RYDBERG_PER_HARTREE * units.RYDBERG_EV,
}
FORCE_UNITS = {
    f"{energy}/{length}": factor / size
    for energy, factor in ENERGY_UNITS.items()
    for length, size in (("a", 1.0), ("ang", 1.0), ("angstrom", 1.0), ("bohr", units.BOHR_A))
}
STRESS_UNITS = {"ev/a^3": 1.0, "ev/ang^3": 1.0, "ev/angstrom^3": 1.0, "gpa": 1 / units.GPA_PER_EV_PER_A3}
"""Units that a frame may state (``stress_unit=GPa``); kbar is not among them: its sign differs from code to code."""


def candidate(path: Path, row: int, atoms: Atoms, found: Mapping[str, Any]) -> Candidate:
    """Return a frame whose labels stand in ``found`` under any of the usual names.

    Where a quantity is there both as a reference and under its plain name, the plain ones are a potential's own, and
    none of them is taken. Of plain names the free energy wins, since forces are its derivatives. A virial (eV) is minus
    the stress times the volume and is taken where there is no stress. A unit that is stated but not understood is the
    frame's reason.
    """
    if _has_both(found):
        found = {key: value for key, value in found.items() if key not in PLAIN_LABELS}
    try:
        energy_eV, kind = _energy(found)
        forces = _named(found, FORCES_NAMES)
        level = found.get("level_of_theory")
        return Candidate(
            source=str(path),
            frame=row,
            atoms=atoms,
            energy_eV=energy_eV,
            forces_eV_per_A=None if forces is None else numbers(forces) * _unit(found, "forces", FORCE_UNITS),
            stress=_stress(found, atoms),
            level_of_theory=None if level is None else str(level),
            energy_kind=kind,
            trajectory=next((str(found[key]) for key in TRAJECTORY_KEYS if key in found), ""),
            corrected_energy_eV=_first_number(_named(found, CORRECTED_NAMES, ("",)), found),
        )
    except Broken as error:
        return Candidate(str(path), row, atoms=atoms, reason=str(error))


def _has_both(found: Mapping[str, Any]) -> bool:
    """Tell whether a quantity is there twice, as a reference and as somebody's own."""
    quantities = ((*ENERGY_NAMES, FREE_ENERGY), FORCES_NAMES, (*STRESS_NAMES, *VIRIAL_NAMES))
    return any(
        _named(found, names, REFERENCE_PREFIXES) is not None and _named(found, names, ("",)) is not None
        for names in quantities
    )


def has_reference(found: Mapping[str, Any]) -> bool:
    """Tell whether labels are marked as a reference (``REF_energy``, ``dft_forces``)."""
    return _named(found, (*ENERGY_NAMES, *FORCES_NAMES), REFERENCE_PREFIXES) is not None


def _unit(found: Mapping[str, Any], name: str, known: Mapping[str, float]) -> float:
    stated = str(found.get(f"{name}_unit", next(iter(known))))
    factor = known.get(stated.lower().replace("å", "a").replace("**", "^"))
    if factor is None:
        raise Broken(f"the unit {stated} of its {name} is not understood: one of {', '.join(known)} is")
    return factor


def _energy(found: Mapping[str, Any]) -> tuple[float | None, str]:
    kind = str(found.get("energy_kind", frames.UNSTATED))
    referenced = _named(found, ENERGY_NAMES, REFERENCE_PREFIXES)
    free = found.get(FREE_ENERGY) if referenced is None else None
    value = next((part for part in (referenced, free, found.get("energy")) if part is not None), None)
    return _first_number(value, found), FREE if free is not None else kind


def _first_number(value: Any, found: Mapping[str, Any]) -> float | None:
    """Return an energy in eV, None where there is none."""
    if value is None:
        return None
    energy = float(numbers(value).ravel()[0]) if np.size(value) else float("nan")
    return energy * _unit(found, "energy", ENERGY_UNITS)


# numbers of a damaged row may be of any size; the judge refuses what is not finite
@np.errstate(all="ignore")
def _stress(found: Mapping[str, Any], atoms: Atoms) -> object:
    stress = _named(found, STRESS_NAMES)
    if stress is not None:
        return numbers(stress) * _unit(found, "stress", STRESS_UNITS)
    virial = _named(found, VIRIAL_NAMES)
    volume_A3 = abs(np.linalg.det(atoms.cell.array))
    return None if virial is None or not volume_A3 else -numbers(virial) / volume_A3


def _named(found: Mapping[str, Any], names: tuple[str, ...], prefixes: tuple[str, ...] = PREFIXES) -> Any:
    return next(
        (found[p + name] for p in prefixes for name in names if found.get(p + name) is not None), None
    )
