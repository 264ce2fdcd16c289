"""Write the inputs of VASP's on-the-fly training: a ramp from 0 K, then one run at each temperature.

Langevin dynamics at constant pressure and fixed cell shape (VASP 6.4 or later); run_training.sh there runs it all and
leaves an ML_AB for ingest_labels.py.
"""

import argparse
from pathlib import Path

import dft_flags
from hopline import console, provenance


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--structure", type=Path, required=True, help="supercell to start from, extended XYZ")
    dft_flags.add_vasp_settings(parser)
    parser.add_argument("--ramp-temperature-K", type=float, required=True, help="end of the ramp, K")
    parser.add_argument("--ramp-duration-ps", type=float, required=True, help="length of the ramp, ps")
    parser.add_argument(
        "--temperatures-K", type=float, nargs="+", required=True, help="then each of these, K"
    )
    parser.add_argument("--duration-ps", type=float, required=True, help="length at each temperature, ps")
    parser.add_argument(
        "--timestep-fs",
        type=float,
        required=True,
        help="timestep, fs (VASP's makers advise 0.7 at most with H)",
    )
    parser.add_argument(
        "--friction-per-ps", type=float, required=True, help="Langevin friction of atoms and lattice, 1/ps"
    )
    parser.add_argument(
        "--potcars", type=Path, help="folder of your POTCARs, to check them now (default: later)"
    )
    parser.add_argument("--training", type=Path, required=True, help="folder of the stages and their script")
    return parser.parse_args(argv)


def main() -> None:
    """Read, write the stages."""
    args = parse()
    from hopline import frames
    from hopline.labels import vasp, vasp_training

    run = provenance.start(vars(args), [args.structure, args.presets])
    atoms = frames.read_frames(args.structure)[0]
    preset = vasp.with_tags(vasp.read_preset(args.presets, args.preset), args.incar)
    names = vasp_training.Plan.__dataclass_fields__
    plan = vasp_training.Plan(**{name: getattr(args, name) for name in names})
    level = vasp_training.write_training(args.training, atoms, preset, plan, potcar_folder=args.potcars)
    run.write_beside(args.training)
    console.say(f"{args.training}: {', '.join(stage.name for stage in vasp_training.stages(plan))}; {level}")


if __name__ == "__main__":
    console.run(main)
