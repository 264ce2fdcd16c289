"""VASP runs of single points: started in a scratch folder, gone on with, and one other route where SCF fails.

VASP writes its charge density when it ends, or when it is stopped through STOPCAR, not while it runs; so a density is
gone on from only if VASP came to its own end. Wavefunctions are not kept: they are large, and SCF finds them again.
"""

import math
import re
import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hopline import files, stopping
from hopline.console import InputError, Stopped, say
from hopline.labels import origin, potcars, processes, vasp
from hopline.labels.batch import CONVERGED, REJECTED, Row
from hopline.labels.candidates import Broken, Candidate
from hopline.labels.potcars import Potcar
from hopline.labels.readers import vasprun

INCAR = "INCAR"
INPUTS = (INCAR, "KPOINTS", "POSCAR", vasp.SPEC, origin.FRAME)
VASPRUN, OUTCAR, PRINTED, DENSITY, POTCAR = "vasprun.xml", "OUTCAR", "vasp.out", "CHGCAR", "POTCAR"
SCRATCH, WHOLE_DENSITY, SEAL, OUTCOME = ".scratch", "CHGCAR.whole", "seal.json", "outcome.json"
"""In a run's folder: where VASP runs, the density to go on from, of which inputs, and how a rung ended."""
REPORT, KEPT_INCAR = "run.json", "INCAR.rung"
"""Beside a frame's outputs: how its run went, and the tags of another rung that gave the label."""
AS_GIVEN, ALL_BANDS, LINEAR = "as given", "all bands at once", "linear mixing"
UNCONVERGED, FAILED, TIMEOUT = "SCF not converged", "VASP failed", "cut off: stopped at Hopline's timeout of"
END, HARD_STOP = "General timing and accounting", "hard stop encountered"
ELAPSED = re.compile(r"Elapsed time \(sec\):\s+([\d.]+)")
STOP_REQUEST = "LABORT = .TRUE.\n"
"""In the file STOPCAR: stop after this electronic step and write the density (VASP wiki, "STOPCAR")."""
LAST_BYTES = 1 << 16
FULL_DISK_BYTES = 1 << 16
MAX_STARTS = 2
"""A run that dies without a word is started once more: a node may be to blame."""
MIN_NELM = 200
TETRAHEDRON_BELOW = -1


