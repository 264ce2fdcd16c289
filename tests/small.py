"""Small systems, potentials whose answers are known in closed form, and a way to call a script in process."""

import importlib
import sys

import ase.build
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from hopline import console, frames
from hopline.files import sha256
from hopline.potentials.card import Card, write_card

LIF_A = 4.08


def rocksalt_lif(repeat=(1, 1, 1), rattle_A=0.05, seed=0):
    """Return LiF, eight atoms a cell, shaken so that forces are not zero."""
    atoms = ase.build.bulk("LiF", "rocksalt", a=LIF_A, cubic=True).repeat(repeat)
    atoms.rattle(rattle_A, seed=seed)
    return atoms


def label(atoms, *, energy_eV=-1.0, forces=None, stress=None, **info):
    """Give a frame labels and identity as the labelled-frame contract asks for."""
    atoms.info["REF_energy"] = energy_eV
    atoms.arrays["REF_forces"] = np.zeros((len(atoms), 3)) if forces is None else np.asarray(forces)
    if stress is not None:
        atoms.info["REF_stress"] = stress
    atoms.info |= {"system": "lif", "composition": "bulk", "source": "bulk/300K", **info}
    atoms.info["frame_id"] = frames.frame_id(atoms)
    return atoms


def labelled_set(trajectories=4, frames_each=3, compositions=("bulk", "Li1"), **info):
    """Return labelled frames of several trajectories of several compositions."""
    made = []
    for number, composition in enumerate(compositions):
        for trajectory in range(trajectories):
            for frame in range(frames_each):
                seed = 1000 * number + 100 * trajectory + frame
                atoms = rocksalt_lif(seed=seed)
                source = f"{composition}/{300 + 100 * trajectory}K"
                made.append(label(atoms, composition=composition, source=source, **info))
    return made


class Springs(Calculator):
    """Each atom on springs of its own: E = sum k u^2 / 2 + c u^4 / 4 about ``sites``; no cell dependence."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, sites, stiffness=2.0, quartic=0.0):
        super().__init__()
        self.sites, self.stiffness, self.quartic = np.array(sites), stiffness, quartic

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        """Compute energy, forces and (zero) stress."""
        super().calculate(atoms, properties, system_changes)
        moved = self.atoms.positions - self.sites
        self.results = {
            "energy": float((self.stiffness * moved**2 / 2 + self.quartic * moved**4 / 4).sum()),
            "forces": -self.stiffness * moved - self.quartic * moved**3,
            "stress": np.zeros(6),
        }


class GasInElasticBox(Calculator):
    """Ideal gas in a box whose energy depends on its volume only: U = K (V - V0)^2 / (2 V0)."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, volume_A3, bulk_modulus_eV_per_A3):
        super().__init__()
        self.volume_A3, self.modulus = volume_A3, bulk_modulus_eV_per_A3

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        """Compute energy, zero forces and the stress dU/dV (positive under tension)."""
        super().calculate(atoms, properties, system_changes)
        excess = self.atoms.get_volume() - self.volume_A3
        tension = self.modulus * excess / self.volume_A3
        self.results = {
            "energy": float(self.modulus * excess**2 / (2 * self.volume_A3)),
            "forces": np.zeros((len(self.atoms), 3)),
            "stress": np.array([tension, tension, tension, 0.0, 0.0, 0.0]),
        }


class PairPotential(Calculator):
    """Energy of all pairs of atoms at their nearest images, from a function of the distance and its derivative."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, energy_eV, slope_eV_per_A):
        super().__init__()
        self.energy_eV, self.slope_eV_per_A = energy_eV, slope_eV_per_A

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        """Compute energy and forces; the stress is left zero."""
        super().calculate(atoms, properties, system_changes)
        vectors_A = self.atoms.get_all_distances(mic=True, vector=True)
        distances_A = np.linalg.norm(vectors_A, axis=-1)
        np.fill_diagonal(distances_A, np.inf)
        slopes = self.slope_eV_per_A(distances_A)
        self.results = {
            "energy": float(self.energy_eV(distances_A).sum() / 2),
            "forces": ((slopes / distances_A)[..., None] * vectors_A).sum(axis=1),
            "stress": np.zeros(6),
        }


class Broken(Calculator):
    """A calculator that gives NaN forces from its ``good``-th call on, or raises ``error`` if there is one."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, good, error=None):
        super().__init__()
        self.good, self.error, self.calls = good, error, 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        """Count the call and fail when its time has come."""
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        failing = self.calls > self.good
        if failing and self.error is not None:
            raise self.error
        forces = np.full((len(self.atoms), 3), np.nan if failing else 0.0)
        self.results = {"energy": 0.0, "forces": forces, "stress": np.zeros(6)}


def write_potential(folder, model_file, family="chgnet", **changes):
    """Write a card beside a model file and return its path."""
    content = {"name": "small", "family": family, "model_file": model_file.name, "dtype": "float32"}
    card = Card(**{**content, "model_sha256": sha256(model_file), **changes})
    write_card(folder / "card.json", card)
    return folder / "card.json"


def call_script(name, *arguments):
    """Run a script of ``scripts/`` in this process as a shell would; return its exit status."""
    module = importlib.import_module(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"scripts/{name}.py", *map(str, arguments)])
        try:
            console.run(module.main)
        except SystemExit as ended:
            return ended.code
    return 0


def refused(capsys, status):
    """Check that a script refused its input as it should, one line and exit status 2, and return the line."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert status == console.EXIT_BAD_INPUT
    assert len(lines) == 1, lines
    assert ": error: " in lines[0]
    return lines[0]


def two_atoms():
    """Return the smallest crystal there is to label: one cell of LiF, two atoms."""
    return Atoms("LiF", positions=[[0, 0, 0], [2.04, 0, 0]], cell=np.eye(3) * LIF_A, pbc=True)


def shaken(n_frames, *, memory, seed, repeat=(3, 3, 3), scale_A=0.1):
    """Return a run of LiF whose displacements keep a fraction ``memory`` from frame to frame."""
    rng = np.random.default_rng(seed)
    perfect = rocksalt_lif(repeat, rattle_A=0)
    moved = scale_A * rng.normal(size=perfect.positions.shape)
    frames = []
    for _ in range(n_frames):
        frames.append(perfect.copy())
        frames[-1].positions += moved
        moved = memory * moved + np.sqrt(1 - memory**2) * scale_A * rng.normal(size=moved.shape)
    return frames


def calculations(n_materials, frames_each, **info):
    """Return labelled LiF frames as MPtrj has them: several calculations, all different, of each material."""
    return [
        label(
            rocksalt_lif(seed=1000 * material + number),
            source=f"mp-{material}/mp-{material}0{number}-0",
            stress=np.zeros(9),
            energy_kind="unstated",
            **info,
        )
        for material in range(n_materials)
        for number in range(frames_each)
    ]
