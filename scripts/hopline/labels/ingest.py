"""Which labelled frames enter a set, and why the others do not: every frame found is accepted or rejected."""

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from hopline import files, frames
from hopline.console import InputError
from hopline.labels.espresso_output import NOT_PW, START, read_output

AUTO, EXTXYZ, ESPRESSO = "auto", "extxyz", "espresso"
FORMATS = (AUTO, EXTXYZ, ESPRESSO)
UNDERSTOOD = "extended XYZ (extxyz) and pw.x outputs (espresso: a file or a folder of runs) are understood"
ENERGY_KEYS = ("REF_energy", "energy", "dft_energy", "DFT_energy")
FORCES_KEYS = ("REF_forces", "forces", "dft_forces", "DFT_forces")
STRESS_KEYS = ("REF_stress", "plain_stress", "dft_stress", "DFT_stress")
SAME_STRUCTURE_A = 1e-4
"""pw.x prints positions to 1e-7 of the lattice parameter; anything further apart is another structure."""
SNIFFED_BYTES = 4096
DIMENSIONS = 3
SUM_PREFIX_LENGTH = 8


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


@dataclass(frozen=True, eq=False)
class _Candidate:
    """One frame as found; ``reason`` is set where its source already speaks against it."""

    source: str
    frame: int
    atoms: Atoms | None = None
    reason: str = ""
    energy_eV: float | None = None
    forces_eV_per_A: NDArray[np.float64] | None = None
    stress: object = None
    level_of_theory: str | None = None
    energy_kind: str = frames.UNSTATED
    pseudopotentials: Mapping[str, str] = field(default_factory=dict)


def ingest(
    sources: Iterable[str | os.PathLike[str]],
    *,
    file_format: str,
    min_distance_A: float,
    max_force_eV_per_A: float,
    require_stress: bool = False,
    defaults: Mapping[str, str | None] | None = None,
) -> Ingested:
    """Read labelled frames from files or folders and keep those that deserve a label.

    Parameters
    ----------
    sources
        Extended XYZ files, pw.x outputs, or folders of pw.x runs. An output beside a ``frame.extxyz`` (as
        Hopline writes it) takes positions and origin from there, and is checked against it.
    file_format
        ``auto``, ``extxyz`` or ``espresso``.
    min_distance_A
        Frames with two atoms closer than this are rejected.
    max_force_eV_per_A
        Frames with a larger force on any atom are rejected.
    require_stress
        Whether a frame without stress is rejected.
    defaults
        ``system``, ``composition``, ``level_of_theory`` of frames that do not say theirs.

    Raises
    ------
    InputError
        If a source is missing or of another format, or if nothing is found.
    """
    if file_format not in FORMATS:
        raise InputError(f"format {file_format} is not understood; {UNDERSTOOD}")
    accepted: list[Atoms] = []
    candidates: list[_Candidate] = []
    rejected: list[Rejection] = []
    seen: dict[str, str] = {}
    for candidate in _candidates(sources, file_format):
        identity = "" if candidate.atoms is None else frames.frame_id(candidate.atoms)
        objections = _objections(
            candidate,
            min_distance_A=min_distance_A,
            max_force_eV_per_A=max_force_eV_per_A,
            require_stress=require_stress,
        )
        reason = candidate.reason or next(objections, "")
        if not reason and identity in seen:
            reason = f"duplicate of {seen[identity]}"
        if reason:
            rejected.append(Rejection(candidate.source, candidate.frame, identity, reason))
            continue
        seen[identity] = f"frame {candidate.frame} of {candidate.source}"
        accepted.append(_labelled(candidate, defaults or {}))
        candidates.append(candidate)
    if not accepted and not rejected:
        raise InputError(f"no frame was found in {', '.join(map(str, sources))}; {UNDERSTOOD}")
    _state_pseudopotentials(accepted, candidates)
    return Ingested(accepted=accepted, rejected=rejected)


