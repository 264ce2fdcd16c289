"""Flags that the scripts share which write or run DFT calculations, spelt once."""

import argparse
import math
from pathlib import Path


def add_batch(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a batch of runs."""
    parser.add_argument("--inputs", type=Path, required=True, help="folder of run folders 0000, 0001, ...")
    parser.add_argument("--indices", nargs="+", required=True, metavar="0000", help="run folders in it")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs, of the same names")
    parser.add_argument("--table", type=Path, required=True, help="CSV, a row a frame; appears at the end")
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=math.inf,
        help="give a run up after so many seconds (default: never)",
    )
    add_launcher(parser)
    add_time_limit(parser)


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add how a program is started."""
    parser.add_argument(
        "--launcher",
        nargs="?",
        const="",
        default="",
        help="what stands before the program, e.g. 'mpirun -np 4' (default: nothing, one process)",
    )


def add_time_limit(parser: argparse.ArgumentParser) -> None:
    """Add how long a job may take that can be gone on with."""
    parser.add_argument(
        "--max-seconds",
        type=float,
        default=math.inf,
        help="seconds that the job has; the run in hand is stopped a little before (default: Slurm's limit)",
    )


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add which frames inputs are written for."""
    parser.add_argument("--frames", type=Path, required=True, help="pool of frames, extended XYZ")
    parser.add_argument(
        "--selection", type=Path, help="selection.csv with rows of the pool; without it: every frame"
    )
    parser.add_argument("--system", help="system of frames that do not say theirs")
    parser.add_argument("--composition", help="composition of frames that do not say theirs")
    parser.add_argument("--inputs", type=Path, required=True, help="folder of run folders 0000, 0001, ...")


def add_atoms(parser: argparse.ArgumentParser) -> None:
    """Add which isolated atoms are run, and where."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--elements", nargs="+", metavar="EL")
    which.add_argument("--frames", type=Path, nargs="+", default=[], help="extended XYZ whose elements count")
    parser.add_argument(
        "--runs", type=Path, help="folder of the runs (default: beside the JSON, {name}.runs)"
    )
    parser.add_argument("--references", type=Path, required=True, help="JSON")
    add_launcher(parser)
    add_time_limit(parser)


def add_cutoffs(parser: argparse.ArgumentParser) -> None:
    """Add what an isolated atom in pw.x needs too: pseudopotentials, cutoffs and the SCF cycle."""
    parser.add_argument("--pseudopotentials", type=Path, required=True, help="folder of {element}.upf")
    parser.add_argument("--functional", default="PBE", help="what the pseudopotentials were made with (PBE)")
    for name in ("wavefunction", "density"):
        parser.add_argument(
            f"--{name}-cutoff-Ry",
            dest=f"{name}_cutoff_Ry",
            type=_cutoff,
            required=True,
            help="Ry, or recommended: the largest that the pseudopotentials' makers recommend",
        )
    parser.add_argument("--scf-threshold-Ry", dest="scf_threshold_Ry", type=float, required=True)
    parser.add_argument("--mixing-beta", type=float, required=True)
    parser.add_argument("--max-scf-steps", type=int, required=True)


def _cutoff(text: str) -> float | str:
    return text if text == "recommended" else float(text)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a pw.x single point."""
    add_cutoffs(parser)
    mesh = parser.add_mutually_exclusive_group(required=True)
    mesh.add_argument("--kpoints", type=int, nargs=3, metavar="N")
    mesh.add_argument(
        "--kpoint-spacing-per-A",
        dest="kpoint_spacing_per_A",
        type=float,
        help="largest distance of k-points, 1/A with its 2 pi: each cell gets its own mesh",
    )
    parser.add_argument("--kpoints-shift", type=int, nargs=3, required=True, metavar="0|1")
    parser.add_argument(
        "--smearing", required=True, help="none, gaussian, cold, methfessel-paxton or fermi-dirac"
    )
    parser.add_argument("--smearing-width-Ry", dest="smearing_width_Ry", type=float, required=True)


def add_vasp_settings(parser: argparse.ArgumentParser) -> None:
    """Add the flags of VASP's electronic settings."""
    parser.add_argument("--presets", type=Path, required=True, help="YAML file of presets")
    parser.add_argument("--preset", required=True, help="settings by name: mp-static, matpes-pbe, mg-h")
    parser.add_argument(
        "--incar", nargs="+", default=[], metavar="TAG=VALUE", help="INCAR tags that win over the preset's"
    )


def add_vasp_program(parser: argparse.ArgumentParser) -> None:
    """Add which VASP runs, and where its POTCARs are."""
    parser.add_argument("--potcars", type=Path, required=True, help="folder of your POTCARs: SYMBOL/POTCAR")
    parser.add_argument(
        "--executable", default="vasp_std", help="VASP (default vasp_std; vasp_gam for Gamma only)"
    )
