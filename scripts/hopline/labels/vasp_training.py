"""Inputs of VASP's on-the-fly training: a temperature ramp, then one run a temperature, each going on from the last.

Molecular dynamics at constant pressure and fixed cell shape, in which VASP computes by DFT what its force field does
not know yet; the configurations that it computed end up in ML_ABN, which can be ingested. Tags by the VASP wiki, pages
"NpT ensemble", "ICONST", "ML_MODE", "TEBEG" and "Best practices for machine-learned force fields" (2026); VASP >= 6.4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hopline import files
from hopline.console import InputError
from hopline.labels import potcars, vasp
from hopline.labels.potcars import Check
from hopline.units import FS_PER_PS

SCRIPT = "run_training.sh"
START_K = 1.0
"""Where a ramp from 0 K begins: velocities are drawn at TEBEG, and the wiki asks for one above zero."""
PLAN = "stage.txt"
"""Of each stage, for the script: steps, first and last temperature in K."""
TRAINING = {"ML_LMLFF": True, "ML_MODE": "train"}
"""Restarted by the presence of an ML_AB, from scratch without one."""
LEFT_OUT = ("NSW", "IBRION", "ISIF", "LCHARG", "LWAVE", "LAECHG", "LORBIT")
LATTICE_MASS_AMU = 1000.0
"""PMASS, VASP's default and the wiki's example, stated because the barostat hangs on it."""

RUN_SCRIPT = f"""\
#!/usr/bin/env bash
# On-the-fly training (VASP 6.4 or later), one stage after the other; after a break, start it again:
#   VASP_COMMAND="mpirun -np 16 vasp_std" POTCAR_FOLDER=/path/to/potpaw ./{SCRIPT}
# Each stage goes on from the last one's positions, velocities (CONTCAR) and training set (ML_ABN). At the end it lies
# here as ML_AB. Then: python scripts/ingest_labels.py --source ML_AB --frames accepted.extxyz --rejected rejected.csv
{vasp.SCRIPT_SETUP}
n_atoms=@ATOMS@
# a file that VASP was writing when it was killed is not whole
whole_positions() {{ [ -f "$1" ] && [ "$(wc -l < "$1")" -ge $((2 * n_atoms + 9)) ]; }}
whole_set() {{ # as many configurations as its head says, the last with both halves of its stress and the line's end
    [ -f "$1" ] && [ -z "$(tail -c 1 "$1")" ] &&
        awk 'NR == 5 {{ all = $1 }} /Stress \\(kbar\\)/ {{ n++; at = NR }}
             END {{ exit !(n == all && NR >= at + 8) }}' "$1"
}}
# take what VASP left in a stage into its folder go, from which the next start goes on; whole, or not at all
take_up() {{
    if [ -f go.new/OSZICAR ]; then rm -rf go && mv go.new go; fi
    [ -f OSZICAR ] || return 0
    local training_set=go/ML_AB
    if whole_set ML_ABN; then training_set=ML_ABN; fi
    if whole_positions CONTCAR && [ -f "$training_set" ]; then
        rm -rf go.new && mkdir go.new
        cp CONTCAR go.new/POSCAR
        cp "$training_set" go.new/ML_AB
        echo $(($(cat go/steps) + $(grep -c 'T=' OSZICAR || true))) > go.new/steps
        mv OSZICAR go.new/OSZICAR
        rm -rf go && mv go.new go
    else
        echo "$PWD: VASP left no whole CONTCAR and ML_ABN, it goes on from where it began" >&2
        rm -f OSZICAR
    fi
}}

previous=
for stage in @STAGES@; do
    cd "$stage"
    read -r steps first last < {PLAN}
    if [ ! -d go ] && [ ! -d go.new ]; then
        rm -rf go.first && mkdir go.first
        echo 0 > go.first/steps
        if [ -z "$previous" ]; then cp POSCAR.start go.first/POSCAR; fi
        if [ -n "$previous" ]; then cp "../$previous"/go/{{POSCAR,ML_AB}} go.first; fi
        mv go.first go
    fi
    take_up
    made=$(cat go/steps)
    if [ "$made" -lt "$steps" ]; then
        echo "$(date '+%F %T') $stage: from step $made of $steps"
        cp go/POSCAR POSCAR
        if [ -f go/ML_AB ]; then cp go/ML_AB ML_AB; else rm -f ML_AB; fi
        begin=$(awk -v n="$made" -v all="$steps" -v a="$first" -v b="$last" 'BEGIN {{ print a + (b - a) * n / all }}')
        sed -e "s/^NSW .*/NSW = $((steps - made))/" -e "s/^TEBEG .*/TEBEG = $begin/" INCAR > INCAR.new
        mv INCAR.new INCAR
        rm -f CONTCAR ML_ABN OUTCAR
        (cd .. && write_potcar "$stage")
        $VASP_COMMAND > vasp.out 2>&1 || echo "$stage: VASP ended with an error, see vasp.out" >&2
        rm -f POTCAR
        take_up
        made=$(cat go/steps)
    fi
    cd ..
    if [ "$made" -lt "$steps" ]; then
        echo "$stage stopped after $made of $steps steps, see $stage/vasp.out" >&2
        exit 1
    fi
    previous=$stage
