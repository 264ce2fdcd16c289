"""Isolated atoms, the zero of binding energies: spin-polarised, alone in a box with three different sides."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from hopline.console import InputError, say
from hopline.labels import espresso, espresso_run, sources, vasp, vasp_run
from hopline.labels.candidates import FREE
from hopline.labels.espresso import EspressoSettings
from hopline.labels.espresso_output import ENERGY_KIND, PwOutput

BOX_A = (12.0, 12.5, 13.0)
SMEARING_WIDTH_RY = 0.001
VASP_TAGS = {"ISPIN": 2, "ISMEAR": 0, "SIGMA": 0.01, "ISYM": 0, "KSPACING": None, "LDAU": None, "LDAUU": None,
             "LDAUJ": None, "LDAUL": None}  # fmt: skip
"""An atom's own: the energy of a shell that is filled by whole electrons, in a box that needs no k-points."""
UNPAIRED_ELECTRONS = {
    "H": 1, "He": 0, "Li": 1, "Be": 0, "B": 1, "C": 2, "N": 3, "O": 2, "F": 1, "Ne": 0,
    "Na": 1, "Mg": 0, "Al": 1, "Si": 2, "P": 3, "S": 2, "Cl": 1, "Ar": 0, "K": 1, "Ca": 0,
    "Sc": 1, "Ti": 2, "V": 3, "Cr": 6, "Mn": 5, "Fe": 4, "Co": 3, "Ni": 2, "Cu": 1, "Zn": 0,
    "Ga": 1, "Ge": 2, "As": 3, "Se": 2, "Br": 1, "Kr": 0,
}  # fmt: skip
"""Ground states of the free atoms, NIST Atomic Spectra Database (Hund's rules and Cr, Cu)."""


def box(element: str) -> Atoms:
    """Return one atom in a box with three different sides: an open shell must not be averaged by symmetry."""
    if element not in atomic_numbers:
        raise InputError(f"{element} is not a chemical element")
    return Atoms([element], positions=[np.array(BOX_A) / 2], cell=BOX_A, pbc=True)


def settings_for(values: Mapping[str, Any], element: str, upfs: Mapping[str, Path]) -> EspressoSettings:
    """Return settings for an isolated atom: Gamma only, with the unpaired electrons of its ground state.

    ``values`` give cutoffs and SCF settings by name, recommended cutoffs are those of all ``upfs`` as in the set that
    the atom belongs to; mesh, smearing and spin are the atom's own.
    """
    if element not in UNPAIRED_ELECTRONS:
        raise InputError(f"the spin of a free {element} atom is not tabulated: H to Kr are")
    own = {
        "kpoints": (1, 1, 1), "kpoints_shift": (0, 0, 0), "kpoint_spacing_per_A": None, "smearing": "gaussian",
        "smearing_width_Ry": SMEARING_WIDTH_RY, "nosym": True,
        "total_magnetization": float(UNPAIRED_ELECTRONS[element]),
    }  # fmt: skip
    return espresso.settings_from({**values, **own}, upfs)


def run(
    element: str,
    settings: EspressoSettings,
    upfs: Mapping[str, Path],
    folder: Path,
    *,
    launch: espresso_run.Launch,
) -> PwOutput:
    """Run one isolated atom in a folder, or read it there if it was run before.

    Raises
    ------
    InputError
        If the run gives no label: no reference may be left out.
    """
    chosen = {element: upfs[element]}
    # the level of theory names the pseudopotential's content, without which another file would pass for this one
    text = f"! {espresso.level_of_theory(settings, chosen)}\n{espresso.write_input(box(element), settings, chosen)}"
    result = espresso_run.run(text, folder, launch=launch)
    if not result.converged:
        raise InputError(
            f"the isolated {element} atom gave no energy: {result.reason}; try a smaller mixing_beta"
        )
    return result


def references(
    elements: list[str],
    values: Mapping[str, Any],
    upfs: Mapping[str, Path],
    runs: Path,
    *,
    launch: espresso_run.Launch,
) -> dict[str, Any]:
    """Run each element's atom in ``runs/{element}`` and return energies (eV), levels of theory and settings by element.

    An atom that an earlier attempt finished with the same settings is not run again.
    """
    content: dict[str, Any] = {"energies_eV": {}, "level_of_theory": {}, "settings": {}}
    for element in elements:
        chosen = settings_for(values, element, upfs)
        result = run(element, chosen, upfs, runs / element, launch=launch)
        content["energies_eV"][element] = result.energy_eV
        content["level_of_theory"][element] = espresso.level_of_theory(chosen, {element: upfs[element]})
        content["settings"][element] = asdict(chosen)
        say(f"{element}: {result.energy_eV:.6f} eV, {result.scf_steps} SCF steps, {result.wall_time_s} s")
    return {**content, "box_A": BOX_A, "energy_kind": ENERGY_KIND}


def vasp_references(
    elements: list[str], preset: vasp.Preset, potcar_folder: Path, runs: Path, *, launch: vasp_run.Launch
) -> dict[str, Any]:
    """Run each element's atom with VASP in ``runs/{element}``; return the same as `references`.

    Cutoff, functional and POTCARs are the preset's; k-points, smearing and spin the atom's own.
    """
    content: dict[str, Any] = {"energies_eV": {}, "level_of_theory": {}, "settings": {}}
    for element in elements:
        if element not in UNPAIRED_ELECTRONS:
            raise InputError(f"the spin of a free {element} atom is not tabulated: H to Kr are")
        unpaired = UNPAIRED_ELECTRONS[element]
        tags = {**preset.incar, **VASP_TAGS, "NUPDOWN": unpaired, "MAGMOM": {element: float(unpaired)}}
        own = replace(preset, incar=tags, kpoints=(1, 1, 1))
        inputs = runs / element / "inputs"
        level = vasp.write_jobs(inputs, [box(element)], own, potcar_folder=potcar_folder)
        vasp_run.label(inputs, runs / element, ["0000"], potcar_folder=potcar_folder, launch=launch)
        # read as any label is, and checked against the atom that went in
        read = list(sources.candidates([runs / element / "0000"], file_format=sources.AUTO))
        found, reason = read[0], next((candidate.reason for candidate in read if candidate.reason), "")
        if reason or found.energy_eV is None:
            raise InputError(f"the isolated {element} atom gave no energy: {reason}")
        content["energies_eV"][element] = found.energy_eV
        content["level_of_theory"][element] = level
        content["settings"][element] = {tag: value for tag, value in tags.items() if value is not None}
    return {**content, "box_A": BOX_A, "energy_kind": FREE}
