"""Time and bytes of writing one frame of MD, flushes included: Hopline's H5MD against ASE's .traj, in turn in one run.

ASE's frame is what its MD writes: positions, momenta, energy and forces in float64.
"""

import argparse
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import ase  # noqa: E402
import h5py  # noqa: E402
import numpy as np  # noqa: E402
from ase import Atoms  # noqa: E402
from ase.calculators.singlepoint import SinglePointCalculator  # noqa: E402
from ase.io.trajectory import Trajectory  # noqa: E402

from hopline import console, files  # noqa: E402
from hopline.trajectory_writer import TrajectoryWriter  # noqa: E402

N_ATOMS = (17, 192, 1001)
N_ATOMS_OF_BARS, TIME_BAR, BYTES_BAR = 192, 0.10, 0.20
"""Bars for a frame without velocities, which is what production runs write."""
N_OURS, N_PEER = 5000, 300
"""Frames a round."""


def ours(atoms: Atoms, path: Path, *, velocities: bool) -> tuple[float, float]:
    """Return microseconds and bytes of a frame: created, appended to, synced."""
    positions_A, cell_A = atoms.positions, atoms.cell.array
    moving_A_per_ps = atoms.get_velocities() if velocities else None
    started = time.perf_counter()
    with TrajectoryWriter(path, atoms, frame_interval_ps=0.01, velocities=velocities) as writer:
        for row in range(N_OURS):
            writer.append(
                positions_A, cell_A, step=10 * row, time_ps=0.01 * row, potential_energy_eV=-1.0,
                kinetic_energy_eV=1.0, temperature_K=900.0, velocities_A_per_ps=moving_A_per_ps,
            )  # fmt: skip
        writer.sync()
    return 1e6 * (time.perf_counter() - started) / N_OURS, path.stat().st_size / N_OURS


def peer(atoms: Atoms, path: Path) -> tuple[float, float]:
    """Return the same of ASE's own format."""
    started = time.perf_counter()
    with Trajectory(path, "w") as trajectory:
        for _ in range(N_PEER):
            trajectory.write(atoms)
    return 1e6 * (time.perf_counter() - started) / N_PEER, path.stat().st_size / N_PEER


def main() -> None:
    """Write with both in turns and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=Path, required=True, help="CSV to write")
    parser.add_argument("--rounds", type=int, default=7, help="times that both are run in turns (7)")
    args = parser.parse_args()
    rows = []
    for n_atoms in N_ATOMS:
        rng = np.random.default_rng(n_atoms)
        atoms = Atoms(
            f"Li{n_atoms}", positions=20.0 * rng.random((n_atoms, 3)), cell=[20.0, 20.0, 20.0], pbc=True
        )
        atoms.set_velocities(rng.normal(size=(n_atoms, 3)))
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=rng.normal(size=(n_atoms, 3)))
        for velocities in (False, True):
            pairs = []
            with tempfile.TemporaryDirectory() as folder:
                for _ in range(args.rounds):
                    one = ours(atoms, Path(folder, "a.h5"), velocities=velocities)
                    pairs.append((one, peer(atoms, Path(folder, "a.traj"))))
            for part, (measure, bar) in enumerate((("time_us", TIME_BAR), ("bytes", BYTES_BAR))):
                rows.append(
                    {
                        "n_atoms": n_atoms, "velocities": velocities, "measure": f"{measure}_per_frame",
                        "ours": round(statistics.median(one[part] for one, _ in pairs), 1),
                        "peer": round(statistics.median(other[part] for _, other in pairs), 1),
                        "ratio": round(statistics.median(one[part] / other[part] for one, other in pairs), 3),
                        "bar": bar if n_atoms == N_ATOMS_OF_BARS and not velocities else "",
                        "peer_name": f"ASE {ase.__version__} .traj", "h5py": h5py.__version__,
                        "machine": platform.machine(),
                    }
                )  # fmt: skip
                print(rows[-1], file=sys.stderr)
                files.write_rows(args.frames, list(rows[0]), rows)


if __name__ == "__main__":
    console.run(main)
