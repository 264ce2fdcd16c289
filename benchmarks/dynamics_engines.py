"""Measure the replica engine against bare model calls, single runs, ASE and janus-core: milliseconds and ratios.

What is compared runs in turns in one process, so that a busy machine slows both alike; a ratio is the median over the
rounds, low and high its quartiles. janus-core is no dependency: where it cannot be imported its rows are left out
(`pip install --target FOLDER janus-core`, then run with FOLDER on PYTHONPATH).
"""

import argparse
import contextlib
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import numpy as np
from ase import Atoms
from ase.build import bulk

from hopline import console, files, provenance
from hopline.dynamics.checks import Limits
from hopline.dynamics.protocol import draw_momenta, remove_total_momentum
from hopline.dynamics.replica import Replica
from hopline.dynamics.runs import make_engine
from hopline.dynamics.simulation import simulate
from hopline.dynamics.stage import Stage

TEMPERATURE_K = 300.0
SMALL = 17
HOLD_ON = {"max_temperature_ratio": 1e9, "max_force_eV_per_A": 1e9, "max_energy_jump_eV_per_atom": 1e9}
"""A model of random weights may do what it likes: its speed is asked for."""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each (%(default)s)")
    parser.add_argument("--steps", type=int, default=40, help="steps a turn, ten at least (%(default)s)")
    parser.add_argument("--only", nargs="+", help="of chgnet_call, step, batch, peers: measure these only")
    parser.add_argument("--dynamics", type=Path, help="CSV to write; without it: stdout only")
    return parser.parse_args(argv)


def lif(repeats: tuple[int, int, int]) -> Atoms:
    """Return shaken rocksalt LiF."""
    atoms = bulk("LiF", "rocksalt", a=4.08, cubic=True).repeat(repeats)
    atoms.rattle(0.05, seed=0)
    return atoms


def magnesium_hydride(repeats: tuple[int, int, int]) -> Atoms:
    """Return hcp Mg with one H in a tetrahedral site: 17 or 129 atoms."""
    atoms = bulk("Mg", "hcp", a=3.19, c=5.18).repeat(repeats)
    atoms.append("H")
    atoms.positions[-1] = atoms.positions[0] + [0.0, 1.84, 0.65]
    return atoms


def moving(atoms: Atoms, seed: int = 0) -> Atoms:
    """Return a copy with momenta, the total zero."""
    start = atoms.copy()
    draw_momenta(start, TEMPERATURE_K, seed)
    remove_total_momentum(start)
    return start


def random_mace(path: Path, *, hidden: str, cutoff_A: float) -> None:
    """Save a MACE of random weights, two layers, the rest as mace_run_train has it; ``hidden`` is such as 16x0e."""
    import mace  # noqa: F401  before e3nn
    import torch
    from e3nn import o3
    from mace import modules

    torch.manual_seed(0)
    interaction = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    model = modules.ScaleShiftMACE(
        r_max=cutoff_A, num_bessel=8, num_polynomial_cutoff=5, max_ell=3, interaction_cls=interaction,
        interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"], num_interactions=2,
        num_elements=2, hidden_irreps=o3.Irreps(hidden), MLP_irreps=o3.Irreps("16x0e"),
        gate=torch.nn.functional.silu, atomic_energies=np.zeros(2), avg_num_neighbors=20.0,
        atomic_numbers=[1, 12], correlation=3, atomic_inter_scale=0.05, atomic_inter_shift=0.0,
    )  # fmt: skip
    torch.save(model, path)


def stage(n_steps: int, frame_interval_fs: float = 10.0) -> Stage:
    """Return NVE of so many steps of 1 fs, a frame every ten."""
    return Stage("nve", TEMPERATURE_K, 1.0, n_steps / 1000.0, frame_interval_fs, seed=0)


