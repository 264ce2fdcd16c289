"""Write requirements.lock and requirements-dev.lock from what is installed in the running environment.

To raise a version: .venv/bin/python -m pip install NAME==VERSION, then make lock, then make test.
"""

import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ENVS = Path(__file__).resolve().parent
HEADER = (
    "# Written by `make lock` from {source} and the tested environment (Python 3.11); do not edit by hand.\n"
)


def direct(source: str) -> list[Requirement]:
    """Return the requirements that a .in file names."""
    lines = (line.partition("#")[0].strip() for line in (ENVS / source).read_text().splitlines())
    return [Requirement(line) for line in lines if line]


def closure(requirements: list[Requirement]) -> dict[str, str]:
    """Return name and version, without a local suffix such as +cpu, of all that the requirements pull in."""
    found: dict[str, str] = {}
    extras_seen: set[tuple[str, str]] = set()
    queue = [(requirement, extra) for requirement in requirements for extra in ("", *requirement.extras)]
    while queue:
        requirement, extra = queue.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in extras_seen:
            continue
        extras_seen.add((name, extra))
        distribution = metadata.distribution(name)
        found[name] = re.sub(r"\+.*", "", distribution.version)
        for line in distribution.requires or []:
            child = Requirement(line)
            if child.marker is None or child.marker.evaluate({"extra": extra}):
                queue += [(child, child_extra) for child_extra in ("", *child.extras)]
    return found


def write(source: str, pins: dict[str, str]) -> None:
    """Write one lock file, sorted by name."""
    text = HEADER.format(source=source) + "".join(f"{name}=={pins[name]}\n" for name in sorted(pins))
    (ENVS / source).with_suffix(".lock").write_text(text)


def main() -> None:
    """Write both lock files; the second holds only what the first does not."""
    runtime = closure(direct("requirements.in"))
    everything = closure([*direct("requirements.in"), *direct("requirements-dev.in")])
    write("requirements.in", runtime)
    write("requirements-dev.in", {name: everything[name] for name in everything.keys() - runtime.keys()})


if __name__ == "__main__":
    main()
