"""Is a trained potential fit to be run? Walls between all pairs of elements, and a hot run.

A potential has never seen two atoms closer than its training frames hold them, and its energy may fall there: an atom
that gets into such a hole ends a long run, or spoils it unseen. So every pair of elements is pushed together, alone
in a box and in a training frame, and a short run is made hotter than any that will be asked for. In vacuum the curve
is of the two atoms alone; in the crystal it is of the surroundings that a run visits, which the labels speak of.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import NDArray

from hopline.console import InputError, progress, say
from hopline.dynamics.checks import Limits
from hopline.dynamics.outcomes import Outcome, offending_of
from hopline.dynamics.protocol import with_momenta
from hopline.dynamics.replica import Replica
from hopline.dynamics.runs import make_engine
from hopline.dynamics.simulation import simulate
from hopline.dynamics.stage import Stage
from hopline.frames import read_frames
from hopline.potentials.calculator import BatchedCalculator

MARGIN_A = 14.0
"""Empty space around a pair: its images are out of reach of the potentials here."""
DIP_EV = 0.3
"""A fall, or a rise before it, counts from this depth on: 2 kT at 1500 K; a shallower one holds no atom for long."""
LEVEL_EV = 1.0
"""A fall is a hole if it ends below this energy above the bond: 8 kT at 1500 K; higher ones are left again."""
DEEPEST_BOND_EV = 8.0
"""A fall from the start by more is no bond. Few pairs are bound by more even from far apart (CO 11.1, N2 9.8, ThO
9.1 eV), and the scans start where atoms are bound already: from the sum of the radii ThO falls by 5 eV (Morse), the
deepest of 210 pairs by shipped CHGNet, O-Zr, by 4.2 eV."""

BOTTOMLESS_EV = -1e30


@dataclass(frozen=True)
class Scan:
    """How pairs are pushed together.

    ``scan_points`` distances go from the start (in vacuum the sum of the covalent radii, in a crystal the shortest
    distance of such a pair) down to ``scan_from_ratio`` times the sum; ``min_barrier_eV`` has to be climbed on the
    way to a hole.
    """

    min_barrier_eV: float
    scan_from_ratio: float
    scan_points: int


@dataclass(frozen=True)
class Wall:
    """What keeps one pair of elements apart.

    ``surroundings`` is vacuum or crystal. ``barrier_eV`` has to be climbed, from the energy at ``start_A``, before
    the energy falls into a hole that begins at ``hole_A``; where there is none (None) it is the highest of the scan.
    ``lowest_eV`` is the lowest energy of the scan, from the start.
    ``turning_A`` is where atoms with ``min_barrier_eV`` are turned back, None where nothing turns them.
    ``steepest_eV_per_A`` is the steepest rise on the way.
    """

    pair: str
    surroundings: str
    start_A: float
    barrier_eV: float
    turning_A: float | None
    hole_A: float | None
    lowest_eV: float
    steepest_eV_per_A: float


@dataclass(frozen=True)
class Examination:
    """Every wall, the curves behind them (pair, surroundings, distance_A, energy_eV from the start), the hot run.

    ``offending`` is the frame that ended the hot run, if one did.
    """

    walls: list[Wall]
    curves: pd.DataFrame
    scan: Scan
    hot: Stage
    hot_run: Outcome
    offending: Atoms | None

    def figures(self) -> dict[str, Any]:
        """Return all that was found, for JSON."""
        outcome = self.hot_run
        return {
            **asdict(self.scan),
            "walls": [asdict(wall) for wall in self.walls],
            "lowest_barrier_eV": min(wall.barrier_eV for wall in self.walls),
            "hot_run": {
                "temperature_K": self.hot.temperature_K,
                "timestep_fs": self.hot.timestep_fs,
                "simulated_ps": outcome.simulated_ps,
                "status": outcome.status,
                "reason": outcome.reason,
                "checks": outcome.checks,
            },
        }

    def faults(self) -> list[str]:
        """Return why the potential is not fit to be run, one sentence each; empty where it is."""
        least_eV = self.scan.min_barrier_eV
        found = [
            f"{_told(wall)}; at least {least_eV:g} eV are wanted"
            for wall in self.walls
            if wall.barrier_eV < least_eV
        ]
        if self.hot_run.status != "finished":
            found.append(f"the run at {self.hot.temperature_K:g} K exploded {self.hot_run.reason}")
        return found


def examine(
    calculator: Calculator, frames: Sequence[Atoms], *, scan: Scan, hot: Stage, limits: Limits
) -> Examination:
    """Push all pairs of the frames' elements together and run the hottest frame at the hot stage's temperature.

    ``frames`` are the potential's training frames. A pair is pushed together in the hottest frame that holds it; the
    hot run starts from the hottest of those with the most elements, so that the mobile one is among them.
    """
    by_heat = sorted(frames, key=lambda atoms: -float(atoms.info.get("temperature_K", 0.0)))
    hottest = max(by_heat, key=lambda atoms: len(set(atoms.symbols)))
    elements = sorted({symbol for atoms in frames for symbol in atoms.symbols})
    approaches = [_in_vacuum(pair) for pair in combinations_with_replacement(elements, 2)]
    for pair in combinations_with_replacement(elements, 2):
        in_crystal = next(
            (found for atoms in by_heat if (found := _in_crystal(atoms, pair)) is not None), None
        )
        if in_crystal is None:
            say(f"{'-'.join(pair)}: no training frame holds this pair, it is pushed together in vacuum alone")
        else:
            approaches.append(in_crystal)
    walls, curves = [], []
    for approach in progress(approaches, total=len(approaches), label="push together", unit="pairs"):
        distances_A, energies_eV = _curve(calculator, approach, scan)
        wall = _wall(approach, distances_A, energies_eV, scan)
        say(_told(wall))
        walls.append(wall)
        names = {"pair": wall.pair, "surroundings": wall.surroundings}
        curves.append(pd.DataFrame({**names, "distance_A": distances_A, "energy_eV": energies_eV}))
    outcome, offending = _run_hot(calculator, hottest, hot, limits)
    return Examination(walls, pd.concat(curves, ignore_index=True), scan, hot, outcome, offending)


def _run_hot(
    calculator: Calculator, start: Atoms, hot: Stage, limits: Limits
) -> tuple[Outcome, Atoms | None]:
    """Return how a run from a frame ended, and the frame that ended it, if one did."""
    engine = "batched" if isinstance(calculator, BatchedCalculator) else "ase"
    with tempfile.TemporaryDirectory() as folder:
        replica = Replica(with_momenta(start, hot), hot, Path(folder) / "hot.h5")
        made = partial(make_engine, calculator=calculator, engine=engine)
        [outcome] = simulate([replica], made, limits)
        offending = offending_of(replica.trajectory)
        return outcome, read_frames(offending)[0] if offending.exists() else None


def judge_wall(
    distances_A: NDArray[np.float64], energies_eV: NDArray[np.float64], *, min_barrier_eV: float
) -> tuple[float, float | None, float | None]:
    """Return barrier (eV), turning distance and where the hole begins (A or None) of a scan from outside inwards.

    The way down to the bond is free, since a bond may be shorter than the start: the bond is the lowest point before
    the energy first rises by ``DIP_EV``. Behind it a fall by ``DIP_EV`` from the highest energy so far to less than
    ``LEVEL_EV`` above the bond is a hole. A dip that stays higher is none: it gives no energy away, and the shipped
    CHGNet 0.3.0 has some. A way down by more than ``DEEPEST_BOND_EV`` leads to no bond: it is a hole from the start
    on, whatever wall stands behind it. An energy that is no finite number is a bottomless hole.
    """
    relative = np.where(np.isfinite(energies_eV), energies_eV, BOTTOMLESS_EV) - energies_eV[0]
    climbs = np.flatnonzero(relative - np.minimum.accumulate(relative) >= DIP_EV)
    bond = int(relative[: climbs[0]].argmin()) if climbs.size else len(relative) - 1
    if relative[bond] < -DEEPEST_BOND_EV:
        bond = 0
    inside = relative[bond:]
    falls = (np.maximum.accumulate(inside) - inside >= DIP_EV) & (inside < inside[0] + LEVEL_EV)
    hole = int(falls.argmax()) if falls.any() else len(inside)
    turned = np.flatnonzero(inside[:hole] >= min_barrier_eV)
    return (
        float(max(inside[:hole].max(), 0.0)),
        float(distances_A[bond + turned[0]]) if turned.size else None,
        float(distances_A[bond + hole]) if hole < len(inside) else None,
    )


@dataclass(frozen=True)
class _Approach:
    """Atom ``moved`` of ``atoms`` goes along ``direction`` (unit vector) towards atom ``towards``, from ``start_A``."""

    pair: str
    surroundings: str
    atoms: Atoms
    moved: int
    towards: int
    direction: NDArray[np.float64]
    start_A: float
    sum_of_radii_A: float


def _sum_of_radii(pair: tuple[str, str]) -> float:
    return float(sum(covalent_radii[atomic_numbers[symbol]] for symbol in pair))


def _in_vacuum(pair: tuple[str, str]) -> _Approach:
    start_A = _sum_of_radii(pair)
    box_A = MARGIN_A + start_A
    atoms = Atoms(pair, positions=[[0, 0, 0], [start_A, 0, 0]], cell=np.eye(3) * box_A, pbc=True)
    towards_first = np.array([-1.0, 0.0, 0.0])
    return _Approach("-".join(pair), "vacuum", atoms, 1, 0, towards_first, start_A, start_A)


def _in_crystal(atoms: Atoms, pair: tuple[str, str]) -> _Approach | None:
    """Return the approach of the closest such pair of a frame, the lighter atom moving; None if there is no pair."""
    symbols = np.array(atoms.get_chemical_symbols())
    lighter, heavier = sorted(pair, key=lambda symbol: atomic_numbers[symbol])
    rows, others = np.flatnonzero(symbols == lighter), np.flatnonzero(symbols == heavier)
    nearest: tuple[float, int, int] | None = None
    for row in rows:
        candidates = others[others != row]
        if not candidates.size:
            continue
        apart_A = atoms.get_distances(row, candidates, mic=True)
        found = (float(apart_A.min()), int(row), int(candidates[apart_A.argmin()]))
        nearest = found if nearest is None else min(nearest, found)
    radii_A = _sum_of_radii(pair)
    if nearest is None:
        return None
    start_A, moved, towards = nearest
    direction = atoms.get_distance(moved, towards, mic=True, vector=True) / start_A
    return _Approach("-".join(pair), "crystal", atoms, moved, towards, direction, start_A, radii_A)


def _curve(
    calculator: Calculator, approach: _Approach, scan: Scan
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return distances (A) from the start inwards and the energies there, eV from the energy at the start."""
    distances_A = np.linspace(
        approach.start_A, scan.scan_from_ratio * approach.sum_of_radii_A, scan.scan_points
    )
    atoms = Atoms(approach.atoms.numbers, approach.atoms.positions, cell=approach.atoms.cell, pbc=True)
    energies_eV = []
    for distance_A in distances_A:
        atoms.positions[approach.moved] = (
            approach.atoms.positions[approach.moved] + (approach.start_A - distance_A) * approach.direction
        )
        calculator.calculate(atoms, ["energy"])
        energies_eV.append(float(calculator.results["energy"]))
    found_eV = np.array(energies_eV)
    if not np.isfinite(found_eV[0]):
        raise InputError(
            f"the energy of {approach.pair} in {approach.surroundings}, {approach.start_A:.2f} A apart, is not finite"
        )
    return distances_A, found_eV - found_eV[0]


