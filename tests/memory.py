"""The largest memory of a process, as Linux knows it of that process alone.

``ru_maxrss`` will not do: a child that a large process starts inherits the parent's, through the fork.
"""

from pathlib import Path


def peak_memory_kB() -> int:
    """Return the largest resident memory that this process has had since its program began, kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
