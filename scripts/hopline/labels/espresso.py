"""Quantum ESPRESSO (pw.x) single points: input files, runs and isolated atoms; `espresso_output` reads."""

import io
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import ase.io.espresso
import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from hopline import files, frames
from hopline.console import InputError
from hopline.labels.espresso_output import TIMEOUT_NOTE, PwOutput, parse_output

EXECUTABLE = "pw.x"
CONTAINERS = {"apptainer", "singularity", "docker", "podman"}
"""Behind one of these pw.x lies inside an image and need not be on this machine's PATH."""
NO_SMEARING = "none"
SMEARINGS = (NO_SMEARING, "gaussian", "cold", "methfessel-paxton", "fermi-dirac")
KEPT_INFO = ("system", "composition", "source", "temperature_K")
STARTING_MAGNETIZATION = 0.5
"""First guess, as a fraction of the valence electrons; the run itself keeps ``total_magnetization``."""
ATOM_BOX_A = (12.0, 12.5, 13.0)
ATOM_SMEARING_WIDTH_RY = 0.001
TERMINATION_GRACE_S = 10.0
HASH_PREFIX_LENGTH = 8
UNPAIRED_ELECTRONS = {
    "H": 1, "He": 0, "Li": 1, "Be": 0, "B": 1, "C": 2, "N": 3, "O": 2, "F": 1, "Ne": 0,
    "Na": 1, "Mg": 0, "Al": 1, "Si": 2, "P": 3, "S": 2, "Cl": 1, "Ar": 0, "K": 1, "Ca": 0,
    "Sc": 1, "Ti": 2, "V": 3, "Cr": 6, "Mn": 5, "Fe": 4, "Co": 3, "Ni": 2, "Cu": 1, "Zn": 0,
    "Ga": 1, "Ge": 2, "As": 3, "Se": 2, "Br": 1, "Kr": 0,
}  # fmt: skip
"""Ground states of the free atoms, NIST Atomic Spectra Database (Hund's rules and Cr, Cu)."""


@dataclass(frozen=True)
class EspressoSettings:
    """Settings of a pw.x single point; energies in Ry, as pw.x takes them.

    ``functional`` names what the pseudopotentials were made with; pw.x takes it from them.
    ``nosym`` stays true for molecular-dynamics frames: they have no symmetry, and with it off pw.x expands a
    shifted mesh to the stars of the lattice, at four times the cost.
    ``total_magnetization`` (unpaired electrons per cell) makes the run spin-polarised; None: not polarised.
    """

    functional: str
    wavefunction_cutoff_Ry: float
    density_cutoff_Ry: float
    kpoints: tuple[int, int, int]
    kpoints_shift: tuple[int, int, int]
    smearing: str
    smearing_width_Ry: float
    scf_threshold_Ry: float
    mixing_beta: float
    max_scf_steps: int
    nosym: bool = True
    total_magnetization: float | None = None

    def __post_init__(self) -> None:
        """Refuse settings that pw.x would refuse, or would take for something else, hours later."""
        if not self.wavefunction_cutoff_Ry > 0:
            raise InputError(f"wavefunction_cutoff_Ry is {self.wavefunction_cutoff_Ry}: it must be positive")
        if self.density_cutoff_Ry < 4 * self.wavefunction_cutoff_Ry:
            raise InputError(
                f"density_cutoff_Ry is {self.density_cutoff_Ry}: it must be at least four times "
                f"wavefunction_cutoff_Ry ({4 * self.wavefunction_cutoff_Ry})"
            )
        if min(self.kpoints) < 1 or not set(self.kpoints_shift) <= {0, 1}:
            raise InputError(
                f"kpoints {self.kpoints} must be positive, kpoints_shift {self.kpoints_shift} made of 0 and 1"
            )
        if self.smearing not in SMEARINGS:
            raise InputError(f"smearing {self.smearing} is unknown; {', '.join(SMEARINGS)} are understood")
        if self.smearing != NO_SMEARING and self.smearing_width_Ry <= 0:
            raise InputError(f"smearing_width_Ry is {self.smearing_width_Ry}: it must be positive")


