"""Refuse a trained potential that is not fit to be run: pairs pushed together, and a run hotter than any to come."""

import argparse
from pathlib import Path

import md_flags as flags
from hopline import console, files, frames, provenance
from hopline.dynamics.stage import Stage


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--potential", type=Path, required=True, help="card.json of the potential")
    add("--train", type=Path, required=True, help="its training frames (extended XYZ): elements and starts")
    add("--min-barrier-eV", type=float, required=True, help="least energy to climb before a hole, eV; 0: any")
    add(
        "--scan-from-ratio", type=float, required=True, help="shortest distance over the sum of the two radii"
    )
    add("--scan-points", type=int, required=True, help="number of distances that each pair is put at")
    add("--hot-temperature-K", type=float, required=True, help="temperature of the hot run, K")
    add("--hot-duration-ps", type=float, required=True, help="length of the hot run, ps")
    add("--timestep-fs", type=float, required=True, help="timestep of the hot run, fs")
    flags.add_thermostat(parser)
    flags.add_limits(parser)
    add("--stability", type=Path, required=True, help="JSON to write, if it is fit")
    add(
        "--scan",
        type=Path,
        required=True,
        help="CSV of the pairs' energies to write; .refused.csv if not fit",
    )
    return parser.parse_args(argv)


def main() -> None:
    """Examine, write the curves, and the verdict if it is good."""
    args = parse()
    run = provenance.start(vars(args), [args.potential, args.train])
    hot = Stage(
        "nvt", args.hot_temperature_K, args.timestep_fs, args.hot_duration_ps, args.frame_interval_fs,
        args.seed[0], friction_per_ps=args.friction_per_ps,
    )  # fmt: skip
    training = frames.read_labelled(args.train)
    from hopline.dynamics import stability
    from hopline.potentials.calculator import load_calculator

    scan = stability.Scan(args.min_barrier_eV, args.scan_from_ratio, args.scan_points)
    found = stability.examine(
        load_calculator(args.potential), training, scan=scan, hot=hot, limits=flags.limits(args)
    )
    # beside the rule's outputs, which Snakemake deletes where a rule fails
    refused, offending = (
        args.scan.with_suffix(".refused.csv"),
        args.stability.with_suffix(".offending.extxyz"),
    )
    # what an earlier model left must not pass for this one's
    for earlier in (args.stability, args.scan, refused, offending):
        earlier.unlink(missing_ok=True)
    faults = found.faults()
    files.write_table(refused if faults else args.scan, found.curves, digits=6)
    if found.offending:
        frames.write_frames(offending, [found.offending])
    if faults:
        raise console.InputError(
            f"{args.potential} is not fit to be run: {'; '.join(faults)}; the curves of all pairs: {refused}"
        )
    files.write_json(args.stability, found.figures())
    run.write_beside(args.stability)
    console.say(f"{args.stability}: fit to be run; hot run: {found.hot_run.reason}")


if __name__ == "__main__":
    console.run(main)
