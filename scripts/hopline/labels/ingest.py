"""Which labelled frames enter a set, and why the others do not: every frame found is accepted or rejected."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hopline import files, frames, likeness
from hopline.console import InputError
from hopline.labels import outliers
from hopline.labels.candidates import Candidate, numbers
from hopline.labels.sources import UNDERSTOOD, candidates
from hopline.units import MEV_PER_EV

DIMENSIONS = 3
ISOLATED = "isolatedatom"
DUPLICATE = "duplicate of"
SAME_ENERGY_EV_PER_ATOM = 2e-3
"""Structures that agree to 0.001 A differ by less than this: forces are a few eV/A at most."""
MIN_HEIGHT_A = 0.5
"""A cell that is flatter is no crystal's, but one in nm or m; neighbour lists take forever in it."""


@dataclass(frozen=True)
class Limits:
    """What a frame must keep to be accepted.

    Atoms no closer than ``min_distance_A``; no force above ``max_force_eV_per_A``; an energy within
    ``max_energy_deviation_eV_per_atom`` of the fit of all energies to their compositions (see `outliers`); only the
    ``elements`` of the system, where they are given; a stress, if ``require_stress``.
    """

    min_distance_A: float
    max_force_eV_per_A: float
    max_energy_deviation_eV_per_atom: float
    elements: tuple[str, ...] = ()
    require_stress: bool = False


@dataclass(frozen=True)
class Rejection:
    """A frame that was left out: its file, its place in the file, its id ("" where unreadable), and why."""

    source: str
    frame: int
    frame_id: str
    reason: str


@dataclass(frozen=True, eq=False)
class Ingested:
    """Accepted frames, under the labelled-frame contract, and the rejected rest."""

    accepted: list[Atoms]
    rejected: list[Rejection]

    @property
    def found(self) -> int:
        """Number of frames found."""
        return len(self.accepted) + len(self.rejected)


def ingest(
    sources: Iterable[str | os.PathLike[str]],
    *,
    file_format: str,
    limits: Limits,
    defaults: Mapping[str, str | None] | None = None,
) -> Ingested:
    """Read labelled frames from files or folders and keep those that deserve a label.

    Parameters
    ----------
    sources, file_format
        As `sources.candidates` takes them.
    limits
        What a frame must keep.
    defaults
        ``system``, ``composition``, ``level_of_theory``, ``energy_kind`` of frames that do not say theirs.

    Raises
    ------
    InputError
        If a source is missing or of another format, or if nothing is found.
    """
    sources = list(sources)
    accepted: list[Candidate] = []
    rejected: list[Rejection] = []
    for candidate in candidates(sources, file_format=file_format):
        reason = reason_against(candidate, limits)
        if reason:
            rejected.append(_rejection(candidate, reason))
        else:
            accepted.append(candidate)
    if not accepted and not rejected:
        raise InputError(f"no frame was found in {', '.join(map(str, sources))}; {UNDERSTOOD}")
    # energies first: of two frames that are the same, the wrong one must not push the right one out
    for judge in (_energy_outliers, _duplicates):
        reasons = judge(accepted, limits)
        rejected += [_rejection(accepted[row], reason) for row, reason in reasons.items()]
        accepted = [candidate for row, candidate in enumerate(accepted) if row not in reasons]
    made = [labelled(candidate, defaults or {}) for candidate in accepted]
    _state_pseudopotentials(made, accepted)
    return Ingested(accepted=made, rejected=rejected)


def reason_against(candidate: Candidate, limits: Limits) -> str:
    """Return why a frame may not enter a set, judged by itself alone; empty where it may."""
    return candidate.reason or next(_objections(candidate, limits), "")


def refuse_unfit(ingested: Ingested, *, max_rejected_fraction: float) -> None:
    """Refuse a set that lost too many frames, that mixes levels of theory or kinds of energy, or of the wrong sign.

    Separate from `ingest`, so that the list of rejected frames can be written before the refusal.
    """
    # a frame that is there already is no loss
    lost = sum(not row.reason.startswith(DUPLICATE) for row in ingested.rejected)
    if not ingested.accepted or lost > max_rejected_fraction * ingested.found:
        raise InputError(
            f"{lost} of {ingested.found} frames were rejected (the table above says why), more than the "
            f"{max_rejected_fraction:.0%} that are allowed: mend or remove these, or raise --max-rejected-fraction"
        )
    frames.level_of_theory(ingested.accepted)
    kinds = sorted({str(frame.info["energy_kind"]) for frame in ingested.accepted})
    if len(kinds) > 1:
        raise InputError(
            f"a set may hold one kind of energy, this one mixes {' and '.join(kinds)}: ingest them apart, or say "
            "with --energy-kind what the unstated ones are"
        )
    wrong = outliers.stress_sign(ingested.accepted)
    if wrong:
        raise InputError(wrong)


