"""The trail each result leaves: inputs' hashes, settings, versions, commit, device and wall time."""

import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from hopline.files import read_json, sha256, write_json

PACKAGES = ("numpy", "scipy", "ase", "torch", "chgnet", "mace-torch", "scikit-learn", "pymatgen", "h5py")


@dataclass(frozen=True)
class Run:
    """One run of a script, opened before its work starts so that the wall time is real."""

    settings: Mapping[str, Any]
    inputs: tuple[Path, ...]
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    clock_s: float = field(default_factory=time.monotonic)

    @cached_property
    def inputs_sha256(self) -> dict[str, str]:
        """Hash of each input that is a file, taken once: inputs may be large and results several."""
        return {str(path): sha256(path) for path in self.inputs if path.is_file()}

    @cached_property
    def versions(self) -> dict[str, str]:
        """Versions of Python and of the packages that results depend on."""
        return _versions()

    def record(self) -> dict[str, Any]:
        """Return the provenance of a result made by this run, up to now."""
        return {
            "script": Path(sys.argv[0]).name,
            "settings": {key: _text(value) for key, value in self.settings.items()},
            "inputs_sha256": self.inputs_sha256,
            "versions": self.versions,
            "commit": _commit(),
            "device": device(),
            "started": self.started.isoformat(timespec="seconds"),
            "wall_time_s": round(time.monotonic() - self.clock_s, 3),
        }

    def write_beside(self, *results: str | os.PathLike[str]) -> None:
        """Write ``RESULT.provenance.json`` beside each result."""
        record = self.record()
        for result in results:
            write_json(f"{result}.provenance.json", record)


def start(settings: Mapping[str, Any], inputs: Iterable[str | os.PathLike[str]]) -> Run:
    """Open the record of a run that reads ``inputs`` under ``settings`` (a script's parsed flags)."""
    return Run(settings=dict(settings), inputs=tuple(Path(path) for path in inputs))


def sidecar_of(trajectory: str | os.PathLike[str]) -> Path:
    """Return where a trajectory's status, checks and provenance are kept: ``npt.json`` beside ``npt.h5``."""
    return Path(trajectory).with_suffix(".json")


def read_sidecar(trajectory: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what stands in a trajectory's sidecar, or nothing where it has none (a file from elsewhere)."""
    path = sidecar_of(trajectory)
    return read_json(path) if path.is_file() else {}


def device() -> str:
    """Name the processor that did the work: the CUDA card where torch is loaded and uses one, else the CPU."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()}, {os.cpu_count()} cores"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def peak_memory_MB() -> float:
    """Return the most memory (MB) that this process had so far: the card's where torch uses one, else the machine's."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 1e6, 1)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(kilobytes * 1024 / 1e6, 1)


def _text(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_text(item) for item in value]
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # an environment holds only its own stack
            continue
    return found


def _commit() -> str | None:
    """Return the repository's commit, with ``+`` if files differ from it; None outside a git checkout."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=here, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed else "")
