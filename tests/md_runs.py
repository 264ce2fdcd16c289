"""Short runs of small systems, by either engine, as tests ask for them."""

import dataclasses
from functools import partial

import h5py
from model_systems import CPU, OneOfBatch, argon, argon_model
from small import Springs, rocksalt_lif

from hopline import files
from hopline.dynamics.checks import Limits
from hopline.dynamics.protocol import draw_momenta, remove_total_momentum
from hopline.dynamics.replica import Replica
from hopline.dynamics.runs import make_engine
from hopline.dynamics.simulation import simulate
from hopline.dynamics.stage import Stage
from hopline.potentials.calculator import BatchedCalculator
from hopline.potentials.forcefield import ForceField

NO_LIMITS = Limits(
    **{name: 0.0 if name == "min_distance_A" else float("inf") for name in Limits.__dataclass_fields__}
)


def stage(ensemble="nve", **changes):
    """Return a stage of 50 steps, a frame every second one."""
    made = {
        "ensemble": ensemble, "temperature_K": 300.0, "timestep_fs": 2.0, "duration_ps": 0.1, "frame_interval_fs": 4.0,
        "seed": 5, "friction_per_ps": 0.0 if ensemble == "nve" else 20.0,
        "barostat_time_fs": 100.0 if ensemble == "npt" else 0.0,
    }  # fmt: skip
    return Stage(**{**made, **changes})


def moving(temperature_K=300.0, quartic=50.0):
    """Eight atoms on stiffening springs, with momenta, the total removed."""
    atoms = rocksalt_lif(rattle_A=0)
    atoms.calc = Springs(atoms.positions, stiffness=5.0, quartic=quartic)
    draw_momenta(atoms, temperature_K, seed=1)
    remove_total_momentum(atoms)
    return atoms


def run(atoms, asked, path, *, limits=NO_LIMITS, engine="ase", unfit=None, **settings):
    """Run one replica from atoms with a calculator and return how it ended."""
    made = partial(make_engine, calculator=atoms.calc, engine=engine)
    [outcome] = simulate([Replica(atoms, asked, path, unfit=unfit)], made, limits, **settings)
    return outcome


class Argon(BatchedCalculator):
    """Argon as a batched calculator; ``happens`` are called before the force calls of these numbers."""

    def __init__(self, happens=None, model=argon_model):
        super().__init__()
        self.happens, self.model, self.calls, self.joined_sizes = happens or {}, model, 0, []

    def join(self, frames, *, skin_A=0.0):  # noqa: ARG002  argon finds its neighbours anew
        """Return the model; argon needs no more than the number of atoms, which is always the same."""
        self.joined_sizes.append(len(frames))
        return Watched(self)


class Watched(ForceField):
    """A model whose calls are counted."""

    device = CPU

    def __init__(self, calculator):
        self.calculator, self.model = calculator, calculator.model()

    def compute(self, positions_A, cells_A, *, stress):
        """Count the call, let happen what is due, and compute."""
        self.calculator.calls += 1
        self.calculator.happens.get(self.calculator.calls, lambda *_: None)(positions_A, cells_A)
        return self.model.compute(positions_A, cells_A, stress=stress)


def batch(folder, asked, calculator, *, n=3, engine="batched", limits=NO_LIMITS, **settings):
    """Run ``n`` argon crystals that differ in start and seed, and return how they ended."""
    replicas = [
        Replica(
            argon(seed=number), dataclasses.replace(asked, seed=asked.seed + number), folder / f"{number}.h5"
        )
        for number in range(n)
    ]
    made = partial(make_engine, calculator=calculator, engine=engine)
    return simulate(replicas, made, limits, velocities=True, **settings)


def contents(path):
    """Return all numbers of a trajectory file, as bytes by name."""
    with h5py.File(path) as file:
        found = {}
        file.visititems(
            lambda name, item: (
                found.update({name: item[()].tobytes()}) if isinstance(item, h5py.Dataset) else None
            )
        )
        return found


ENSEMBLES = {
    "nve": stage("nve"),
    "langevin": stage("nvt"),
    "nose-hoover": stage("nvt", thermostat="nose-hoover"),
    "ramp": stage("nvt", temperature_last_K=600.0),
    "sweep": stage("nvt", scale_first=1.0, scale_last=1.03),
    "piston": stage("npt"),
    "cell-rescaling": stage("npt", barostat="stochastic-cell-rescaling"),
}
ASE_KNOWS = ("nve", "langevin", "ramp", "sweep", "piston")
VARIANTS = [("batched", name) for name in ENSEMBLES] + [("ase", name) for name in ASE_KNOWS]


def calculator_of(engine, happens=None):
    calculator = Argon(happens)
    return calculator if engine == "batched" else OneOfBatch(calculator.join([None]))


def same(first, second, n=3):
    """Compare trajectories bit for bit, and the figures of their checks."""
    for number in range(n):
        one, other = contents(first / f"{number}.h5"), contents(second / f"{number}.h5")
        assert one.keys() == other.keys()
        assert [name for name in one if one[name] != other[name]] == []
        figures = [files.read_json(folder / f"{number}.json") for folder in (first, second)]
        for name in ("status", "reason", "checks", "simulated_ps"):
            assert figures[0][name] == figures[1][name], name