class Turns:
    """Times of several candidates, in turns."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def ms(self, candidates: dict[str, Callable[[], float]]) -> dict[str, np.ndarray]:
        """Return milliseconds (rounds,) of each candidate, which returns its own; one round to warm up."""
        found: dict[str, list[float]] = {name: [] for name in candidates}
        for turn in range(self.rounds + 1):
            for name, measure in candidates.items():
                value = measure()
                if turn:
                    found[name].append(value)
        return {name: np.array(values) for name, values in found.items()}


def row(
    measure: str,
    n_atoms: int,
    batch: int,
    ours: np.ndarray,
    peer: np.ndarray,
    bar: float | None,
    *,
    peer_name: str,
) -> dict[str, Any]:
    """Return one line of the table."""
    ratios = ours / peer
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    line = {
        "measure": measure, "n_atoms": n_atoms, "batch": batch, "ours_ms": f"{np.median(ours):.3f}",
        "peer_ms": f"{np.median(peer):.3f}", "ratio": f"{middle:.3f}", "low": f"{low:.3f}", "high": f"{high:.3f}",
        "bar": "" if bar is None else bar, "peer": peer_name,
    }  # fmt: skip
    console.say(", ".join(f"{name} {value}" for name, value in line.items()))
    return line


def chgnet_calls(turns: Turns) -> list[dict[str, Any]]:
    """Compare a call for energy and forces, graph kept up to date, with stock CHGNet on graphs made beforehand."""
    import torch

    from hopline.potentials import chgnet

    with contextlib.redirect_stdout(sys.stderr):
        stock = chgnet.load_shipped("0.3.0")
        calculator = chgnet.ChgnetCalculator(chgnet.load_shipped("0.3.0"))
    lines = []
    for repeats in ((2, 2, 2), (3, 3, 3)):
        atoms = lif(repeats)
        field = calculator.join([atoms])
        cells = torch.tensor(atoms.cell.array[None], device=field.device)
        rng = np.random.default_rng(0)

        def ours(atoms: Atoms = atoms, field: Any = field, cells: Any = cells, rng: Any = rng) -> float:
            atoms.positions += rng.normal(scale=0.01, size=atoms.positions.shape)
            positions = torch.tensor(atoms.positions, device=field.device)
            start = time.perf_counter()
            field.compute(positions, cells, stress=False)
            return 1e3 * (time.perf_counter() - start)

        def peer(atoms: Atoms = atoms) -> float:
            graph = chgnet.graph_of(stock, atoms)
            start = time.perf_counter()
            stock.predict_graph(graph, task="ef")
            return 1e3 * (time.perf_counter() - start)

        found = turns.ms({"ours": ours, "peer": peer})
        lines.append(
            row(
                "chgnet_call",
                len(atoms),
                1,
                found["ours"],
                found["peer"],
                0.60,
                peer_name="chgnet predict_graph",
            )
        )
    return lines


class Watched:
    """A calculator whose force calls are followed by a bare one on the same graph, which is timed and not charged."""

    def __init__(self, calculator: Any) -> None:
        self.calculator = calculator
        self.begun_s: list[float] = []
        self.bare_s: list[float] = []
        self.extra_s: list[float] = []

    def join(self, frames: Sequence[Atoms], **settings: Any) -> Any:
        """Return the calculator's force field, watched."""
        self.field = self.calculator.join(frames, **settings)
        self.device = self.field.device
        return self

    def compute(self, positions: Any, cells: Any, *, stress: bool) -> Any:
        """Compute as the force field does, then the model alone with its graph at hand, denormals flushed as there."""
        import torch

        from hopline.potentials.chgnet_batch import denormals_flushed

        self.begun_s.append(time.perf_counter())
        found = self.field.compute(positions, cells, stress=stress)
        begun_s = time.perf_counter()
        edges = self.field.neighbours.find(positions, cells)
        leaf = edges.vectors_A.to(self.field.dtype, copy=True).requires_grad_()
        start_s = time.perf_counter()
        with denormals_flushed(), torch.enable_grad():
            torch.autograd.grad(self.field.energies(edges.pairs, leaf).sum(), leaf)
        now_s = time.perf_counter()
        self.bare_s.append(now_s - start_s)
        self.extra_s.append(now_s - begun_s)
        return found

    def tens_ms(self) -> tuple[np.ndarray, np.ndarray]:
        """Return milliseconds a step and a bare call, over ten steps each: frames come every ten."""
        steps_s = np.diff(self.begun_s) - self.extra_s[:-1]
        n_tens = len(steps_s) // 10
        parts = (steps_s[: 10 * n_tens], np.array(self.bare_s[: 10 * n_tens]))
        steps, calls = (1e3 * part.reshape(n_tens, 10).mean(axis=1) for part in parts)
        return steps, calls


def steps_over_calls(n_steps: int) -> list[dict[str, Any]]:
    """Compare an NVE step with frames, checks and checkpoints with the bare model call in it."""
    from hopline.potentials import chgnet

    lines = []
    with contextlib.redirect_stdout(sys.stderr):
        calculator = chgnet.ChgnetCalculator(chgnet.load_shipped("0.3.0"))
    for repeats in ((2, 2, 2), (3, 3, 3)):
        atoms = moving(lif(repeats))
        watched = Watched(calculator)
        made = partial(make_engine, calculator=watched, engine="batched")
        with tempfile.TemporaryDirectory() as folder:
            replica = Replica(atoms, stage(n_steps), Path(folder) / "nve.h5")
            simulate([replica], made, Limits(), mobile="Li", checkpoint_interval_s=10.0)
        ours, peer = watched.tens_ms()
        lines.append(row("step_over_call", len(atoms), 1, ours, peer, 1.05, peer_name="bare chgnet call"))
    return lines


def step_ms(atoms: Atoms, calculator: Any, n_replicas: int, n_steps: int) -> float:
    """Return milliseconds a step and replica of our NVE, frames, checks and files included."""
    watched = Stamps(calculator)
    with tempfile.TemporaryDirectory() as folder:
        replicas = [
            Replica(moving(atoms, seed), stage(n_steps), Path(folder) / f"{seed}.h5")
            for seed in range(n_replicas)
        ]
        made = partial(make_engine, calculator=watched, engine="batched")
        simulate(replicas, made, Limits(**HOLD_ON), mobile="H")
    return watched.ms_a_step() / n_replicas


