"""Compute one frame at rising cutoffs and k-point meshes; errors against the densest of each, as tidy CSV."""

import argparse
from dataclasses import asdict
from pathlib import Path

import dft_flags
from hopline import console, files, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=Path, required=True, help="extended XYZ")
    parser.add_argument("--row", type=int, default=0, help="which frame of it (default: the first)")
    dft_flags.add_settings(parser)
    parser.add_argument("--cutoffs-Ry", dest="cutoffs_Ry", type=float, nargs="+", default=[], metavar="RY")
    parser.add_argument("--meshes", nargs="+", default=[], metavar="2x2x2+111")
    dft_flags.add_launcher(parser)
    parser.add_argument("--pools", type=int, default=1, help="k-point pools (default 1)")
    parser.add_argument("--convergence", type=Path, required=True, help="CSV, one row per run")
    return parser.parse_args(argv)


def main() -> None:
    """Read, run, write."""
    args = parse()
    from hopline import frames
    from hopline.labels import convergence, espresso, pseudopotentials, selection
    from hopline.labels.espresso_run import Launch

    run = provenance.start(vars(args), [args.frames])
    pool = frames.read_frames(args.frames)
    frame = selection.pick(pool, [args.row], [""], where="--row")[0]
    upfs = pseudopotentials.find_pseudopotentials(args.pseudopotentials, frame.symbols)
    settings = espresso.settings_from(vars(args), upfs)
    runs = convergence.plan(settings, cutoffs_Ry=args.cutoffs_Ry, meshes=args.meshes)
    if not runs:
        raise console.InputError("nothing to vary: give --cutoffs-Ry, --meshes or both")
    results = []
    launch = Launch(launcher=args.launcher, pools=args.pools)
    outputs = convergence.run_plan(frame, runs, upfs, launch=launch)
    for (kind, settings), result in zip(runs, outputs, strict=True):
        results.append(result)
        said = f"{result.energy_eV:.6f} eV, {result.wall_time_s} s" if result.converged else result.reason
        at = f"{settings.wavefunction_cutoff_Ry:g} Ry, k {espresso.mesh_of(settings, frame)}+{settings.kpoints_shift}"
        console.say(f"{len(results)}/{len(runs)} {kind}: {at}: {said}")
    rows = [asdict(point) for point in convergence.study(frame, runs, results)]
    files.write_rows(args.convergence, list(rows[0]), rows)
    run.write_beside(args.convergence)


if __name__ == "__main__":
    console.run(main)
