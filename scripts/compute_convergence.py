"""Compute one frame at rising cutoffs and k-point meshes; errors against the densest of each, as tidy CSV."""

import argparse
import csv
from dataclasses import asdict
from pathlib import Path

from hopline import console, files, provenance
from write_espresso_inputs import add_settings


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=Path, required=True, help="extended XYZ")
    parser.add_argument("--row", type=int, default=0, help="which frame of it (default: the first)")
    parser.add_argument("--pseudopotentials", type=Path, required=True, help="folder of {element}.upf")
    add_settings(parser)
    parser.add_argument("--cutoffs-Ry", dest="cutoffs_Ry", type=float, nargs="+", default=[], metavar="RY")
    parser.add_argument("--meshes", nargs="+", default=[], metavar="2x2x2+111")
    parser.add_argument("--launcher", default="", help="what stands before pw.x (default: one process)")
    parser.add_argument("--pools", type=int, default=1, help="k-point pools (default 1)")
    parser.add_argument("--convergence", type=Path, required=True, help="CSV, one row per run")
    return parser.parse_args(argv)


def main() -> None:
    """Read, run, write."""
    args = parse()
    from hopline import frames
    from hopline.labels import convergence, espresso

    run = provenance.start(vars(args), [args.frames])
    pool = frames.read_frames(args.frames)
    frame = espresso.pick(pool, [args.row], [""], where="--row")[0]
    runs = convergence.plan(
        espresso.settings_from(vars(args)), cutoffs_Ry=args.cutoffs_Ry, meshes=args.meshes
    )
    if not runs:
        raise console.InputError("nothing to vary: give --cutoffs-Ry, --meshes or both")
    upfs = espresso.find_pseudopotentials(args.pseudopotentials, frame.symbols)
    results = []
    outputs = convergence.run_plan(frame, runs, upfs, launcher=args.launcher, pools=args.pools)
    for (kind, settings), result in zip(runs, outputs, strict=True):
        results.append(result)
        said = f"{result.energy_eV:.6f} eV, {result.wall_time_s} s" if result.converged else result.reason
        at = f"{settings.wavefunction_cutoff_Ry:g} Ry, k {settings.kpoints}+{settings.kpoints_shift}"
        console.say(f"{len(results)}/{len(runs)} {kind}: {at}: {said}")
    rows = [asdict(point) for point in convergence.study(runs, results)]
    with files.whole(args.convergence) as temporary, temporary.open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    run.write_beside(args.convergence)


if __name__ == "__main__":
    console.run(main)