@dataclass(frozen=True)
class Launch:
    """How VASP is started, and until when.

    ``launcher`` stands before the executable (``mpirun -np 16``). A run longer than ``timeout_s`` is given up: that is
    a result. At ``stop_at_s`` on the monotonic clock the job's time is over: the run is stopped to be gone on with.
    """

    launcher: str = ""
    executable: str = "vasp_std"
    timeout_s: float = math.inf
    stop_at_s: float = math.inf


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its energy (E - TS, eV) where it gives a label, else the reason why not."""

    reason: str
    energy_eV: float | None = None
    scf_steps: int = 0
    wall_time_s: float | None = None


def label(
    inputs: Path, runs: Path, indices: Sequence[str], *, potcar_folder: Path, launch: Launch
) -> list[Row]:
    """Run VASP on ``inputs/{index}`` in ``runs/{index}`` for each index, and return their rows in that order.

    A frame that an earlier attempt finished with the same inputs and POTCARs is not run again.

    Raises
    ------
    InputError
        If an input is missing, a POTCAR fails its checks (`potcars.load`), or as `run`.
    Stopped
        As `run`; the finished frames stay finished.
    """
    for index in indices:
        if not (inputs / index / INCAR).is_file():
            raise InputError(f"{inputs / index / INCAR} does not exist: write it with write_vasp_inputs.py")
    checks = potcars.read_checks(inputs / potcars.CHECKS)
    named = {index: (inputs / index / vasp.SPEC).read_text().split() for index in indices}
    known: dict[str, Potcar] = {}
    for symbol in sorted({symbol for symbols in named.values() for symbol in symbols}):
        if symbol not in checks:
            raise InputError(f"{inputs / potcars.CHECKS} does not name {symbol}: write the inputs again")
        known[symbol] = potcars.load(potcar_folder, symbol, checks[symbol])
    rows = []
    for done, index in enumerate(indices, start=1):
        row = run(inputs / index, runs / index, [known[symbol] for symbol in named[index]], launch=launch)
        said = row.reason if row.energy_eV is None else f"{row.energy_eV:.6f} eV, {row.scf_steps} SCF steps"
        say(f"{done}/{len(indices)} {index}: {said}")
        rows.append(row)
    return rows


def run(given: Path, here: Path, needed: Sequence[Potcar], *, launch: Launch) -> Row:
    """Run VASP on the inputs of a folder; keep vasprun.xml, OUTCAR, vasp.out and ``run.json`` in another.

    A run that does not converge is tried once more by another route to the same level of theory. A run that fails is
    a result too: its outputs are kept. The POTCARs, in the order of the POSCAR, lie in the hidden scratch folder while
    VASP runs, and go with it.

    Raises
    ------
    InputError
        If there is no VASP or no launcher, if VASP never started, or if the disk is full.
    Stopped
        If a signal (see `stopping.stoppable`) or the end of the job's time stopped the run.
    """
    seal = {name: files.sha256(given / name) for name in INPUTS if (given / name).is_file()}
    seal |= {f"POTCAR {potcar.symbol}": potcar.sha256 for potcar in needed}
    kept = _finished(here, seal)
    if kept is not None:
        return kept
    scratch = here / SCRATCH
    if not (scratch / SEAL).is_file() or files.read_json(scratch / SEAL) != seal:
        shutil.rmtree(scratch, ignore_errors=True)
        files.write_json(scratch / SEAL, seal)
    tags = _read_tags(given / INCAR)
    tried = {AS_GIVEN: _run_rung(given, scratch / AS_GIVEN, tags, needed, launch)}
    if tried[AS_GIVEN].reason.startswith(UNCONVERGED):
        rung, changes = other_route(tags)
        say(f"{here}: {tried[AS_GIVEN].reason}; next: {rung}")
        density = scratch / AS_GIVEN / DENSITY
        tried[rung] = _run_rung(given, scratch / rung, {**tags, **changes}, needed, launch, density=density)
    rung = next((rung for rung, outcome in tried.items() if not outcome.reason), AS_GIVEN)
    return _keep(given, here, seal, tried, rung)


def other_route(tags: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return another rung for a run whose SCF did not converge, and its tags: the same answer by other numerics.

    All bands are improved at once along the gradient of the energy, which cannot slosh; where that was the way already,
    or for the tetrahedron method, which it does not know, the density is mixed linearly (VASP wiki, "ALGO", "AMIX").
    """
    more = {"NELM": max(MIN_NELM, 2 * int(tags.get("NELM", 0)))}
    at_once = str(tags.get("ALGO", "Normal"))[:1].upper() in {"A", "D", "C"}
    if at_once or int(tags.get("ISMEAR", 1)) < TETRAHEDRON_BELOW:
        mixing = {"AMIX": 0.2, "BMIX": 0.0001, "AMIX_MAG": 0.8, "BMIX_MAG": 0.0001}
        return LINEAR, {"ALGO": "Normal", **mixing, **more}
    return ALL_BANDS, {"ALGO": "All", **more}


def judge(folder: Path) -> Outcome:
    """Return what the outputs in a folder say: vasprun.xml is read as at ingestion, VASP's errors are named.

    The names are custodian's (`VaspErrorHandler`); none of its corrections is made, they may change the theory.
    """
    path, printed = folder / VASPRUN, _content(folder / PRINTED)
    steps: list[Candidate] = []
    reason = ""
    try:
        steps = list(vasprun.read(path)) if path.is_file() else []
    except Broken as error:
        reason = str(error)
    if len(steps) == 1:
        reason = steps[0].reason
    elif not reason:
        reason = f"{len(steps)} ionic steps, not one" if path.is_file() else "VASP wrote no vasprun.xml"
    if not reason and HARD_STOP in printed:
        reason = "cut off: stopped through a STOPCAR before SCF converged"
    if not reason and (steps[0].energy_eV is None or steps[0].forces_eV_per_A is None):
        reason = "no energy or no forces in vasprun.xml"
    named = named_error(printed) if reason and not reason.startswith(UNCONVERGED) else ""
    elapsed = ELAPSED.search(_tail(folder / OUTCAR))
    return Outcome(
        reason=f"{FAILED}, {named} ({reason})" if named else reason,
        energy_eV=None if reason else steps[0].energy_eV,
        scf_steps=path.read_bytes().count(b"<scstep>") if path.is_file() else 0,
        wall_time_s=None if elapsed is None else float(elapsed[1]),
    )