class Stamps(Watched):
    """A calculator that notes when its force calls begin."""

    def compute(self, positions: Any, cells: Any, *, stress: bool) -> Any:
        """Note the time and compute."""
        self.begun_s.append(time.perf_counter())
        return self.field.compute(positions, cells, stress=stress)

    def ms_a_step(self) -> float:
        """Return milliseconds from call to call, without what comes before the first and after the last."""
        return 1e3 * (self.begun_s[-1] - self.begun_s[0]) / (len(self.begun_s) - 1)


def ase_step_ms(atoms: Atoms, calculator: Any, n_steps: int) -> float:
    """Return milliseconds a step of ASE's velocity Verlet, which writes nothing."""
    from ase import units
    from ase.md.verlet import VelocityVerlet

    running = moving(atoms)
    running.calc = calculator
    running.get_forces()
    driver = VelocityVerlet(running, units.fs)
    start_s = time.perf_counter()
    driver.run(n_steps)
    return 1e3 * (time.perf_counter() - start_s) / n_steps


def janus_step_ms(atoms: Atoms, calculator: Any, n_steps: int) -> float:
    """Return milliseconds a step of janus-core's NVE, a frame and a line of statistics every ten."""
    from janus_core.calculations.md import NVE

    running = moving(atoms)
    running.calc = calculator
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        run = NVE(
            struct=running, steps=n_steps, timestep=1.0, temp=TEMPERATURE_K, stats_every=10, traj_every=10,
            file_prefix=Path(folder) / "nve", attach_logger=False, track_carbon=False,
        )  # fmt: skip
        start_s = time.perf_counter()
        run.run()
        return 1e3 * (time.perf_counter() - start_s) / n_steps


def batches_and_peers(turns: Turns, n_steps: int, wanted: Sequence[str]) -> list[dict[str, Any]]:
    """Compare a batch of nine Mg16H with one alone, and with single runs of ASE and janus-core."""
    from mace.calculators import MACECalculator

    from hopline.potentials import mace

    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.model"
        random_mace(path, hidden="16x0e", cutoff_A=5.0)
        ours = mace.load_calculator(path, dtype="float32", head=None)
        with contextlib.redirect_stdout(sys.stderr):
            theirs = MACECalculator(model_paths=str(path), device=str(ours.device), default_dtype="float32")
        for repeats, peer_bar in (((2, 2, 2), 0.6), ((4, 4, 4), 0.95)):
            atoms = magnesium_hydride(repeats)
            # a step of a large cell takes ten times as long
            n = n_steps if len(atoms) == SMALL else max(10, n_steps // 4)
            candidates = {
                "nine": partial(step_ms, atoms, ours, 9, n),
                "one": partial(step_ms, atoms, ours, 1, n),
            }
            if "peers" in wanted:
                candidates["ase"] = partial(ase_step_ms, atoms, theirs, n)
                if importlib.util.find_spec("janus_core"):
                    candidates["janus"] = partial(janus_step_ms, atoms, theirs, n)
            found = turns.ms(candidates)
            bar = 0.45 if len(atoms) == SMALL else None
            peers = {
                "one": ("batch_over_one", bar, "one replica alone"),
                "ase": ("batch_over_ase", peer_bar, "ASE VelocityVerlet, MACECalculator"),
                "janus": ("batch_over_janus", peer_bar, "janus-core NVE, MACECalculator"),
            }
            for name, (measure, wanted_ratio, told) in peers.items():
                if name in found:
                    times = (found["nine"], found[name])
                    lines.append(row(measure, len(atoms), 9, *times, wanted_ratio, peer_name=told))
    return lines


def write(path: Path, lines: Sequence[dict[str, Any]], further_packages: Sequence[str] = ()) -> None:
    """Write the table, with the machine and the versions in each line."""
    machine = {"threads": os.environ.get("OMP_NUM_THREADS", "all"), "device": provenance.device()}
    packages = ("torch", "mace-torch", "chgnet", "ase", *further_packages)
    machine |= {name: metadata.version(name) for name in packages}
    files.write_rows(path, [*lines[0], *machine], [line | machine for line in lines])


def main() -> None:
    """Measure and write the table."""
    args = parse()
    turns = Turns(args.rounds)
    wanted = args.only or ("chgnet_call", "step", "batch", "peers")
    lines = []
    if "chgnet_call" in wanted:
        lines += chgnet_calls(turns)
    if "step" in wanted:
        lines += steps_over_calls(3 * args.steps)
    if {"batch", "peers"} & set(wanted):
        lines += batches_and_peers(turns, args.steps, wanted)
    if args.dynamics:
        write(args.dynamics, lines, ["janus-core"] if importlib.util.find_spec("janus_core") else [])


if __name__ == "__main__":
    console.run(main)
