"""How many labelled frames a minute ingest_labels.py takes in on one core, beside ASE merely reading the same file."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import ase.build
import ase.io
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from hopline import files  # noqa: E402

SHARED = ROOT.parent / "shared" / "data"
N_FRAMES, REPEATS = 2000, (5, 5, 4)
READ_ONLY = "import ase.io, sys; ase.io.read(sys.argv[1], index=':', format='extxyz')"


def write_set(path: Path, n_frames: int) -> int:
    """Write LiF frames of 200 atoms with energies, forces and stresses of a spring model; return the atoms in each."""
    crystal = ase.build.bulk("LiF", "rocksalt", a=4.08) * REPEATS
    rng = np.random.default_rng(1)
    frames = []
    for _ in range(n_frames):
        moved = rng.normal(0.0, 0.05, (len(crystal), 3))
        atoms = crystal.copy()
        atoms.positions += moved
        atoms.info["REF_energy"] = float(-5.0 * len(crystal) + (moved**2).sum())
        atoms.info["REF_stress"] = rng.normal(0.0, 1e-3, 6)
        atoms.arrays["REF_forces"] = -2.0 * moved
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")
    return len(crystal)


def one_core() -> None:
    """Keep a child process on one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def timed_s(*command: str | Path) -> float:
    """Return the wall time of a command on one core, start-up included."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, *map(str, command)], check=True, preexec_fn=one_core, stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return time.perf_counter() - started


def sources(folder: Path, n_frames: int) -> Iterator[tuple[str, Path]]:
    """Yield what is taken in: a made-up set of 200-atom frames, and the real sets where they are here."""
    made = folder / "made.extxyz"
    yield f"LiF, {write_set(made, n_frames)} atoms", made
    if SHARED.is_dir():
        yield "LiF, Alghamdi et al.", SHARED / "lif" / "step_0_train.xyz"
        yield "MPtrj, 1000 frames", SHARED / "mptrj" / "mptrj-random-1k.xyz"


def main() -> None:
    """Time each source and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ingestion", type=Path, required=True, help="CSV to write")
    parser.add_argument("--frames", type=int, default=N_FRAMES, help="frames of 200 atoms (2000)")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for label, path in sources(folder, args.frames):
            n_frames = sum(line.strip().isdigit() for line in path.open())
            ingest = timed_s(
                ROOT / "scripts" / "ingest_labels.py", "--source", path, "--frames", folder / "out.extxyz",
                "--rejected", folder / "out.csv", "--max-rejected-fraction", "1",
            )  # fmt: skip
            read = timed_s("-c", READ_ONLY, path)
            rows.append(
                {
                    "source": label,
                    "frames": n_frames,
                    "ingest_s": round(ingest, 2),
                    "frames_per_minute": round(60 * n_frames / ingest),
                    "ase_read_s": round(read, 2),
                    "ingest_over_read": round(ingest / read, 2),
                }
            )
            print(rows[-1])
    files.write_rows(args.ingestion, list(rows[0]), rows)


if __name__ == "__main__":
    main()