def named_error(printed: str) -> str:
    """Return the errors in what VASP printed, by custodian's names, with the line of the first; empty for none."""
    from custodian.vasp.handlers import VaspErrorHandler  # four seconds to import

    # custodian takes a changed number of bands for a warning as well
    messages = {name: parts for name, parts in VaspErrorHandler.error_msgs.items() if name != "auto_nbands"}
    lines = printed.splitlines()
    found = {
        name: line.strip(" |")
        for name, parts in messages.items()
        for line in lines
        if any(part in line for part in parts)
    }
    return f"{' and '.join(found)}: {next(iter(found.values()))}" if found else ""


def _run_rung(
    given: Path,
    folder: Path,
    tags: Mapping[str, Any],
    needed: Sequence[Potcar],
    launch: Launch,
    *,
    density: Path | None = None,
) -> Outcome:
    """Run VASP until it ends by itself or is given up; a rung that an earlier attempt finished is not run again."""
    if (folder / OUTCOME).is_file():
        return Outcome(**files.read_json(folder / OUTCOME))
    if not folder.is_dir():
        folder.mkdir(parents=True)
        if density is not None and density.is_file():
            shutil.copyfile(density, folder / WHOLE_DENSITY)
    outcome = _run_to_its_end(given, folder, tags, needed, launch)
    files.write_json(folder / OUTCOME, asdict(outcome))
    return outcome


def _run_to_its_end(
    given: Path, folder: Path, tags: Mapping[str, Any], needed: Sequence[Potcar], launch: Launch
) -> Outcome:
    command = _command(launch)
    give_up_at_s, starts = time.monotonic() + launch.timeout_s, 0
    asked: list[int] = []  # whether VASP was: it may delete its STOPCAR
    while True:
        if stopping.asked_to_stop() or time.monotonic() >= launch.stop_at_s:
            raise Stopped(f"{folder.parents[1]}: stopped; run the same command again to go on")
        from_density = (folder / WHOLE_DENSITY).is_file()
        _prepare(given, folder, tags, needed, from_density=from_density)
        asked.clear()
        try:
            status = processes.watch(
                command,
                folder,
                output=folder / PRINTED,
                stop=lambda: asked.append((folder / "STOPCAR").write_text(STOP_REQUEST)),
                stop_at_s=launch.stop_at_s,
                give_up_at_s=give_up_at_s,
            )
        finally:
            (folder / POTCAR).unlink()
        ended = END in _tail(folder / OUTCAR)
        if asked:
            if ended and (folder / DENSITY).is_file():
                (folder / DENSITY).replace(folder / WHOLE_DENSITY)
            continue
        if ended:
            return judge(folder)
        if time.monotonic() >= give_up_at_s:
            return Outcome(f"{TIMEOUT} {launch.timeout_s:g} s")
        outcome = judge(folder)
        _refuse_accidents(folder, command)
        starts += not from_density
        if from_density:
            say(
                f"{folder}: VASP ended with that charge density, which is thrown away: once more from scratch"
            )
            (folder / WHOLE_DENSITY).unlink()
        elif starts == MAX_STARTS or outcome.reason.startswith(FAILED):
            return outcome
        else:
            say(f"{folder}: VASP ended without a word (status {status})")


def _prepare(
    given: Path, folder: Path, tags: Mapping[str, Any], needed: Sequence[Potcar], *, from_density: bool
) -> None:
    """Write what VASP reads, and clear away what an earlier start wrote."""
    from pymatgen.io.vasp.inputs import Incar

    for name in (VASPRUN, OUTCAR, PRINTED, DENSITY, "WAVECAR", "STOPCAR", "CHG"):
        (folder / name).unlink(missing_ok=True)
    for name in ("KPOINTS", "POSCAR"):
        if (given / name).is_file():
            shutil.copyfile(given / name, folder / name)
    own = {"LCHARG": True, "LWAVE": False, "ISTART": 0, "ICHARG": 1 if from_density else 2}
    (folder / INCAR).write_text(str(Incar({**tags, **own})))
    (folder / POTCAR).write_bytes(potcars.joined(needed))
    if from_density:
        say(f"{folder}: starts from the charge density that lies there")
        shutil.copyfile(folder / WHOLE_DENSITY, folder / DENSITY)