done
cp "$previous/go/ML_AB" ML_AB.new && mv ML_AB.new ML_AB
echo "the training set is ML_AB"
"""


@dataclass(frozen=True)
class Plan:
    """The molecular dynamics of a training: a ramp from 0 K, then each temperature in turn.

    ``friction_per_ps`` is that of every species and of the lattice.
    """

    ramp_temperature_K: float
    ramp_duration_ps: float
    temperatures_K: Sequence[float]
    duration_ps: float
    timestep_fs: float
    friction_per_ps: float

    def __post_init__(self) -> None:
        """Refuse what VASP would take for something else."""
        values = {name: value for name, value in vars(self).items() if name != "temperatures_K"}
        for name, value in {**values, "temperatures_K": min(self.temperatures_K, default=0.0)}.items():
            if not value > 0:
                raise InputError(f"{name} is {value}: it must be positive")
        if self.ramp_temperature_K <= START_K:
            raise InputError(f"the ramp starts at {START_K:g} K: ramp_temperature_K must be higher")


@dataclass(frozen=True)
class Stage:
    """One run of the chain."""

    name: str
    steps: int
    first_K: float
    last_K: float


def stages(plan: Plan) -> list[Stage]:
    """Return the runs of a plan in order: ``1-ramp``, ``2-300K``, ``3-480K``, ..."""

    def steps(duration_ps: float) -> int:
        return max(1, round(duration_ps * FS_PER_PS / plan.timestep_fs))

    ramp = Stage("1-ramp", steps(plan.ramp_duration_ps), START_K, plan.ramp_temperature_K)
    return [
        ramp,
        *(
            Stage(f"{number}-{temperature:g}K", steps(plan.duration_ps), temperature, temperature)
            for number, temperature in enumerate(plan.temperatures_K, start=2)
        ),
    ]


def incar_of(electronic: Mapping[str, Any], stage: Stage, plan: Plan, *, n_species: int) -> dict[str, Any]:
    """Return the INCAR tags of a stage: electronic settings, Langevin NpT, training."""
    kept = {tag: value for tag, value in electronic.items() if tag not in LEFT_OUT}
    return {
        **kept,
        **TRAINING,
        "IBRION": 0, "MDALGO": 3, "ISIF": 3, "NSW": stage.steps, "POTIM": plan.timestep_fs,
        "TEBEG": stage.first_K, "TEEND": stage.last_K,
        "LANGEVIN_GAMMA": [plan.friction_per_ps] * n_species, "LANGEVIN_GAMMA_L": plan.friction_per_ps,
        "PMASS": LATTICE_MASS_AMU,
        "ISYM": 0, "LCHARG": False, "LWAVE": False,
    }  # fmt: skip


def iconst(atoms: Atoms) -> str:
    """Return the ICONST that keeps the shape of a cell and leaves its volume free: angles and ratios of lengths.

    Where complex coordinates (S) stand, the primitive ones only define them (VASP wiki, "ICONST", examples 3 and 4);
    c_i a_i + c_j a_j = 0 holds each ratio, with c_i = a_j / a_i and c_j = -1. ISIF = 8 would say the same shorter, but
    the wiki names it for relaxations (6.4.1), ISIF = 3 for Langevin NpT.
    """
    lengths = np.linalg.norm(atoms.cell.array, axis=1)
    pairs = list(combinations(range(3), 2))
    primitive = [f"LA {i + 1} {j + 1} 0" for i, j in pairs] + [f"LR {i + 1} 0" for i in range(3)]
    coefficients = np.zeros((6, 6))
    coefficients[:3, :3] = np.eye(3)
    for row, (i, j) in enumerate(pairs, start=3):
        coefficients[row, 3 + i], coefficients[row, 3 + j] = lengths[j] / lengths[i], -1.0
    # twelve digits, since the constraint holds what it is at the first step
    fixed = [f"S {' '.join(f'{value:.12g}' for value in row)} 0" for row in coefficients]
    return "\n".join([*primitive, *fixed, ""])


def write_training(
    folder: Path, atoms: Atoms, preset: vasp.Preset, plan: Plan, *, potcar_folder: Path | None = None
) -> str:
    """Write the folders of a training and the script that runs them one after the other; return the level of theory.

    Raises
    ------
    InputError
        As `vasp.inputs_of` and `potcars.load`.
    """
    job = vasp.inputs_of(atoms, preset)
    checks = {symbol: Check(preset.potcar_release, preset.sha256.get(symbol)) for symbol in job.symbols}
    if potcar_folder is not None:
        found = {symbol: potcars.load(potcar_folder, symbol, check) for symbol, check in checks.items()}
        checks = {symbol: replace(check, sha256=found[symbol].sha256) for symbol, check in checks.items()}
    from pymatgen.io.vasp.inputs import Incar

    for number, stage in enumerate(stages(plan)):
        tags = incar_of(dict(job.incar), stage, plan, n_species=len(job.symbols))
        contents = {
            "INCAR": str(Incar(tags)),
            "ICONST": iconst(job.atoms),
            vasp.SPEC: "\n".join(job.symbols) + "\n",
            PLAN: f"{stage.steps} {stage.first_K:g} {stage.last_K:g}\n",
            **({"POSCAR.start": job.poscar} if number == 0 else {}),
            **({"KPOINTS": str(job.kpoints)} if job.kpoints is not None else {}),
        }
        for name, content in contents.items():
            with files.whole(folder / stage.name / name) as temporary:
                temporary.write_text(content)
    potcars.write_checks(folder / potcars.CHECKS, checks)
    script = RUN_SCRIPT.replace("@STAGES@", " ".join(stage.name for stage in stages(plan)))
    vasp.write_script(folder / SCRIPT, script.replace("@ATOMS@", str(len(job.atoms))))
    return "; ".join([job.theory, *vasp.potcar_words(job.species, checks)])
