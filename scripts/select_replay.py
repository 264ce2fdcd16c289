"""Select a replay set from labelled pre-training frames of any number, and split it by material."""

import argparse
from pathlib import Path

from hopline import console, files, frames, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--source", type=Path, nargs="+", required=True, help="files, compressed or not, and folders of them")
    add(
        "--format",
        required=True,
        help="format of the source, e.g. mptrj; auto tells each file by its content",
    )
    add("--only", nargs="+", default=[], help="take frames of these elements alone (default: any)")
    add("--any", nargs="+", default=[], help="take frames with at least one of these")
    add("--without", nargs="+", default=[], help="take frames with none of these")
    add("--stress", choices=("required", "optional"), required=True, help="what of frames without stress")
    add("--min-distance-A", dest="min_distance_A", type=float, required=True, help="closer atoms: rejected")
    add("--max-force-eV-per-A", dest="max_force_eV_per_A", type=float, required=True, help="above: rejected")
    add("--max-rejected-fraction", type=float, required=True, help="stop above this share of rejected frames")
    add("--level-of-theory", help="level of theory of frames that do not say theirs")
    add("--energy-kind", choices=("free", "sigma->0"), help="kind of energy of frames that do not say theirs")
    add("--select", choices=("random", "farthest-point", "direct"), required=True, help="how to choose")
    add("--frames", type=int, required=True, help="frames of the three sets together")
    add("--pool-frames", type=int, help="random frames to select from (farthest-point, direct)")
    add("--encoder", help="encoder of the pool (farthest-point, direct), e.g. chgnet")
    add("--valid-fraction", type=float, required=True, help="share for validation of what is not test")
    add("--test-fraction", type=float, required=True, help="share that will show what was forgotten")
    add("--seed", type=int, required=True, help="seed of sample and split")
    for name in ("train", "valid", "test"):
        add(f"--{name}", type=Path, required=True, help="extended XYZ to write")
    add("--replay", type=Path, required=True, help="JSON that describes the set, to write")
    args = parser.parse_args(argv)
    if args.select != "random" and not (args.encoder and args.pool_frames):
        raise console.InputError(f"--select {args.select} needs --encoder and --pool-frames")
    if args.frames < 10:  # noqa: PLR2004
        raise console.InputError(f"--frames must be 10 or more, got {args.frames}")
    if args.select != "random" and args.pool_frames < args.frames:
        raise console.InputError(
            f"--pool-frames must be --frames ({args.frames}) or more: it is selected from"
        )
    return args


def main() -> None:
    """Sample, select, split, and write."""
    args = parse()
    run = provenance.start(vars(args), args.source)
    from hopline.finetuning import replay, replay_pool
    from hopline.labels.ingest import Limits
    from hopline.sampling import encoders

    pool = replay_pool.gather(
        args.source,
        file_format=args.format,
        elements=replay_pool.Elements(tuple(args.only), tuple(args.any), tuple(args.without)),
        limits=Limits(
            min_distance_A=args.min_distance_A,
            max_force_eV_per_A=args.max_force_eV_per_A,
            max_energy_deviation_eV_per_atom=float("inf"),
            require_stress=args.stress == "required",
        ),
        most=args.frames if args.select == "random" else args.pool_frames,
        seed=args.seed,
        max_rejected_fraction=args.max_rejected_fraction,
        defaults={"level_of_theory": args.level_of_theory, "energy_kind": args.energy_kind},
    )
    chosen = replay.assemble(
        pool,
        select=args.select,
        n_frames=args.frames,
        valid_fraction=args.valid_fraction,
        test_fraction=args.test_fraction,
        seed=args.seed,
        encode=lambda candidates: encoders.encode(candidates, args.encoder),
    )
    for name in ("train", "valid", "test"):
        frames.write_frames(getattr(args, name), getattr(chosen, name))
    description = replay.describe(chosen, pool)
    sha256 = {name: files.sha256(getattr(args, name)) for name in ("train", "valid", "test")}
    settings = {"select": args.select, "frames_asked_for": args.frames, "seed": args.seed}
    files.write_json(args.replay, settings | description | {"sha256": sha256})
    run.write_beside(args.replay)
    for kind in description["rejected"]:
        console.say(f"rejected: {kind['frames']} times {kind['reason']} (first {kind['example']})")
    counts = ", ".join(f"{count} {name}" for name, count in description["frames"].items())
    total = sum(description["frames"].values())
    fewer = f", {args.frames} were asked for" if total < args.frames else ""
    fewer += f", {chosen.dropped} are like one held out and in none" if chosen.dropped else ""
    console.say(
        f"{args.replay}: {counts} of {pool.fit} fit frames ({pool.found} found){fewer}; energies "
        f"{' and '.join(kind for kind, n in description['energies'].items() if n == total)}"
    )


if __name__ == "__main__":
    console.run(main)
