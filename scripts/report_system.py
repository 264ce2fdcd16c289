"""Report one system on one self-contained HTML page, readable offline."""

import argparse
from pathlib import Path

from hopline import console, files, provenance

TEMPLATE = Path(__file__).resolve().parents[1] / "resources/report/report.html.j2"
KINDS = {
    "structures": "structures/{composition}.extxyz",
    "cards": "potentials/{potential}/card.json",
    "evaluations": "potentials/{potential}/evaluation.json",
    "predictions": "potentials/{potential}/predictions.csv",
    "further": "potentials/{potential}/evaluations/{test_set}.json",
    "stability": "potentials/{potential}/stability.json",
    "committees": "committees/{committee}.json",
    "training": "potentials/{potential}/training.csv",
    "coverage": "sampling/{dataset}/coverage.json",
    "maps": "sampling/{dataset}/map.csv",
    "datasets": "datasets/{dataset}/dataset.json",
    "rejected": "labels/{dataset}/rejected.csv",
    "sidecars": "dynamics/{potential}/{composition}/{temperature}K/{npt,nvt,nve-N}.json, configurations/.../*K.json",
    "diffusivities": "diffusion/{potential}/{composition}/{temperature}K.json",
    "curves": "diffusion/{potential}/{composition}/{temperature}K.curve.csv",
    "correlations": "diffusion/{potential}/{composition}/{temperature}K.rdf.csv",
    "arrhenius": "diffusion/{potential}/{composition}/arrhenius.json",
}
"""Kinds of files the report reads, each known by the folders it lies in; any may be missing."""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=f"{__doc__} Potentials, compositions and temperatures are read from the files' folders."
    )
    parser.add_argument("--system", required=True, help="name of the system")
    parser.add_argument("--host", help="host crystal, as the title shall say it (default: the system's name)")
    parser.add_argument("--mobile", help="mobile species (default: that of the diffusivities)")
    for kind, place in KINDS.items():
        parser.add_argument(f"--{kind}", type=Path, nargs="*", default=[], help=f".../{place}")
    parser.add_argument(
        "--template", type=Path, default=TEMPLATE, help="page template (default: Hopline's own)"
    )
    parser.add_argument("--report", type=Path, required=True, help="HTML page to write")
    return parser.parse_args(argv)


def main() -> None:
    """Read, render, write."""
    args = parse()
    given = {kind: getattr(args, kind) for kind in KINDS}
    run = provenance.start(vars(args), [path for paths in given.values() for path in paths])
    from hopline.report.inputs import read_material
    from hopline.report.page import render

    material = read_material(args.system, host=args.host, mobile=args.mobile, **given)
    html = render(material, args.template)
    with files.whole(args.report) as temporary:
        temporary.write_text(html, encoding="utf-8")
    run.write_beside(args.report)
    console.say(f"{args.report}: {len(html) / 1e6:.1f} MB, {len(material.diffusivities)} diffusivities")


if __name__ == "__main__":
    console.run(main)