def refuse_unfit(ingested: Ingested, *, max_rejected_fraction: float) -> None:
    """Refuse a set that lost too many frames, or that mixes levels of theory or kinds of energy.

    Separate from `ingest`, so that the list of rejected frames can be written before the refusal.
    """
    lost = len(ingested.rejected)
    if not ingested.accepted or lost > max_rejected_fraction * ingested.found:
        raise InputError(
            f"{lost} of {ingested.found} frames were rejected, a fraction of {max_rejected_fraction:g} may "
            "be (the table above says why): mend or remove these runs, or raise --max-rejected-fraction"
        )
    frames.level_of_theory(ingested.accepted)
    kinds = sorted({str(frame.info["energy_kind"]) for frame in ingested.accepted})
    if len(kinds) > 1:
        raise InputError(f"a set may hold one kind of energy, this one mixes {' and '.join(kinds)}")


def table(rejected: Sequence[Rejection]) -> str:
    """Return rejected frames as lines for a person to read."""
    return "\n".join(f"rejected: {row.source} frame {row.frame}: {row.reason}" for row in rejected)


def write_rejected(path: str | os.PathLike[str], rejected: Sequence[Rejection]) -> None:
    """Write rejected frames as CSV: source, frame, frame_id, reason; with none, the header alone."""
    with files.whole(path) as temporary, temporary.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("source", "frame", "frame_id", "reason"))
        table.writerows((row.source, row.frame, row.frame_id, row.reason) for row in rejected)


def _candidates(sources: Iterable[str | os.PathLike[str]], file_format: str) -> Iterator[_Candidate]:
    for source in sources:
        path = Path(source)
        if path.is_dir():
            if file_format == EXTXYZ:
                raise InputError(f"{path} is a folder: name the extended XYZ files in it")
            yield from _runs_in(path)
        elif not path.is_file():
            raise InputError(f"{path} does not exist")
        elif (_sniff(path) if file_format == AUTO else file_format) == EXTXYZ:
            yield from _read_extxyz(path)
        else:
            yield _read_run(path)


def _sniff(path: Path) -> str:
    """Tell a file's format by its content, by its name where the content is empty or cut off."""
    with path.open("rb") as file:
        head = file.read(SNIFFED_BYTES).decode(errors="replace")
    first, _, rest = head.partition("\n")
    if START in head or (path.suffix in {".out", ".pwo"} and not head.startswith("<")):
        return ESPRESSO
    if (first.strip().isdigit() and "=" in rest.partition("\n")[0]) or path.suffix in {".xyz", ".extxyz"}:
        return EXTXYZ
    raise InputError(f"the format of {path} is not understood; {UNDERSTOOD}")


def _runs_in(folder: Path) -> Iterator[_Candidate]:
    """Yield every pw.x run below a folder; other ``.out`` files (a queue's logs) are passed over."""
    outputs = {path for path in folder.rglob("*.out") if path.name == "pw.out" or _is_pw(path)}
    unrun = {path.with_name("pw.out") for path in folder.rglob("pw.in")} - outputs
    for path in sorted(outputs | unrun):
        yield (
            _read_run(path)
            if path in outputs
            else _Candidate(str(path), 0, _frame_beside(path), "not run: there is no pw.out beside pw.in")
        )


def _is_pw(path: Path) -> bool:
    with path.open("rb") as file:
        return START.encode() in file.read(SNIFFED_BYTES)


def _frame_beside(output: Path) -> Atoms | None:
    beside = output.with_name("frame.extxyz")
    return frames.read_frames(beside)[0] if beside.is_file() else None