def settings_from(values: Mapping[str, Any]) -> EspressoSettings:
    """Return settings from a mapping by name (parsed flags, a config section); other keys are left alone."""
    chosen = {field.name: values[field.name] for field in fields(EspressoSettings) if field.name in values}
    chosen |= {key: tuple(chosen[key]) for key in ("kpoints", "kpoints_shift")}
    return EspressoSettings(**chosen)


def level_of_theory(settings: EspressoSettings, pseudopotentials: Mapping[str, Path]) -> str:
    """Return one line that two runs share only if their energies may be compared.

    It holds the functional, both cutoffs, the mesh, the smearing, the spin, and the first digits of the
    SHA-256 of each element's pseudopotential.
    """
    spin = settings.total_magnetization
    mesh = "x".join(map(str, settings.kpoints)) + "+" + "".join(map(str, settings.kpoints_shift))
    parts = [
        f"{settings.functional} pw.x",
        f"{settings.wavefunction_cutoff_Ry:g}/{settings.density_cutoff_Ry:g} Ry",
        f"k {mesh}",
        "fixed occupations"
        if settings.smearing == NO_SMEARING
        else f"{settings.smearing} {settings.smearing_width_Ry:g} Ry",
        *([f"magnetization {spin:g}"] if spin is not None else []),
        *(
            f"{element} {files.sha256(path)[:HASH_PREFIX_LENGTH] if path.is_file() else 'unknown'}"
            for element, path in sorted(pseudopotentials.items())
        ),
    ]
    return "; ".join(parts)