def table(rejected: Sequence[Rejection]) -> str:
    """Return rejected frames as lines for a person to read."""
    return "\n".join(f"rejected: {row.source} frame {row.frame}: {row.reason}" for row in rejected)


def write_rejected(path: str | os.PathLike[str], rejected: Sequence[Rejection]) -> None:
    """Write rejected frames as CSV: source, frame, frame_id, reason; with none, the header alone."""
    files.write_rows(path, [field.name for field in fields(Rejection)], map(asdict, rejected))


def _rejection(candidate: Candidate, reason: str) -> Rejection:
    identity = "" if candidate.atoms is None else frames.frame_id(candidate.atoms)
    return Rejection(candidate.source, candidate.frame, identity, reason)


def _objections(candidate: Candidate, limits: Limits) -> Iterator[str]:
    """Yield why a frame may not enter the set; each check relies on those before it: the first one counts."""
    atoms, forces = candidate.atoms, candidate.forces_eV_per_A
    if atoms is not None and _is_isolated(atoms):
        yield "an isolated atom: its energy belongs to the atomic references, not among the frames"
    parts = {"energy": candidate.energy_eV, "forces": forces, "structure": atoms}
    if limits.require_stress:
        parts["stress"] = candidate.stress
    absent = [name for name, part in parts.items() if part is None]
    if absent:
        yield f"no {' and no '.join(absent)}"
    if atoms is None or forces is None:
        return
    if not len(atoms):
        yield "no atoms"
    strange = sorted(set(atoms.symbols) - set(limits.elements))
    if limits.elements and strange:
        yield f"{atoms.symbols} holds {', '.join(strange)}: the system is made of {', '.join(limits.elements)}"
    yield from _no_cell(atoms)
    yield from _not_periodic(atoms)
    if forces.shape != (len(atoms), 3):
        yield f"forces have shape {forces.shape}, {(len(atoms), 3)} is expected"
    yield from _not_finite(candidate, atoms, forces)
    yield from _too_close(atoms, limits.min_distance_A)
    size = np.linalg.norm(forces, axis=1)
    worst = int(size.argmax())
    if size[worst] > limits.max_force_eV_per_A:
        name = f"{atoms.symbols[worst]} {worst}"
        yield f"force of {size[worst]:.2f} eV/A on {name} is above {limits.max_force_eV_per_A:g} eV/A"


def _no_cell(atoms: Atoms) -> Iterator[str]:
    if atoms.cell.rank != DIMENSIONS:
        yield "no three-dimensional cell"
    elif np.isfinite(atoms.cell.array).all():
        # distances between opposite faces
        heights_A = 1 / np.linalg.norm(np.linalg.pinv(atoms.cell.array), axis=0)
        if heights_A.min() < MIN_HEIGHT_A:
            yield f"its cell is {heights_A.min():.2g} A thin: is it given in A?"


def _not_periodic(atoms: Atoms) -> Iterator[str]:
    """Yield why a molecule in a box, or a slab, is refused: every family would train it with its images around it.

    No format of a periodic code gets here: their readers, and extended XYZ that says nothing, give three directions.
    """
    if not atoms.pbc.all():
        free = " and ".join(axis for axis, periodic in zip("abc", atoms.pbc, strict=True) if not periodic)
        stated = " ".join("FT"[int(periodic)] for periodic in atoms.pbc)
        yield f'not periodic along {free} (pbc "{stated}"): write "T T T" there if the run that labelled it was'


def _is_isolated(atoms: Atoms) -> bool:
    return len(atoms) == 1 and str(atoms.info.get("config_type", "")).lower() == ISOLATED


def _not_finite(candidate: Candidate, atoms: Atoms, forces: NDArray[np.float64]) -> Iterator[str]:
    try:
        stress = np.zeros(1) if candidate.stress is None else frames.stress_matrix(candidate.stress)
    except (InputError, ValueError) as error:
        yield str(error)
        return
    parts = {
        "a position": atoms.positions, "the cell": atoms.cell.array,
        "the energy": np.array(candidate.energy_eV), "a force": forces, "a stress": stress,
    }  # fmt: skip
    for name, part in parts.items():
        if not np.isfinite(part).all():
            yield f"{name} is not a finite number"


def _too_close(atoms: Atoms, min_distance_A: float) -> Iterator[str]:
    from matscipy.neighbours import neighbour_list  # forty times faster than ASE's

    first, second, distance = neighbour_list("ijd", atoms, min_distance_A)
    if len(distance):
        pair = int(distance.argmin())
        i, j = int(first[pair]), int(second[pair])
        names = f"{atoms.symbols[i]} {i} and {atoms.symbols[j]} {j}"
        yield f"{names} are {distance[pair]:.3f} A apart, closer than {min_distance_A:g} A"


