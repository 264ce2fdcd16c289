"""One pw.x run in a folder of its own: started, watched, stopped at a whole charge density, and gone on with.

What pw.x 6.7 keeps was found by killing it: whatever ``disk_io`` says, nothing to go on from is written before the
SCF cycle ends or is stopped through the file ``hopline.EXIT``; then the charge density is. So every stop goes through
that file, and long runs are stopped and gone on with from time to time, in case somebody pulls the plug.
"""

import math
import shlex
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hopline import files, stopping
from hopline.console import InputError, Stopped, say
from hopline.labels import processes
from hopline.labels.espresso import PREFIX, SCRATCH, with_keywords
from hopline.labels.espresso_output import (
    START,
    TIMEOUT_NOTE,
    PwOutput,
    is_whole,
    parse_output,
    was_asked_to_stop,
)

EXECUTABLE = "pw.x"
CONTAINERS = {"apptainer", "singularity", "docker", "podman"}
"""Behind one of these pw.x lies inside an image and need not be on this machine's PATH."""
INPUT, OUTPUT, RUNNING = "pw.in", "pw.out", "running.out"
CHECKPOINT_S = 900.0
"""First stop for the density's sake; each later one after twice the time, so that a slow run always gets further."""
FULL_DISK_BYTES = 1 << 16
SIZE_LIMIT = (-signal.SIGXFSZ, 128 + signal.SIGXFSZ)


@dataclass(frozen=True)
class Launch:
    """How pw.x is started, and until when.

    ``launcher`` stands before pw.x (``mpirun -np 4``), ``pools`` is its -nk. A run longer than ``timeout_s`` is given
    up: that is a result. At ``stop_at_s`` on the monotonic clock the job's time is over: the run is stopped to be gone
    on with. Every ``checkpoint_s``, doubling, the run is stopped and gone on with at once.
    """

    launcher: str = ""
    pools: int = 1
    timeout_s: float = math.inf
    stop_at_s: float = math.inf
    checkpoint_s: float = CHECKPOINT_S


def run(
    text: str, folder: Path, *, launch: Launch, density_of: Path | None = None, keep_density: bool = False
) -> PwOutput:
    """Run pw.x on an input in a folder and return what it says; keep what it prints as ``pw.out``.

    A run that fails or does not converge is a result too: its output is kept. Where the folder holds a finished run of
    the same input, that is read; where it holds the charge density of one that was stopped or given up, or
    ``density_of`` names the folder of another run that kept its own, pw.x starts from it. A density that pw.x cannot
    read is thrown away, and so is that of a finished run unless ``keep_density``: it is large.

    Raises
    ------
    InputError
        If there is no pw.x or no launcher, if pw.x never started, or if the disk is full.
    Stopped
        If a signal (see `stopping.stoppable`) or the end of the job's time stopped the run.
    """
    given, output = folder / INPUT, folder / OUTPUT
    if given.is_file() and given.read_text() == text:
        printed = output.read_text(errors="replace") if output.is_file() else TIMEOUT_NOTE
        if TIMEOUT_NOTE not in printed:
            return parse_output(printed)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        with files.whole(given) as temporary:
            temporary.write_text(text)
        if density_of is not None:
            shutil.copytree(_densities(density_of), _densities(folder), ignore=shutil.ignore_patterns("wfc*"))
    printed = _run_to_its_end(text, folder, launch)
    with files.whole(output) as temporary:
        temporary.write_text(printed)
    (folder / RUNNING).unlink()
    if not keep_density and TIMEOUT_NOTE not in printed:
        shutil.rmtree(folder / SCRATCH, ignore_errors=True)
    return parse_output(printed)