def find_pseudopotentials(
    folder: str | os.PathLike[str], elements: Iterable[str], *, allow_missing: bool = False
) -> dict[str, Path]:
    """Return each element's UPF file in a folder: ``Li.upf``, ``Li.UPF``, ``li_pbe.upf``, ``Li.x.upf``.

    With ``allow_missing`` an element without a file gets the name ``Li.upf``, for inputs to be run elsewhere.

    Raises
    ------
    InputError
        If the folder is missing, or an element has no file or more than one.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir() and not allow_missing:
        raise InputError(f"the folder of pseudopotentials {folder} does not exist")
    upfs = sorted(path for path in folder.glob("*") if path.suffix.lower() == ".upf")
    found: dict[str, Path] = {}
    for element in sorted(set(elements)):
        fitting = [path for path in upfs if re.split(r"[._\-]", path.name)[0].lower() == element.lower()]
        if not fitting and allow_missing:
            fitting = [folder / f"{element}.upf"]
        if not fitting:
            raise InputError(f"{folder} holds no pseudopotential of {element}: put {element}.upf there")
        if len(fitting) > 1:
            names = ", ".join(path.name for path in fitting)
            raise InputError(
                f"{folder} holds {len(fitting)} pseudopotentials of {element} ({names}): keep one"
            )
        found[element] = fitting[0]
    return found


def write_input(atoms: Atoms, settings: EspressoSettings, pseudopotentials: Mapping[str, Path]) -> str:
    """Return the pw.x input of a single point with forces and stress.

    Parameters
    ----------
    atoms
        The frame; periodic in three directions.
    settings
        Settings of the run.
    pseudopotentials
        UPF file of each element, all in one folder (see `find_pseudopotentials`).
    """
    if atoms.cell.rank != 3:  # noqa: PLR2004
        raise InputError("a frame without a three-dimensional cell cannot go to pw.x: give it one")
    bare = _bare(atoms)
    missing = sorted(set(bare.symbols) - set(pseudopotentials))
    if missing:
        raise InputError(f"no pseudopotential was given for {', '.join(missing)}")
    chosen = {element: Path(pseudopotentials[element]).resolve() for element in dict.fromkeys(bare.symbols)}
    folders = {path.parent for path in chosen.values()}
    if len(folders) > 1:
        raise InputError(f"pw.x reads pseudopotentials from one folder, these lie in {len(folders)}")
    if settings.total_magnetization is not None:
        bare.set_initial_magnetic_moments(np.full(len(bare), STARTING_MAGNETIZATION))
    gamma_only = settings.kpoints == (1, 1, 1) and not any(settings.kpoints_shift)
    text = io.StringIO()
    ase.io.espresso.write_espresso_in(
        text,
        bare,
        input_data=_namelists(settings, str(folders.pop())),
        pseudopotentials={element: path.name for element, path in chosen.items()},
        kpts=None if gamma_only else settings.kpoints,  # ASE's None: real wavefunctions, half the cost
        koffset=settings.kpoints_shift,
    )
    return text.getvalue()


def _namelists(settings: EspressoSettings, pseudo_dir: str) -> dict[str, dict[str, object]]:
    system: dict[str, object] = {
        "ecutwfc": settings.wavefunction_cutoff_Ry,
        "ecutrho": settings.density_cutoff_Ry,
        "nosym": settings.nosym,
    }
    if settings.smearing == NO_SMEARING:
        system["occupations"] = "fixed"
    else:
        system |= {
            "occupations": "smearing",
            "smearing": settings.smearing,
            "degauss": settings.smearing_width_Ry,
        }
    if settings.total_magnetization is not None:
        system |= {"nspin": 2, "tot_magnetization": settings.total_magnetization}
    return {
        "control": {
            "calculation": "scf", "prefix": "hopline", "pseudo_dir": pseudo_dir, "outdir": "./scratch",
            "disk_io": "none", "tprnfor": True, "tstress": True,
        },
        "system": system,
        "electrons": {
            "conv_thr": settings.scf_threshold_Ry, "mixing_beta": settings.mixing_beta,
            "electron_maxstep": settings.max_scf_steps,
        },
    }  # fmt: skip


def write_job(
    folder: str | os.PathLike[str],
    atoms: Atoms,
    settings: EspressoSettings,
    pseudopotentials: Mapping[str, Path],
    *,
    defaults: Mapping[str, object] | None = None,
) -> None:
    """Write a run folder: ``pw.in`` and ``frame.extxyz``, the frame as it went in with where it came from.

    ``pseudopotentials`` are those of the whole set, so that its frames share one level of theory even where
    a composition lacks an element. ``defaults`` fill ``info`` (system, composition, ...) where it is silent.
    """
    folder = Path(folder)
    frame = _bare(atoms)
    known = {**(defaults or {}), **atoms.info}
    frame.info = {key: known[key] for key in KEPT_INFO if known.get(key) is not None}
    frame.info["level_of_theory"] = level_of_theory(settings, pseudopotentials)
    with files.whole(folder / "pw.in") as temporary:
        temporary.write_text(write_input(frame, settings, pseudopotentials))
    frames.write_frames(folder / "frame.extxyz", [frame])


def pick(
    pool: Sequence[Atoms], rows: Sequence[int], frame_ids: Sequence[str], *, where: str = "selection"
) -> list[Atoms]:
    """Return the selected frames of a pool, in the selection's order, each checked against its id.

    Raises
    ------
    InputError
        If a row lies outside the pool or holds another frame than the one that was selected.
    """
    chosen = []
    for row, expected in zip(rows, frame_ids, strict=True):
        if not 0 <= row < len(pool):
            raise InputError(
                f"{where} names row {row} of a pool of {len(pool)} frames: give the pool it was made from"
            )
        found = frames.frame_id(pool[row])
        if expected and found != expected:
            raise InputError(
                f"{where}: row {row} is frame {found}, not {expected}: give the pool it was made from"
            )
        chosen.append(pool[row])
    return chosen


def _bare(atoms: Atoms) -> Atoms:
    """Return species, positions and cell only: no constraint or magnetic moment leaks into pw.x."""
    return Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)


def run(
    input_path: str | os.PathLike[str],
    output_path: str | os.PathLike[str],
    *,
    launcher: str | Sequence[str] = (),
    pools: int = 1,
    timeout_s: float | None = None,
) -> PwOutput:
    """Run pw.x on an input; keep what it prints, whole or not at all, and return what it says.

    A run that fails or does not converge is a result too: its output is kept and the exit status does not
    matter. The input and its ``frame.extxyz`` are copied beside an output in another folder, where ingestion
    looks for them. A run stopped at ``timeout_s`` keeps its output with a note at the end.

    Raises
    ------
    InputError
        If there is no input, no pw.x or no launcher, or if pw.x never started.
    """
    input_path, output_path = Path(input_path).resolve(), Path(output_path).resolve()
    if not input_path.is_file():
        raise InputError(f"{input_path} does not exist")
    before = shlex.split(launcher) if isinstance(launcher, str) else list(launcher)
    _refuse_missing(before)
    command = [*before, EXECUTABLE, *(["-nk", str(pools)] if pools > 1 else []), "-in", str(input_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    _keep_beside(output_path.parent, input_path)
    with (
        # beside the output and not in /tmp, since the ranks of one run may sit on several nodes
        tempfile.TemporaryDirectory(prefix=".pw-", dir=output_path.parent) as scratch,
        files.whole(output_path) as temporary,
    ):
        with temporary.open("wb") as output:
            _call(command, cwd=scratch, environment=environment, output=output, timeout_s=timeout_s)
        text = temporary.read_text(errors="replace")
        if "Program PWSCF" not in text:
            last = next(
                (line.strip() for line in reversed(text.splitlines()) if line.strip()), "it printed nothing"
            )
            raise InputError(f"pw.x did not start on {input_path} ({shlex.join(command)}): {last}")
    return parse_output(text)


def _keep_beside(folder: Path, input_path: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for origin in (input_path, input_path.with_name("frame.extxyz")):
        if origin.is_file() and origin.parent != folder:
            with files.whole(folder / origin.name) as temporary:
                shutil.copyfile(origin, temporary)


def _refuse_missing(launcher: Sequence[str]) -> None:
    if launcher and shutil.which(launcher[0]) is None:
        raise InputError(f"the launcher {launcher[0]} is not on PATH: install it, or give another launcher")
    inside_image = any(Path(word).name in CONTAINERS for word in launcher)
    if not inside_image and shutil.which(EXECUTABLE) is None:
        raise InputError(
            "pw.x is not on PATH: install Quantum ESPRESSO (apt install quantum-espresso, "
            "conda install -c conda-forge qe, or a cluster's module)"
        )


def _call(
    command: list[str],
    *,
    cwd: str,
    environment: dict[str, str],
    output: io.BufferedWriter,
    timeout_s: float | None,
) -> None:
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
    )
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        _stop(process)
        output.write(f"\n     {TIMEOUT_NOTE} {timeout_s:g} s\n".encode())
    except BaseException:
        _stop(process)
        raise


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask politely first: mpirun passes SIGTERM on to its ranks, but cannot pass on SIGKILL."""
    process.terminate()
    try:
        process.wait(TERMINATION_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def atom_box(element: str) -> Atoms:
    """Return one atom in a box with three different sides: an open shell must not be averaged by symmetry."""
    if element not in atomic_numbers:
        raise InputError(f"{element} is not a chemical element")
    return Atoms([element], positions=[np.array(ATOM_BOX_A) / 2], cell=ATOM_BOX_A, pbc=True)


def atom_settings(values: Mapping[str, Any], element: str) -> EspressoSettings:
    """Return settings for an isolated atom: Gamma only, with the unpaired electrons of its ground state.

    ``values`` give cutoffs and SCF settings by name; mesh, smearing and spin are the atom's own.
    """
    if element not in UNPAIRED_ELECTRONS:
        raise InputError(f"the spin of a free {element} atom is not tabulated: H to Kr are")
    own = {
        "kpoints": (1, 1, 1), "kpoints_shift": (0, 0, 0), "smearing": "gaussian",
        "smearing_width_Ry": ATOM_SMEARING_WIDTH_RY, "nosym": True,
        "total_magnetization": float(UNPAIRED_ELECTRONS[element]),
    }  # fmt: skip
    return settings_from({**values, **own})


def run_atom(
    element: str,
    settings: EspressoSettings,
    pseudopotentials: Mapping[str, Path],
    *,
    launcher: str | Sequence[str] = (),
) -> PwOutput:
    """Run one isolated atom; a run without a label is refused, since no reference may be left out."""
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder)
        write_job(job, atom_box(element), settings, {element: pseudopotentials[element]})
        result = run(job / "pw.in", job / "pw.out", launcher=launcher)
    if not result.converged:
        raise InputError(
            f"the isolated {element} atom gave no energy: {result.reason}; try a smaller mixing_beta"
        )
    return result
