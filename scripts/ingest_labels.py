"""Collect labelled frames from DFT outputs or data sets; what is left out is listed with the reason."""

import argparse
from pathlib import Path

from hopline import console, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--source", type=Path, nargs="+", required=True, help="files, compressed or not, and folders of them"
    )
    parser.add_argument("--frames", type=Path, required=True, help="accepted frames, extended XYZ")
    parser.add_argument("--rejected", type=Path, required=True, help="CSV: source, frame, frame_id, reason")
    parser.add_argument(
        "--format",
        default="auto",
        help="espresso, vasprun, outcar, ml_ab, extxyz, deepmd, ase-db, mptrj; auto tells by content",
    )
    parser.add_argument("--max-rejected-fraction", type=float, default=0.2, help="stop above this fraction")
    parser.add_argument(
        "--min-distance-A", dest="min_distance_A", type=float, default=0.7, help="closer atoms: rejected"
    )
    parser.add_argument(
        "--max-force-eV-per-A", dest="max_force_eV_per_A", type=float, default=50.0, help="above: rejected"
    )
    parser.add_argument(
        "--max-energy-deviation-eV-per-atom",
        dest="max_energy_deviation_eV_per_atom",
        type=float,
        default=0.5,
        help="further from the fit of the energies to the compositions: rejected",
    )
    parser.add_argument(
        "--elements", nargs="+", default=[], help="frames with others are rejected (default: any)"
    )
    parser.add_argument("--host", type=Path, help="structure file whose elements are added to these")
    parser.add_argument("--require-stress", action="store_true", help="reject frames without stress")
    parser.add_argument("--system", help="system of frames that do not say theirs")
    parser.add_argument("--composition", help="composition of frames that do not say theirs")
    parser.add_argument("--level-of-theory", help="level of theory of frames that do not say theirs")
    parser.add_argument(
        "--energy-kind", choices=("free", "sigma->0"), help="kind of energy of frames that do not say theirs"
    )
    return parser.parse_args(argv)


def main() -> None:
    """Read, judge, write."""
    args = parse()
    from hopline import frames, structures
    from hopline.labels import ingest

    run = provenance.start(vars(args), args.source)
    host = {*structures.read_host(args.host).symbols} if args.host else set()
    limits = {field: getattr(args, field) for field in ingest.Limits.__dataclass_fields__}
    result = ingest.ingest(
        args.source,
        file_format=args.format,
        limits=ingest.Limits(**limits | {"elements": tuple(sorted({*args.elements, *host}))}),
        defaults={
            key: getattr(args, key) for key in ("system", "composition", "level_of_theory", "energy_kind")
        },
    )
    # an accepted set of an earlier run must not pass for this one's
    args.frames.unlink(missing_ok=True)
    ingest.write_rejected(args.rejected, result.rejected)
    run.write_beside(args.rejected)
    if result.rejected:
        console.say(ingest.table(result.rejected))
    ingest.refuse_unfit(result, max_rejected_fraction=args.max_rejected_fraction)
    frames.write_frames(args.frames, result.accepted)
    run.write_beside(args.frames)
    bare = sum(frames.STRESS not in frame.info for frame in result.accepted)
    console.say(
        f"{len(result.accepted)} accepted ({bare} without stress), {len(result.rejected)} rejected, "
        f"{result.found} found; level of theory: {frames.level_of_theory(result.accepted)}"
    )


if __name__ == "__main__":
    console.run(main)