def _read_run(path: Path) -> _Candidate:
    result = read_output(path)
    frame = _frame_beside(path)
    reason = result.reason
    if frame is not None and result.atoms is not None and reason != NOT_PW:
        reason = _another_structure(frame, result.atoms) or reason
    level = None if frame is None else frame.info.get("level_of_theory")
    if level is not None and not reason and result.cutoffs not in str(level):
        reason = f"pw.x ran with cutoffs {result.cutoffs}, the frame was written for: {level}"
    return _Candidate(
        source=str(path),
        frame=0,
        atoms=result.atoms if frame is None else frame,
        reason=reason,
        energy_eV=result.energy_eV,
        forces_eV_per_A=result.forces_eV_per_A,
        stress=result.stress_eV_per_A3,
        level_of_theory=result.theory if level is None else str(level),
        energy_kind=result.energy_kind,
        pseudopotentials=result.pseudopotentials if level is None else {},
    )


def _another_structure(frame: Atoms, printed: Atoms) -> str:
    """Return how the structure in an output differs from the frame that went in; empty where it does not."""
    if list(frame.numbers) != list(printed.numbers):
        return f"the output is of another structure: {printed.symbols}, frame.extxyz holds {frame.symbols}"
    cell_A = float(np.abs(frame.cell.array - printed.cell.array).max())
    moved_A = np.linalg.norm(frame.positions - printed.positions, axis=1)
    if cell_A > SAME_STRUCTURE_A:
        return f"the output is of another structure: its cell differs by {cell_A:.4f} A from frame.extxyz"
    if moved_A.max() > SAME_STRUCTURE_A:
        worst = int(moved_A.argmax())
        return f"the output is of another structure: atom {worst} is {moved_A[worst]:.4f} A off frame.extxyz"
    return ""


def _read_extxyz(path: Path) -> Iterator[_Candidate]:
    """Yield frames one by one, so that a broken one does not take the others with it."""
    with path.open(errors="replace") as file:
        row = 0
        while heading := file.readline():
            if not heading.strip():
                continue
            if not heading.strip().isdigit():
                yield _Candidate(
                    str(path), row, reason=f"broken: {heading.strip()[:40]!r} is no number of atoms"
                )
                return
            lines = [file.readline() for _ in range(int(heading) + 1)]
            yield _cut_off(path, row) if "" in lines else _parse_frame(path, row, heading + "".join(lines))
            row += 1


def _cut_off(path: Path, row: int) -> _Candidate:
    return _Candidate(str(path), row, reason="cut off: the file ends inside this frame")


def _parse_frame(path: Path, row: int, text: str) -> _Candidate:
    # ASE takes a plain stress or virial for nine numbers and gives up on six
    text = re.sub(r"(?<!\w)(stress|virial)=", r"plain_\1=", text)
    try:
        atoms = ase.io.read(io.StringIO(text), format="extxyz")
    except Exception as error:  # noqa: BLE001  ASE's parsers raise whatever they stumble over
        return _Candidate(str(path), row, reason=f"broken: {type(error).__name__}: {error}")
    # ASE moves plain energy and forces into a calculator
    values = {**atoms.info, **atoms.arrays, **(atoms.calc.results if atoms.calc else {})}
    energy, forces, stress = (
        next((values[key] for key in keys if key in values), None)
        for keys in (ENERGY_KEYS, FORCES_KEYS, STRESS_KEYS)
    )
    return _Candidate(
        source=str(path),
        frame=row,
        atoms=atoms,
        energy_eV=None if energy is None else float(_numbers(energy).ravel()[0]),
        forces_eV_per_A=None if forces is None else _numbers(forces),
        stress=stress,
        level_of_theory=atoms.info.get("level_of_theory"),
        energy_kind=str(atoms.info.get("energy_kind", frames.UNSTATED)),
    )


def _numbers(value: Any) -> NDArray[np.float64]:
    """Return a label as numbers; text where a number is expected becomes NaN, which is rejected later."""
    try:
        return np.asarray(value, dtype=float)
    except (ValueError, TypeError):
        return np.full(np.shape(value), np.nan)