def _wall(
    approach: _Approach, distances_A: NDArray[np.float64], energies_eV: NDArray[np.float64], scan: Scan
) -> Wall:
    barrier_eV, turning_A, hole_A = judge_wall(distances_A, energies_eV, min_barrier_eV=scan.min_barrier_eV)
    finite = energies_eV[np.isfinite(energies_eV)]
    step_A = float(distances_A[0] - distances_A[1])
    return Wall(
        pair=approach.pair,
        surroundings=approach.surroundings,
        start_A=approach.start_A,
        barrier_eV=barrier_eV,
        turning_A=turning_A,
        hole_A=hole_A,
        lowest_eV=float(finite.min()),
        steepest_eV_per_A=float(np.diff(finite).max(initial=0.0) / step_A),
    )


def _told(wall: Wall) -> str:
    where = "no wall behind" if wall.turning_A is None else "no hole"
    if wall.hole_A is not None:
        deep = f", {-wall.lowest_eV:.0f} eV deep: no bond is" if wall.lowest_eV < -DEEPEST_BOND_EV else ""
        where = f"a hole from {wall.hole_A:.2f} A on{deep}"
    climb = f"{wall.barrier_eV:.2f} eV to climb from {wall.start_A:.2f} A"
    return f"{wall.pair} in {wall.surroundings}: {climb}, {where}"
