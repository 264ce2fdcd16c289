"""Compute energies (eV) of isolated atoms with pw.x: spin-polarised, in a box with three different sides."""

import argparse
from dataclasses import asdict
from pathlib import Path

from hopline import console, files, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--elements", nargs="+", metavar="EL")
    which.add_argument("--frames", type=Path, nargs="+", default=[], help="extended XYZ whose elements count")
    parser.add_argument("--pseudopotentials", type=Path, required=True, help="folder of {element}.upf")
    parser.add_argument("--functional", default="PBE", help="what the pseudopotentials were made with (PBE)")
    parser.add_argument("--wavefunction-cutoff-Ry", dest="wavefunction_cutoff_Ry", type=float, required=True)
    parser.add_argument("--density-cutoff-Ry", dest="density_cutoff_Ry", type=float, required=True)
    parser.add_argument("--scf-threshold-Ry", dest="scf_threshold_Ry", type=float, required=True)
    parser.add_argument("--mixing-beta", type=float, required=True)
    parser.add_argument("--max-scf-steps", type=int, required=True)
    parser.add_argument("--launcher", default="", help="what stands before pw.x (default: one process)")
    parser.add_argument("--references", type=Path, required=True, help="JSON")
    return parser.parse_args(argv)


def main() -> None:
    """Run each atom, write the energies."""
    args = parse()
    from hopline import frames
    from hopline.labels import espresso

    run = provenance.start(vars(args), args.frames)
    pool = [frame for path in args.frames for frame in frames.read_frames(path)]
    elements = args.elements or sorted({symbol for frame in pool for symbol in frame.symbols})
    upfs = espresso.find_pseudopotentials(args.pseudopotentials, elements)
    energies_eV, settings, levels = {}, {}, {}
    for element in elements:
        chosen = espresso.atom_settings(vars(args), element)
        result = espresso.run_atom(element, chosen, upfs, launcher=args.launcher)
        energies_eV[element], settings[element] = result.energy_eV, asdict(chosen)
        levels[element] = espresso.level_of_theory(chosen, {element: upfs[element]})
        console.say(
            f"{element}: {result.energy_eV:.6f} eV, {result.scf_steps} SCF steps, {result.wall_time_s} s"
        )
    content = {"energies_eV": energies_eV, "level_of_theory": levels, "settings": settings}
    files.write_json(args.references, {**content, "box_A": espresso.ATOM_BOX_A, "energy_kind": "free"})
    run.write_beside(args.references)


if __name__ == "__main__":
    console.run(main)
