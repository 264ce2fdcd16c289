"""Fit the Arrhenius line through diffusivities: activation energy (eV) and prefactor (cm^2/s)."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from hopline import console, files, provenance


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--diffusivity", nargs="+", type=Path, required=True, help="JSON results of estimate_diffusivity.py"
    )
    parser.add_argument("--arrhenius", type=Path, required=True, help="JSON result to write")
    return parser.parse_args(argv)


def main() -> None:
    """Read the diffusivities, fit, write."""
    args = parse()
    run = provenance.start(vars(args), args.diffusivity)
    from hopline.diffusion.arrhenius import fit_arrhenius, point_from_result

    points = [point_from_result(files.read_json(path), name=str(path)) for path in args.diffusivity]
    files.write_json(args.arrhenius, asdict(fit_arrhenius(points)))
    run.write_beside(args.arrhenius)


if __name__ == "__main__":
    console.run(main)
