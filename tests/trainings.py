"""Small labelled sets to train on, the published settings, and a training as a task."""

import functools
from pathlib import Path

import yaml
from ase.build import bulk
from small import LIF_A, Springs, label, rocksalt_lif

from hopline.finetuning import recipe as recipes
from hopline.finetuning.task import Sets, Task

ATOM_ENERGIES_EV = {"Li": -2.0, "F": -3.0}
TINY_MACE = {
    "epochs": 3, "batch_size": 4, "dtype": "float64", "atom_energies": "estimated",
}  # fmt: skip
TINY_ARCHITECTURE = {"channels": 4, "cutoff_A": 3.5, "max_ell": 2, "correlation": 2, "layers": 2}


@functools.cache
def presets():
    """Return the published settings by family and strategy."""
    return yaml.safe_load(
        Path(__file__).resolve().parents[1].joinpath("resources/presets/training.yaml").read_text()
    )


def make_recipe(family, strategy, **changes):
    """Return the published recipe with changes; MACE's references are estimated."""
    settings = presets()[family][strategy] | ({"atom_energies": "estimated"} if family == "mace" else {})
    return recipes.make_recipe(family, strategy, settings | changes)


def tiny_mace(strategy, **changes):
    """Return a MACE recipe that trains in seconds."""
    architecture = TINY_ARCHITECTURE if strategy == "scratch" else {}
    return make_recipe("mace", strategy, **TINY_MACE | architecture | changes)


def sprung(n_frames, *, stiffness=2.0, first_seed=0, rattle_A=0.1, species=None, **info):
    """Return frames of eight atoms on springs about the sites of LiF (or of rocksalt of other species), labelled."""
    made = []
    for seed in range(first_seed, first_seed + n_frames):
        atoms = rocksalt_lif(rattle_A=rattle_A, seed=seed)
        energies_eV = ATOM_ENERGIES_EV
        if species:
            atoms = bulk("".join(species), "rocksalt", a=LIF_A, cubic=True)
            atoms.rattle(rattle_A, seed=seed)
            energies_eV = dict.fromkeys(species, -2.5)
        atoms.calc = Springs(rocksalt_lif(rattle_A=0).positions, stiffness=stiffness)
        energy_eV = atoms.get_potential_energy() + sum(energies_eV[symbol] for symbol in atoms.symbols)
        stress = atoms.get_stress(voigt=False)
        made.append(
            label(
                atoms.copy(), energy_eV=energy_eV, forces=atoms.get_forces(), stress=stress,
                **{"source": f"springs/{seed}", **info},
            )
        )  # fmt: skip
    return made


REPLAY = (
    sprung(8, stiffness=1.0, species=("Na", "Cl"), source="salt"),
    sprung(3, stiffness=1.0, species=("Na", "Cl"), first_seed=70, source="salt/2"),
)
"""Frames of a salt to replay, and those that validate."""


def make_task(
    folder,
    strategy,
    recipe,
    *,
    parent=None,
    train=None,
    valid=None,
    test=(),
    replay=(),
    dataset=None,
    **identity,
):
    """Return a task on frames of atoms on springs."""
    replayed, replay_valid = replay or ((), ())
    sets = Sets(
        train or sprung(12),
        valid or sprung(4, first_seed=50),
        test,
        replay=replayed,
        replay_valid=replay_valid,
    )
    return Task(
        sets=sets, recipe=recipe, strategy=strategy, parent=parent, dataset=dataset or {}, seed=1,
        folder=Path(folder), identity=identity,
    )  # fmt: skip
