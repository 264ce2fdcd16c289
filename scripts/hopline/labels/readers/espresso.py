"""pw.x runs: what was printed, or the XML that was left."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from hopline.labels import espresso_output, espresso_xml, text
from hopline.labels.candidates import Broken, Candidate

FORMAT = "espresso"
OUTPUT, XML = "pw.out", "data-file-schema.xml"
SUM_PREFIX_LENGTH = 8
MAX_BYTES = 128 << 20
"""Some 10,000 steps of a 200-atom relaxation; an output is read whole, since its end decides."""


MAX_TAGS = 1_000_000


def recognises(name: str, head: bytes) -> bool:
    """Tell whether a file is what pw.x printed, or the XML it left; by name where it is empty."""
    by_name = name in {OUTPUT, XML} or name.endswith(".pwo")
    return espresso_output.START.encode() in head or is_xml(head) or (by_name and b"<" not in head[:1])


def is_xml(head: bytes) -> bool:
    """Tell whether a file is pw.x's XML."""
    return head.lstrip().startswith(b"<") and b"espresso" in head[:1024]


def read(path: Path) -> Iterator[Candidate]:
    """Yield the one calculation of a run, its last."""
    content = text.text(path, max_bytes=MAX_BYTES)
    if is_xml(content[:1024].encode()) and content.count("<") > MAX_TAGS:
        raise Broken(f"more than {MAX_TAGS} tags: no XML of one calculation")
    parse = espresso_xml.parse_xml if is_xml(content[:1024].encode()) else espresso_output.parse_output
    result = parse(content)
    yield Candidate(
        source=str(path),
        frame=0,
        atoms=result.atoms,
        reason=result.reason,
        energy_eV=result.energy_eV,
        forces_eV_per_A=result.forces_eV_per_A,
        stress=result.stress_eV_per_A3,
        level_of_theory=result.theory,
        energy_kind=result.energy_kind,
        pseudopotentials=_short(result.pseudopotentials),
    )


def _short(pseudopotentials: Mapping[str, str]) -> dict[str, str]:
    """Return pseudopotentials as a level of theory spells them: the output knows their sums, the XML their files."""
    is_sum = re.compile(r"[0-9a-f]{32}").fullmatch
    return {
        element: f"md5 {name[:SUM_PREFIX_LENGTH]}" if is_sum(name) else name
        for element, name in pseudopotentials.items()
    }
