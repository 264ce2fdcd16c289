"""Draw which rule needs which (docs/dag.svg), coloured by rule file: python docs/draw_rules.py. Needs graphviz."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COLOURS = {
    "configurations": "#4477aa", "sampling": "#228833", "labels": "#aa3377", "potentials": "#ccbb44",
    "replay": "#ccbb44", "dynamics": "#66ccee", "diffusion": "#ee6677", "report": "#888888",
}  # fmt: skip


def main() -> None:
    """Ask Snakemake for the graph of the quickstart, redraw it from left to right, write the picture."""
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--configfile",
        "config/quickstart.yaml",
        "--config",
        "execution={batch: none}",  # how runs are cut into jobs is no part of the picture
        "--rulegraph",
        "dot",
    ]
    graph = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = dict(re.findall(r'(\d+)\[label = "(\w+)"', graph))
    stage_of = {
        rule: path.stem
        for path in (ROOT / "rules").glob("*.smk")
        for rule in re.findall(r"^(?:use )?rule (\w+)", path.read_text(), flags=re.MULTILINE)
    }
    nodes = [
        f'{number} [label="{name.replace("_", " ")}", color="{COLOURS[stage_of[name]]}"];'
        for number, name in names.items()
        if name != "all"
    ]
    edges = [
        f"{start} -> {end};"
        for start, end in re.findall(r"(\d+) -> (\d+)", graph)
        if "all" not in (names[start], names[end])
    ]
    style = (
        "rankdir=LR; bgcolor=white; nodesep=0.15; ranksep=0.35; "
        'node [shape=box, style=rounded, penwidth=2, fontname="Helvetica", fontsize=11]; '
        'edge [color="#777777", arrowsize=0.7];'
    )
    dot = "\n".join(["digraph hopline {", style, *nodes, *edges, "}"])
    # what follows from other edges only hides them
    reduced = subprocess.run(["tred"], input=dot, capture_output=True, text=True, check=True).stdout
    subprocess.run(
        ["dot", "-Tsvg", "-o", str(ROOT / "docs" / "dag.svg")], input=reduced, text=True, check=True
    )


if __name__ == "__main__":
    main()
