"""How far a label is from the basis-set and Brillouin-zone limits: one frame at rising cutoffs and meshes."""

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase import Atoms

from hopline.console import InputError
from hopline.labels import espresso, ladder
from hopline.labels.espresso import EspressoSettings, mesh_of
from hopline.labels.espresso_output import PwOutput
from hopline.labels.espresso_run import Launch
from hopline.units import GPA_PER_EV_PER_A3, MEV_PER_EV

CUTOFF, MESH = "cutoff", "kpoints"


@dataclass(frozen=True)
class Point:
    """One setting of the study; errors are against the densest of its kind, None where a run failed."""

    kind: str
    wavefunction_cutoff_Ry: float
    kpoints: str
    shift: str
    energy_eV_per_atom: float | None
    pressure_GPa: float | None
    energy_error_meV_per_atom: float | None
    pressure_error_GPa: float | None
    max_force_error_eV_per_A: float | None
    wall_time_s: float | None
    reason: str


def parse_mesh(text: str) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Read a mesh such as ``2x2x2`` or, shifted by half a step, ``2x2x2+111``."""
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)(?:\+([01])([01])([01]))?", text)
    if match is None:
        raise InputError(f"mesh {text} is not understood: write 2x2x2 or 2x2x2+111")
    n1, n2, n3, s1, s2, s3 = (int(part or 0) for part in match.groups())
    return (n1, n2, n3), (s1, s2, s3)


def plan(
    settings: EspressoSettings, *, cutoffs_Ry: Sequence[float], meshes: Sequence[str]
) -> list[tuple[str, EspressoSettings]]:
    """Return the runs of a study, each kind from coarse to dense.

    Cutoffs vary at the settings' mesh, with the ratio of the two cutoffs kept; meshes at their cutoffs. Of
    two meshes with as many points, the shifted one counts as the denser.
    """
    ratio = settings.density_cutoff_Ry / settings.wavefunction_cutoff_Ry
    runs = [
        (CUTOFF, replace(settings, wavefunction_cutoff_Ry=cutoff, density_cutoff_Ry=ratio * cutoff))
        for cutoff in sorted(cutoffs_Ry)
    ]
    parsed = sorted(map(parse_mesh, meshes), key=lambda mesh: (np.prod(mesh[0]), mesh))
    return runs + [
        (MESH, replace(settings, kpoints=mesh, kpoints_shift=shift, kpoint_spacing_per_A=None))
        for mesh, shift in parsed
    ]


def run_plan(
    atoms: Atoms,
    runs: Sequence[tuple[str, EspressoSettings]],
    pseudopotentials: Mapping[str, Path],
    *,
    launch: Launch,
) -> Iterator[PwOutput]:
    """Run the frame at each setting in turn and yield what pw.x says."""
    with tempfile.TemporaryDirectory() as folder:
        for index, (_, settings) in enumerate(runs):
            job = Path(folder) / f"{index:04d}"
            espresso.write_job(job, atoms, settings, pseudopotentials)
            yield ladder.run(job / "pw.in", job / "pw.out", launch=launch).result


def study(
    atoms: Atoms, runs: Sequence[tuple[str, EspressoSettings]], results: Sequence[PwOutput]
) -> list[Point]:
    """Return each run's figures and its errors against the densest of its kind.

    Raises
    ------
    InputError
        If the densest run of a kind failed: there is nothing to compare with.
    """
    densest = {kind: result for (kind, _), result in zip(runs, results, strict=True)}
    for kind, result in densest.items():
        if not result.converged:
            raise InputError(f"the densest run of kind {kind} gave no label ({result.reason}): mend it first")
    return [
        _point(kind, settings, result, densest[kind], atoms)
        for (kind, settings), result in zip(runs, results, strict=True)
    ]


def _point(
    kind: str, settings: EspressoSettings, result: PwOutput, reference: PwOutput, atoms: Atoms
) -> Point:
    energy, pressure = _energy_and_pressure(result)
    energy_limit, pressure_limit = _energy_and_pressure(reference)
    forces, forces_limit = result.forces_eV_per_A, reference.forces_eV_per_A
    return Point(
        kind=kind,
        wavefunction_cutoff_Ry=settings.wavefunction_cutoff_Ry,
        kpoints="x".join(map(str, mesh_of(settings, atoms))),
        shift="".join(map(str, settings.kpoints_shift)),
        energy_eV_per_atom=energy,
        pressure_GPa=pressure,
        energy_error_meV_per_atom=_difference(energy, energy_limit, MEV_PER_EV),
        pressure_error_GPa=_difference(pressure, pressure_limit, 1.0),
        max_force_error_eV_per_A=None
        if forces is None or forces_limit is None
        else float(np.linalg.norm(forces - forces_limit, axis=1).max()),
        wall_time_s=result.wall_time_s,
        reason=result.reason,
    )


def _energy_and_pressure(result: PwOutput) -> tuple[float | None, float | None]:
    if result.energy_eV is None or result.atoms is None:
        return None, None
    stress = result.stress_eV_per_A3
    pressure = None if stress is None else float(-np.trace(stress) / 3 * GPA_PER_EV_PER_A3)
    return result.energy_eV / len(result.atoms), pressure


def _difference(value: float | None, limit: float | None, factor: float) -> float | None:
    return None if value is None or limit is None else (value - limit) * factor