def _run_to_its_end(text: str, folder: Path, launch: Launch) -> str:
    """Return what pw.x prints in its last start; a start that dies without a word is given a second chance."""
    command = _command(text, launch)
    give_up_s = time.monotonic() + launch.timeout_s
    checkpoint_s, silent_deaths = launch.checkpoint_s, 0
    while True:
        if stopping.asked_to_stop() or time.monotonic() >= launch.stop_at_s:
            raise Stopped(f"{folder}: stopped; run the same command again to go on")
        from_density = any(_densities(folder).glob("charge-density.*"))
        if from_density:
            say(f"{folder}: starts from the charge density that lies there")
        (folder / "start.in").write_text(_startable(text, from_density=from_density))
        end_at_s = min(give_up_s, launch.stop_at_s)
        status = _start_and_watch(command, folder, checkpoint_s=checkpoint_s, end_at_s=end_at_s)
        printed = (folder / RUNNING).read_text(errors="replace")
        if is_whole(printed) and not was_asked_to_stop(printed):
            return printed
        if stopping.asked_to_stop() or time.monotonic() >= launch.stop_at_s:
            continue
        if time.monotonic() >= give_up_s:
            return f"{printed}\n     {TIMEOUT_NOTE} {launch.timeout_s:g} s\n"
        if is_whole(printed):
            checkpoint_s *= 2
        elif _deserves_another_start(folder, status, printed, from_density=from_density):
            silent_deaths += not from_density
        else:
            _refuse_no_start(folder, command, printed)
            return printed
        if silent_deaths > 1:
            return printed


def _deserves_another_start(folder: Path, status: int, printed: str, *, from_density: bool) -> bool:
    """Tell whether a start that failed says nothing about the input: its density or an accident may be to blame."""
    full = "No space left on device" in printed or shutil.disk_usage(folder).free < FULL_DISK_BYTES
    if full or status in SIZE_LIMIT:
        raise InputError(f"{folder}: no space is left for what pw.x writes: free some, then run this again")
    if START not in printed:
        return False
    if from_density:
        say(f"{folder}: pw.x ended with that charge density, which is thrown away: once more from scratch")
        shutil.rmtree(folder / SCRATCH)
        return True
    if "Error in routine" in printed:
        return False
    say(f"{folder}: pw.x ended without a word (status {status})")
    return True


def _refuse_no_start(folder: Path, command: Sequence[str], printed: str) -> None:
    if START not in printed:
        last = next((line.strip() for line in reversed(printed.splitlines()) if line.strip()), "nothing")
        raise InputError(f"pw.x did not start in {folder} ({shlex.join(command)}), it printed: {last}")


def _densities(folder: Path) -> Path:
    return folder / SCRATCH / f"{PREFIX}.save"


def _startable(text: str, *, from_density: bool) -> str:
    """Return an input that keeps its files where they are looked for, whatever it says itself."""
    own = {"outdir": f"./{SCRATCH}", "prefix": PREFIX, "disk_io": "low"}
    text = with_keywords(text, "control", own)
    return with_keywords(text, "electrons", {"startingpot": "file"}) if from_density else text


def _command(text: str, launch: Launch) -> list[str]:
    before = shlex.split(launch.launcher)
    if before and shutil.which(before[0]) is None:
        raise InputError(f"the launcher {before[0]} is not on PATH: install it, or give another launcher")
    inside_image = any(Path(word).name in CONTAINERS for word in before)
    if not inside_image and shutil.which(EXECUTABLE) is None:
        raise InputError(
            "pw.x is not on PATH: install Quantum ESPRESSO (apt install quantum-espresso, "
            "conda install -c conda-forge qe, or a cluster's module)"
        )
    pools = min(launch.pools, _fewest_kpoints(text))
    return [*before, EXECUTABLE, *(["-nk", str(pools)] if pools > 1 else []), "-in", "start.in"]


def _fewest_kpoints(text: str) -> int:
    """Return how few k-points an input may come down to: pw.x refuses more pools than it has k-points."""
    words = text.partition("K_POINTS")[2].split()
    if words[:1] != ["automatic"]:
        return 1
    return math.ceil(math.prod(map(int, words[1:4])) / 2)  # time reversal joins k and -k


def _start_and_watch(command: Sequence[str], folder: Path, *, checkpoint_s: float, end_at_s: float) -> int:
    """Run pw.x in its folder and return its exit status; ask it to stop for a checkpoint, make it stop at the end."""
    stop_file = folder / SCRATCH / f"{PREFIX}.EXIT"
    stop_file.parent.mkdir(exist_ok=True)
    stop_file.unlink(missing_ok=True)
    return processes.watch(
        command,
        folder,
        output=folder / RUNNING,
        stop=stop_file.touch,
        stop_at_s=end_at_s,
        checkpoint_at_s=time.monotonic() + checkpoint_s,
    )
