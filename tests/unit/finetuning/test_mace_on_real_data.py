"""A tiny MACE trained on MPtrj frames and fine-tuned on LiF by every strategy: the smallest form of the study.

The same at full size: benchmarks/strategies_mace.py; its figures are in docs/validation.md.
"""

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.data import chemical_symbols
from small import write_potential
from trainings import make_recipe

from hopline import frames
from hopline.finetuning import mace, task
from hopline.potentials.calculator import load_calculator
from hopline.potentials.evaluation import evaluate

pytestmark = pytest.mark.slow
ELEMENTS = {"Li", "F", "O", "Co", "Mn", "Ni", "Fe", "V", "Cr", "Ti"}
MAX_ATOMS, MAX_FORCE_EV_PER_A = 20, 5.0
REPOSITORY = Path(__file__).resolve().parents[3]
STRATEGIES = ("naive", "freeze", "lora", "replay")


def mptrj(shared_data):
    """Return small MPtrj frames of few elements, labelled as the house has it."""
    found = []
    for atoms in ase.io.read(shared_data / "mptrj" / "mptrj-random-1k.xyz", ":"):
        forces = atoms.get_forces()
        if (
            set(atoms.symbols) <= ELEMENTS
            and len(atoms) <= MAX_ATOMS
            and abs(forces).max() < MAX_FORCE_EV_PER_A
        ):
            energy_eV, stress, source = (
                atoms.get_potential_energy(), atoms.get_stress(voigt=False), atoms.info["mptrj_traj_id"],
            )  # fmt: skip
            bare = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
            bare.info = {frames.ENERGY: energy_eV, frames.STRESS: stress, "source": source}
            bare.arrays[frames.FORCES] = forces
            found.append(bare)
    return found


def lif(path, *, n_train, n_valid):
    """Return frames to train and to validate, far apart in the file."""
    labelled = ase.io.read(path, ":")
    rows = np.linspace(0, len(labelled) - 1, n_train + n_valid).round().astype(int)
    chosen = []
    for row in rows:
        atoms = labelled[row]
        bare = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
        bare.info = {name: atoms.info[name] for name in (frames.ENERGY, frames.STRESS)} | {"source": f"{row}"}
        bare.arrays[frames.FORCES] = atoms.arrays[frames.FORCES]
        chosen.append(bare)
    return chosen[:n_train], chosen[n_train:]


@pytest.fixture(scope="module")
def foundation(tmp_path_factory, shared_data):
    """The foundation; frames that are replayed and those that validate; and frames that it learned, not replayed."""
    folder = tmp_path_factory.mktemp("foundation")
    found = mptrj(shared_data)
    replayed, valid, kept = found[::3], found[1::6], [*found[2::3], *found[4::6]]
    isolated = json.loads((shared_data / "mptrj" / "mp_vasp_e0.json").read_text())["pbe"]
    energies_eV = {chemical_symbols[int(number)]: energy_eV for number, energy_eV in isolated.items()}
    recipe = make_recipe(
        "mace", "scratch", epochs=30, learning_rate=0.03, batch_size=2, energy_weight=1, force_weight=10,
        stress_weight=10, max_ell=2, correlation=2, final_learning_rate_ratio=0.1, atom_energies="isolated",
    )  # fmt: skip
    one = task.Task(
        task.Sets([*replayed, *kept], valid), recipe, "scratch", None, {"isolated_atom_energies_eV": energies_eV}, 1,
        folder / "work", {},
    )  # fmt: skip
    outcome = mace.run(one)
    # counted from isolated atoms, the binding of some eV/atom is learned first
    energies = outcome.history["valid_energy_rmse_meV_per_atom"]
    assert energies[outcome.best_epoch] < energies[0] / 3
    outcome.save(folder / "model.pt")
    calculator = load_calculator(write_potential(folder, folder / "model.pt", family="mace"))
    return task.Parent(folder / "model.pt", "float32", calculator), replayed, valid, kept


def force_error(calculator, labelled):
    return evaluate(calculator, labelled, mobile="Li").figures["force_rmse_meV_per_A"]


@pytest.mark.parametrize("labels", ["own", "alghamdi"])
def test_every_strategy_learns_lif_and_replay_forgets_less(tmp_path, foundation, shared_data, labels):
    """Replay keeps the error of what is replayed within 1.5 times the foundation's, a naive fine-tuning does not."""
    parent, replayed, replay_valid, kept = foundation
    train, valid = (
        lif(REPOSITORY / "resources" / "lif" / "labels.extxyz", n_train=12, n_valid=4)
        if labels == "own"
        else lif(shared_data / "lif" / "step_0_train.xyz", n_train=3, n_valid=1)
    )
    over_foundation = {}
    for strategy in STRATEGIES:
        # one learning rate for all, so that what differs is the strategy; more epochs of three large frames
        recipe = make_recipe(
            "mace", strategy, epochs=6 if labels == "own" else 10, batch_size=2, learning_rate=0.01, ema_decay=0.9,
            max_gradient_norm=10, dtype="float32",
        )  # fmt: skip
        replay = (replayed, replay_valid) if strategy == "replay" else ((), ())
        sets = task.Sets(train, valid, (), *replay)
        one = task.Task(sets, recipe, strategy, parent, {}, 1, tmp_path / strategy, {})
        task.check(one)
        outcome = mace.run(one)
        assert outcome.best_epoch > 0, f"{strategy} learned nothing"
        outcome.save(tmp_path / "model.pt")
        calculator = load_calculator(write_potential(tmp_path, tmp_path / "model.pt", family="mace"))
        over_foundation[strategy] = {
            name: force_error(calculator, part) / force_error(parent.calculator, part)
            for name, part in (("replayed", replayed), ("kept", kept))
        }
    assert over_foundation["replay"]["replayed"] < 1.5
    assert over_foundation["naive"]["replayed"] > 1.5
    assert over_foundation["replay"]["kept"] < over_foundation["naive"]["kept"]