def _refuse_accidents(folder: Path, command: Sequence[str]) -> None:
    """Stop where a failure says nothing about the input: a full disk, or a program that never ran."""
    printed = _content(folder / PRINTED)
    if "No space left on device" in printed or shutil.disk_usage(folder).free < FULL_DISK_BYTES:
        raise InputError(f"{folder}: no space is left for what VASP writes: free some, then run this again")
    if not (folder / OUTCAR).is_file():
        last = next((line.strip() for line in reversed(printed.splitlines()) if line.strip()), "nothing")
        raise InputError(f"VASP did not start in {folder} ({shlex.join(command)}), it printed: {last}")


def _command(launch: Launch) -> list[str]:
    before, program = shlex.split(launch.launcher), shlex.split(launch.executable)
    missing = next((word for word in (*before[:1], *program[:1]) if shutil.which(word) is None), None)
    # behind a container's launcher VASP lies inside the image
    if missing is not None and (not before or missing == before[0]):
        raise InputError(f"{missing} is not on PATH: load VASP's module, or give its path and launcher")
    return [*before, *program]


def _read_tags(incar: Path) -> dict[str, Any]:
    from pymatgen.io.vasp.inputs import Incar

    return dict(Incar.from_str(incar.read_text()))


def _keep(given: Path, here: Path, seal: Mapping[str, str], tried: Mapping[str, Outcome], rung: str) -> Row:
    """Put inputs and the outputs that count in their place, the report last of all, and clear the scratch."""
    folder, outcome = here / SCRATCH / rung, tried[rung]
    if len(tried) > 1 and outcome.reason:
        others = ", ".join(other for other in tried if other != AS_GIVEN)
        outcome = Outcome(
            f"{outcome.reason}; also tried: {others}", None, outcome.scf_steps, outcome.wall_time_s
        )
    for name in (REPORT, KEPT_INCAR, PRINTED, OUTCAR, VASPRUN):
        (here / name).unlink(missing_ok=True)
    pairs = [(given / name, here / name) for name in INPUTS]
    pairs += [(folder / name, here / name) for name in (PRINTED, OUTCAR, VASPRUN)]
    pairs += [(folder / INCAR, here / KEPT_INCAR)] if rung != AS_GIVEN else []
    for source, target in pairs:
        if source.is_file() and source.resolve() != target.resolve():
            with files.whole(target) as temporary:
                shutil.copyfile(source, temporary)
    attempts = [{"rung": name, "reason": each.reason} for name, each in tried.items()]
    files.write_json(
        here / REPORT, {"seal": dict(seal), "rung": rung, "attempts": attempts, "outcome": asdict(outcome)}
    )
    shutil.rmtree(here / SCRATCH)
    return _row(here.name, outcome, rung)


def _finished(here: Path, seal: Mapping[str, str]) -> Row | None:
    """Return the row of a run that an earlier attempt finished on these inputs; None if it has to be run."""
    if not (here / REPORT).is_file():
        return None
    report = files.read_json(here / REPORT)
    outcome = Outcome(**report["outcome"])
    if report["seal"] != seal or outcome.reason.startswith(TIMEOUT):
        return None
    if not outcome.reason and judge(here).energy_eV != outcome.energy_eV:  # its outputs were lost or changed
        return None
    return _row(here.name, outcome, report["rung"])


def _row(index: str, outcome: Outcome, rung: str) -> Row:
    status = REJECTED if outcome.reason else CONVERGED
    return Row(index, status, outcome.energy_eV, outcome.scf_steps, outcome.wall_time_s, rung, outcome.reason)


def _content(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def _tail(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LAST_BYTES))
        return file.read().decode(errors="replace")