def _objections(
    candidate: _Candidate, *, min_distance_A: float, max_force_eV_per_A: float, require_stress: bool
) -> Iterator[str]:
    """Yield why a frame may not enter the set; each check relies on those before it: the first one counts."""
    atoms, forces = candidate.atoms, candidate.forces_eV_per_A
    parts = {"energy": candidate.energy_eV, "forces": forces, "structure": atoms}
    if require_stress:
        parts["stress"] = candidate.stress
    absent = [name for name, part in parts.items() if part is None]
    if absent:
        yield f"no {' and no '.join(absent)}"
    if atoms is None or forces is None:
        return
    if atoms.cell.rank != DIMENSIONS:
        yield "no three-dimensional cell"
    if forces.shape != (len(atoms), 3):
        yield f"forces have shape {forces.shape}, {(len(atoms), 3)} is expected"
    yield from _not_finite(candidate, atoms, forces)
    yield from _too_close(atoms, min_distance_A)
    size = np.linalg.norm(forces, axis=1)
    worst = int(size.argmax())
    if size[worst] > max_force_eV_per_A:
        name = f"{atoms.symbols[worst]} {worst}"
        yield f"force of {size[worst]:.2f} eV/A on {name} is above {max_force_eV_per_A:g} eV/A"


def _not_finite(candidate: _Candidate, atoms: Atoms, forces: NDArray[np.float64]) -> Iterator[str]:
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
    first, second, distance = neighbor_list("ijd", atoms, min_distance_A)
    if len(distance):
        pair = int(distance.argmin())
        i, j = int(first[pair]), int(second[pair])
        names = f"{atoms.symbols[i]} {i} and {atoms.symbols[j]} {j}"
        yield f"{names} are {distance[pair]:.3f} A apart, closer than {min_distance_A:g} A"


def _labelled(candidate: _Candidate, defaults: Mapping[str, str | None]) -> Atoms:
    found = candidate.atoms
    assert found is not None  # noqa: S101  an accepted candidate has a structure; this tells the type checker
    frame = Atoms(numbers=found.numbers, positions=found.positions, cell=found.cell, pbc=found.pbc)
    frame.arrays[frames.FORCES] = np.asarray(candidate.forces_eV_per_A, dtype=float)
    frame.info[frames.ENERGY] = candidate.energy_eV
    if candidate.stress is not None:
        # nine flat numbers: ASE would write a nested 3x3 as JSON, which few other readers know
        frame.info[frames.STRESS] = frames.stress_matrix(candidate.stress).ravel()
    frame.info["frame_id"] = frames.frame_id(frame)
    origin = {
        "system": defaults.get("system") or frames.UNSTATED,
        "composition": defaults.get("composition") or frame.get_chemical_formula(),
        "source": candidate.source,
        "level_of_theory": candidate.level_of_theory or defaults.get("level_of_theory") or frames.UNSTATED,
        "energy_kind": candidate.energy_kind,
    }
    stated = {key: found.info[key] for key in ("system", "composition", "source") if key in found.info}
    frame.info |= origin | stated
    if "temperature_K" in found.info:
        frame.info["temperature_K"] = float(found.info["temperature_K"])
    return frame


def _state_pseudopotentials(accepted: Sequence[Atoms], candidates: Sequence[_Candidate]) -> None:
    """Add pseudopotentials to each level of theory that was read from an output.

    They are those of the whole set: a composition that lacks an element says nothing about that element's
    pseudopotential. Where two runs differ in one, each states its own, and the set is seen to mix two levels.
    """
    union: dict[str, str] = {}
    conflict = False
    for candidate in candidates:
        for element, md5 in candidate.pseudopotentials.items():
            conflict |= union.setdefault(element, md5) != md5
    for frame, candidate in zip(accepted, candidates, strict=True):
        if candidate.pseudopotentials:
            sums = candidate.pseudopotentials if conflict else union
            frame.info["level_of_theory"] += "".join(
                f"; {element} md5 {md5[:SUM_PREFIX_LENGTH]}" for element, md5 in sorted(sums.items())
            )