def _structures(accepted: Sequence[Candidate]) -> list[Atoms]:
    return [candidate.atoms for candidate in accepted if candidate.atoms is not None]


def _duplicates(accepted: Sequence[Candidate], _: Limits) -> dict[int, str]:
    """Return the rows that hold the same structure as an earlier one, whatever the order of its atoms or its digits."""
    first = likeness.first_of_kind(_structures(accepted))
    found: dict[int, str] = {}
    for row in np.flatnonzero(first != np.arange(len(first))).tolist():
        twin = accepted[first[row]]
        found[row] = f"{DUPLICATE} frame {twin.frame} of {twin.source}"
        off_eV = abs((twin.energy_eV or 0.0) - (accepted[row].energy_eV or 0.0)) / len(twin.atoms or [0])
        if off_eV > SAME_ENERGY_EV_PER_ATOM:
            found[row] = _contradicts(twin, off_eV)
            found[int(first[row])] = _contradicts(accepted[row], off_eV)
    return found


def _contradicts(other: Candidate, off_eV: float) -> str:
    return (
        f"contradicts frame {other.frame} of {other.source}: the same structure, "
        f"its energy {MEV_PER_EV * off_eV:.1f} meV/atom off"
    )


def _energy_outliers(accepted: Sequence[Candidate], limits: Limits) -> dict[int, str]:
    energies = [candidate.energy_eV for candidate in accepted if candidate.energy_eV is not None]
    bound = limits.max_energy_deviation_eV_per_atom
    found = outliers.energy_outliers(_structures(accepted), energies, max_deviation_eV_per_atom=bound)
    return dict(found)


def labelled(candidate: Candidate, defaults: Mapping[str, str | None]) -> Atoms:
    """Return a frame that nothing speaks against under the labelled-frame contract; ``defaults`` as `ingest` takes."""
    found = candidate.atoms
    assert found is not None  # noqa: S101  an accepted candidate has a structure; this tells the type checker
    frame = Atoms(numbers=found.numbers, positions=found.positions, cell=found.cell, pbc=found.pbc)
    frame.arrays[frames.FORCES] = np.asarray(candidate.forces_eV_per_A, dtype=float)
    frame.info[frames.ENERGY] = candidate.energy_eV
    if candidate.stress is not None:
        # nine flat numbers: ASE would write a nested 3x3 as JSON, which few other readers know
        frame.info[frames.STRESS] = frames.stress_matrix(candidate.stress).ravel()
    frame.info["frame_id"] = frames.frame_id(frame)
    frame.info |= {
        "system": defaults.get("system") or frames.UNSTATED,
        "composition": defaults.get("composition") or frame.get_chemical_formula(),
        "level_of_theory": candidate.level_of_theory or defaults.get("level_of_theory") or frames.UNSTATED,
        "energy_kind": candidate.energy_kind
        if candidate.energy_kind != frames.UNSTATED
        else defaults.get("energy_kind") or frames.UNSTATED,
    }
    frame.info |= _trajectory(candidate, found)
    frame.info |= {key: found.info[key] for key in ("system", "composition") if key in found.info}
    temperature_K = numbers(found.info.get("temperature_K", np.nan))
    if temperature_K.shape == () and np.isfinite(temperature_K):
        frame.info["temperature_K"] = float(temperature_K)
    return frame


def _trajectory(candidate: Candidate, found: Atoms) -> dict[str, Any]:
    """Return the trajectory that a frame comes from and, where it is known, its place there.

    Rows of one file count as neighbours in time unless the file says which trajectory each comes from.
    """
    if candidate.trajectory:
        return {"source": candidate.trajectory}
    if "source" in found.info:
        place = {"source_frame": found.info["source_frame"]} if "source_frame" in found.info else {}
        return {"source": found.info["source"]} | place
    return {"source": candidate.source, "source_frame": candidate.frame}


def _state_pseudopotentials(accepted: Sequence[Atoms], candidates: Sequence[Candidate]) -> None:
    """Add pseudopotentials to each level of theory that was read from an output.

    They are those of all runs of that level: a composition that lacks an element says nothing about that element's
    pseudopotential. Where two runs differ in one, each states its own, and the set is seen to mix two levels.
    """
    unions: dict[str | None, dict[str, str]] = {}
    conflict = False
    for candidate in candidates:
        union = unions.setdefault(candidate.level_of_theory, {})
        for element, name in candidate.pseudopotentials.items():
            conflict |= union.setdefault(element, name) != name
    for frame, candidate in zip(accepted, candidates, strict=True):
        if candidate.pseudopotentials:
            named = candidate.pseudopotentials if conflict else unions[candidate.level_of_theory]
            frame.info["level_of_theory"] += "".join(
                f"; {element} {name}" for element, name in sorted(named.items())
            )
