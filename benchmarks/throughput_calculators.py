"""Measure force calls of CHGNet: its own calculator against ours, in turn in one run; milliseconds and ratios."""

import argparse
import contextlib
import csv
import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from hopline import console, files, structures


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15, help="force calls of each (%(default)s)")
    parser.add_argument("--throughput", type=Path, help="CSV to write; without it: stdout only")
    return parser.parse_args(argv)


def main() -> None:
    """Time both calculators on LiF cells with an interstitial, call by call."""
    args = parse()
    from chgnet.model.dynamics import CHGNetCalculator

    from hopline.potentials import chgnet

    host = structures.build_prototype("rocksalt", ["Li", "F"], [4.08], conventional=False)
    # chgnet announces itself on stdout, which is for the table
    with contextlib.redirect_stdout(sys.stderr):
        stock = CHGNetCalculator(chgnet.load_shipped("0.3.0"))
        ours = chgnet.ChgnetCalculator(chgnet.load_shipped("0.3.0"))
    rows = []
    for repeats in ((2, 2, 2), (2, 2, 4)):
        atoms = structures.add_interstitials(host.repeat(repeats), "Li", 1)
        wall_ms: dict[str, list[float]] = {"stock": [], "ours": []}
        for call in range(args.repeats):
            atoms.rattle(0.01, seed=call)
            for name, calculator in (("stock", stock), ("ours", ours)):
                start = time.perf_counter()
                calculator.calculate(atoms)
                wall_ms[name].append(1e3 * (time.perf_counter() - start))
        ratio = np.median(np.array(wall_ms["ours"]) / np.array(wall_ms["stock"]))
        medians = {name: float(np.median(values)) for name, values in wall_ms.items()}
        figures = [f"{value:.1f}" for value in medians.values()]
        rows.append([len(atoms), os.environ.get("OMP_NUM_THREADS", ""), *figures, f"{ratio:.3f}"])
    header = ["n_atoms", "threads", "stock_ms", "ours_ms", "ratio"]
    csv.writer(sys.stdout).writerows([header, *rows])
    if args.throughput:
        with files.whole(args.throughput) as temporary, temporary.open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])


if __name__ == "__main__":
    console.run(main)
