"""Select a replay set from labelled pre-training frames of any number, and split it by material."""

import argparse
from pathlib import Path

from hopline import console, files, frames, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--source", type=Path, nargs="+", required=True, help="files, compressed or not, and folders of them")
    add("--format", required=True, help="format, e.g. mptrj; auto tells each file by its content")
    elements = {
        "only": "of these elements alone",
        "any": "with one of these",
        "without": "with none of these",
    }
    for name, which in elements.items():
        add(f"--{name}", nargs="+", default=[], help=f"take frames {which} (default: any frames)")
    add(
        "--stress", choices=("required", "optional"), required=True, help="frames without: rejected, or taken"
    )
    limits = {"min_distance_A": "with atoms closer, A", "max_force_eV_per_A": "with a force above, eV/A"}
    for name, kind in limits.items():
        add(f"--{name.replace('_', '-')}", dest=name, type=float, required=True, help=f"frames {kind}: out")
    add("--max-rejected-fraction", type=float, required=True, help="stop above this share of rejected frames")
    add("--level-of-theory", help="level of theory of frames that do not say theirs")
    add("--energy-kind", choices=("free", "sigma->0"), help="kind of energy of frames that do not say theirs")
    add(
        "--select", choices=("random", "farthest-point", "direct"), required=True, help="at random, or spread"
    )
    add("--frames", type=int, required=True, help="frames of the three sets together")
    add("--pool-frames", type=int, help="random frames to select from (farthest-point, direct)")
    add("--encoder", help="encoder of the pool (farthest-point, direct), e.g. chgnet")
    add("--valid-fraction", type=float, required=True, help="share of the materials that validates")
    add("--test-fraction", type=float, required=True, help="share that shows what was forgotten")
    add("--seed", type=int, required=True, help="seed of the sample")
    for name in ("train", "valid", "test"):
        add(f"--{name}", type=Path, required=True, help="extended XYZ to write")
    add("--replay", type=Path, required=True, help="JSON that describes the set, to write")
    return parser.parse_args(argv)


def main() -> None:
    """Sample, select, split, and write."""
    args = parse()
    run = provenance.start(vars(args), args.source)
    from hopline.finetuning import replay, replay_pool
    from hopline.labels.ingest import Limits
    from hopline.sampling import encoders

    replay.refuse_unfit(args.select, n_frames=args.frames, pool_frames=args.pool_frames, encoder=args.encoder)
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
    console.say(f"{args.replay}: {replay.told(description, asked_for=args.frames)}")


if __name__ == "__main__":
    console.run(main)
