"""Build a host supercell with mobile atoms in its widest voids; lengths in A."""

import argparse
from pathlib import Path

from hopline import console, frames, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    host = parser.add_mutually_exclusive_group(required=True)
    host.add_argument("--prototype", help="crystal prototype: rocksalt, fcc, bcc, hcp, ...")
    host.add_argument("--file", type=Path, help="host crystal in any structure format (CIF, POSCAR, ...)")
    parser.add_argument("--species", nargs="+", default=[], help="chemical symbols in the prototype's order")
    parser.add_argument(
        "--lattice-constants-A", nargs="+", type=float, default=[], help="a, or a and c, in A"
    )
    parser.add_argument(
        "--cell", choices=("conventional", "primitive"), default="conventional", help="unit cell"
    )
    parser.add_argument(
        "--supercell", nargs=3, type=int, required=True, help="repetitions along the cell vectors"
    )
    parser.add_argument("--mobile", required=True, help="mobile species")
    parser.add_argument("--count", type=int, required=True, help="mobile atoms added to the supercell")
    parser.add_argument("--system", required=True, help="name of the system")
    parser.add_argument("--composition", required=True, help="name of the composition")
    parser.add_argument("--structure", type=Path, required=True, help="extended XYZ to write")
    return parser.parse_args(argv)


def main() -> None:
    """Build, fill and write one structure."""
    args = parse()
    run = provenance.start(vars(args), [args.file] if args.file else [])
    from hopline import structures

    if min(args.supercell) < 1:
        raise console.InputError(f"--supercell must be three numbers of 1 or more, got {args.supercell}")
    if args.file:
        host = structures.read_host(args.file)
    elif args.species and args.lattice_constants_A:
        host = structures.build_prototype(
            args.prototype, args.species, args.lattice_constants_A, conventional=args.cell == "conventional"
        )
    else:
        raise console.InputError("a prototype needs --species and --lattice-constants-A")
    atoms = structures.add_interstitials(host.repeat(args.supercell), args.mobile, args.count)
    atoms.info |= {"system": args.system, "composition": args.composition}
    frames.write_frames(args.structure, [atoms])
    run.write_beside(args.structure)
    console.say(
        f"{args.structure}: {atoms.get_chemical_formula()}, {len(atoms)} atoms, {atoms.get_volume():.1f} A^3"
    )


if __name__ == "__main__":
    console.run(main)
