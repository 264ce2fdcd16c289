"""Time epochs of CHGNet: its own trainer against ours, in turn, each in a process of its own; seconds and ratios."""

import argparse
import contextlib
import csv
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from hopline import console, files, frames

LABELS = Path(__file__).resolve().parents[1] / "resources" / "lif" / "labels.extxyz"
N_VALID, N_ATOMS = 4, 17
WEIGHTS = {"energy_weight": 1.0, "force_weight": 30.0, "stress_weight": 0.1}
HEADER = [
    "batch_size", "threads", "stock_epoch_s", "ours_epoch_s", "ratio",
    "stock_train_ms_per_frame", "ours_train_ms_per_frame", "train_ratio",
    "stock_validate_ms_per_frame", "ours_validate_ms_per_frame", "validate_ratio",
]  # fmt: skip

Epoch = Callable[[], tuple[float, float]]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="epochs of each (%(default)s)")
    parser.add_argument("--frames", type=int, default=16, help="training frames of 17 atoms (%(default)s)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--training", type=Path, help="CSV to write; without it: stdout only")
    return parser.parse_args(argv)


def stock(labelled: Sequence[Any], batch_size: int) -> Epoch:
    """Return an epoch of CHGNet's trainer; its loader keeps graphs once they are made, as ours does."""
    from chgnet.data.dataset import StructureData, collate_graphs
    from chgnet.trainer import Trainer
    from pymatgen.io.ase import AseAtomsAdaptor
    from torch.utils.data import DataLoader

    from hopline.potentials.chgnet import load_shipped
    from hopline.units import KBAR_PER_EV_PER_A3

    def loader(part: Sequence[Any]) -> Any:
        known = [frames.labels_of(atoms) for atoms in part]
        data = StructureData(
            structures=[AseAtomsAdaptor.get_structure(_bare(atoms)) for atoms in part],
            energies=[one.energy_eV / len(atoms) for one, atoms in zip(known, part, strict=True)],
            forces=[one.forces_eV_per_A for one in known],
            # as VASP writes them, positive under pressure
            stresses=[-one.stress_eV_per_A3 * KBAR_PER_EV_PER_A3 for one in known],
            shuffle=False,
        )
        return DataLoader(data, batch_size=batch_size, shuffle=True, collate_fn=collate_graphs)

    train, valid = loader(labelled[N_VALID:]), loader(labelled[:N_VALID])
    trainer = Trainer(
        model=load_shipped("0.3.0"), targets="efs", criterion="MSE", learning_rate=1e-4, use_device="cpu",
        energy_loss_ratio=WEIGHTS["energy_weight"], force_loss_ratio=WEIGHTS["force_weight"],
        stress_loss_ratio=WEIGHTS["stress_weight"], print_freq=10**9,
    )  # fmt: skip
    return lambda: (_timed(lambda: trainer._train(train, 0)), _timed(lambda: trainer._validate(valid)))  # noqa: SLF001


def ours(labelled: Sequence[Any], batch_size: int) -> Epoch:
    """Return an epoch of our learner."""
    from hopline.finetuning.chgnet_learner import ChgnetLearner, examples, graphs_of
    from hopline.finetuning.recipe import Recipe
    from hopline.potentials.chgnet import load_shipped
    from hopline.potentials.chgnet_batch import denormals_flushed

    model = load_shipped("0.3.0")
    model.composition_model.requires_grad_(requires_grad=False)
    made = examples(graphs_of(model, labelled), labelled, np.zeros(len(labelled)))
    recipe = Recipe(
        epochs=100, learning_rate=1e-4, final_learning_rate_ratio=0.01, batch_size=batch_size, loss="mse",
        max_gradient_norm=100, patience_epochs=100, **WEIGHTS,
    )  # fmt: skip
    learner = ChgnetLearner(model, made[N_VALID:], made[:N_VALID], recipe, seed=0)

    def epoch() -> tuple[float, float]:
        with denormals_flushed():
            return _timed(learner.train_epoch), _timed(learner.validate)

    return epoch


def serve(
    make: Callable[[Sequence[Any], int], Epoch], n_frames: int, batch_size: int, pipe: Connection
) -> None:
    """Train an epoch whenever one is asked for, and send the seconds of training and validation."""
    with contextlib.redirect_stdout(sys.stderr):
        labelled = [atoms for atoms in frames.read_labelled(LABELS) if len(atoms) == N_ATOMS]
        epoch = make(_in_parents_zero(labelled[: N_VALID + n_frames]), batch_size)
        while pipe.recv():
            pipe.send(epoch())


def measure(args: argparse.Namespace, batch_size: int, threads: int) -> list[Any]:
    """Return a row of the table: medians of seconds, and of the ratios of neighbours in time."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    context = multiprocessing.get_context("spawn")
    pipes, children = [], []
    for make in (stock, ours):
        pipe, far_end = context.Pipe()
        children.append(context.Process(target=serve, args=(make, args.frames, batch_size, far_end)))
        children[-1].start()
        pipes.append(pipe)
    seconds = np.array([[_asked(pipe) for pipe in pipes] for _ in range(args.repeats + 1)])[1:]
    for pipe, child in zip(pipes, children, strict=True):
        pipe.send(False)
        child.join()
    per_frame_ms = 1e3 * seconds / np.array([args.frames, N_VALID])
    kinds = [seconds.sum(axis=2), per_frame_ms[:, :, 0], per_frame_ms[:, :, 1]]
    row: list[Any] = [batch_size, threads]
    for kind in kinds:
        row += [f"{value:.4g}" for value in (*np.median(kind, axis=0), np.median(kind[:, 1] / kind[:, 0]))]
    return row


def main() -> None:
    """Time both trainers for each batch size and number of threads."""
    args = parse()
    rows = []
    for threads in args.threads:
        for batch_size in args.batch_sizes:
            rows.append(measure(args, batch_size, threads))
            console.say(str(dict(zip(HEADER, rows[-1], strict=True))))
    csv.writer(sys.stdout).writerows([HEADER, *rows])
    if args.training:
        with files.whole(args.training) as temporary, temporary.open("w", newline="") as file:
            csv.writer(file).writerows([HEADER, *rows])


def _asked(pipe: Connection) -> tuple[float, float]:
    pipe.send(True)
    return pipe.recv()


def _bare(atoms: Any) -> Any:
    """Return species, cell and positions: what else a frame carries is no site property."""
    from ase import Atoms

    return Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)


def _in_parents_zero(labelled: Sequence[Any]) -> Sequence[Any]:
    """Return frames whose energies are counted as CHGNet does, as upstream's trainer wants them."""
    from hopline.finetuning.chgnet_learner import energies_of, graphs_of
    from hopline.finetuning.references import fit_atom_energies, sum_of_atoms
    from hopline.potentials.chgnet import load_shipped

    model = load_shipped("0.3.0")
    residual_eV = np.array([frames.labels_of(atoms).energy_eV for atoms in labelled])
    residual_eV -= energies_of(model, graphs_of(model, labelled), batch_size=1)
    excess_eV = sum_of_atoms(labelled, fit_atom_energies(labelled, residual_eV))
    for atoms, energy_eV in zip(labelled, excess_eV, strict=True):
        atoms.info[frames.ENERGY] -= energy_eV
    return labelled


def _timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    console.run(main)
