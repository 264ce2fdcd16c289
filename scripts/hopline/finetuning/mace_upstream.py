"""What ``mace_run_train`` builds, and its epochs in our hands.

Upstream reads the data and builds model, heads, loss, optimizer and averaged weights (Batatia et al., NeurIPS 2022;
multi-head replay: arXiv:2606.12704). Its settings that switch themselves on or do nothing are all stated here; where it
would start its epochs, which forget much when they are killed and never stop early, `loop.run_epochs` takes over.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mace  # noqa: F401  # before e3nn: it lets torch load e3nn's constants
import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from mace import tools
from mace.cli import run_train
from mace.data import AtomicData, config_from_atoms
from mace.tools import torch_geometric
from mace.tools.train import evaluate, train_one_epoch

from hopline.console import InputError
from hopline.files import read_torch, write_tensors
from hopline.finetuning.loop import until_stopped
from hopline.finetuning.recipe import Recipe
from hopline.frames import ENERGY, FORCES, STRESS, write_frames
from hopline.potentials.calculator import Prediction
from hopline.potentials.mace import dtype_of
from hopline.units import GPA_PER_EV_PER_A3, MEV_PER_EV

LABELS_HEAD, REPLAY_HEAD = "Default", "pt_head"
"""Upstream's names; the replay head has to be called so."""
LOSSES = {"mse": "stress", "universal": "universal"}
LOG = "mace.log"


@dataclass(frozen=True)
class Data:
    """Frames of a training; ``replay`` are those of the second head, to train and to validate."""

    train: Sequence[Atoms]
    valid: Sequence[Atoms]
    replay: tuple[Sequence[Atoms], Sequence[Atoms]] | None = None


def built(
    data: Data,
    recipe: Recipe,
    *,
    parent_file: Path | None,
    atom_energies_eV: Mapping[str, float],
    seed: int,
    folder: Path,
) -> Mapping[str, Any]:
    """Return model, loss, loaders, optimizer and averages, ready for the first epoch; call it within `upstream`.

    Parameters
    ----------
    data
        Labelled frames; replay frames make the training multi-head.
    recipe
        All settings; ``freeze`` and the LoRA settings say by themselves what is trained.
    parent_file
        Model file with one head to start from; None: random weights.
    atom_energies_eV
        Reference energies of the labels' head by element, of every element that the frames hold.
    seed
        Of random weights and of the order of frames.
    folder
        Where upstream finds its files.

    Raises
    ------
    InputError
        If there are fewer frames than a batch, or an element has no reference energy.
    """
    _refuse_unfit(data, recipe, atom_energies_eV)
    if parent_file is not None:
        parent_file = _in_precision(parent_file, str(recipe.dtype), folder)
    flags = _flags(data, recipe, parent_file, atom_energies_eV, seed, folder)

    def leave(**objects: Any) -> None:
        raise _BuiltError(objects)

    upstreams_epochs, tools.train = tools.train, leave
    try:
        run_train.run(tools.build_default_arg_parser().parse_args(flags))
    except _BuiltError as arrived:
        _set_references(arrived.objects["model"], atom_energies_eV)
        _fix_untrained(arrived.objects["model"], arrived.objects["optimizer"])
        return arrived.objects
    finally:
        tools.train = upstreams_epochs
    raise RuntimeError("mace_run_train ended before its training began")


def _set_references(model: Any, atom_energies_eV: Mapping[str, float]) -> None:
    """Write the reference energies of the labels' head into a model, in place.

    Where a fine-tuned model keeps all elements of its parent, upstream takes over the parent's references with its
    weights, whatever E0s it was given (mace-torch 0.3.16, `load_foundations_elements`).
    """
    energies_eV = model.atomic_energies_fn.atomic_energies
    row = energies_eV[list(model.heads).index(LABELS_HEAD)] if energies_eV.ndim > 1 else energies_eV
    with torch.no_grad():
        for column, number in enumerate(model.atomic_numbers.tolist()):
            symbol = chemical_symbols[number]
            if symbol in atom_energies_eV:
                row[column] = atom_energies_eV[symbol]


def _fix_untrained(model: Any, optimizer: torch.optim.Optimizer) -> None:
    """Ask for no gradients of what the optimizer does not train.

    Upstream makes the Bessel functions' frequencies of a fine-tuned model a parameter of no group (mace-torch 0.3.16,
    `load_foundations_elements`): nothing clears its gradient, which grows from step to step and counts in the norm that
    the others are cut to, until a restart forgets it.
    """
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for parameter in model.parameters():
        if id(parameter) not in trained:
            parameter.requires_grad_(requires_grad=False)


def _in_precision(parent_file: Path, dtype: str, folder: Path) -> Path:
    """Return a parent's file, or that of a copy in the training's precision.

    Upstream wants the cutoffs of parent and training equal to the last bit, and 3.3 A is another number in float32.
    """
    model = read_torch(parent_file, kind="MACE model", only_tensors=False)
    if dtype_of(model) == dtype:
        return parent_file
    copied = folder / f"parent-{dtype}.pt"
    write_tensors(copied, model.to(getattr(torch, dtype)))
    return copied


class Learner:
    """What upstream built, as `loop.run_epochs` wants it.

    ``frames_per_epoch`` counts the frames of each head in the batches of the last epoch.
    """

    def __init__(self, objects: Mapping[str, Any]) -> None:
        self.model, self.optimizer, self.ema = objects["model"], objects["optimizer"], objects["ema"]
        self.scheduler, self.loader = objects["lr_scheduler"], objects["train_loader"]
        self.valid_loaders = objects["valid_loaders"]
        self.common = {name: objects[name] for name in ("loss_fn", "output_args", "device")}
        self.max_gradient_norm = objects["max_grad_norm"]
        self.frames_per_epoch: Mapping[str, int] = {}

    def learning_rate(self) -> float:
        """Return the largest learning rate; frozen groups have none."""
        return float(max(group["lr"] for group in self.optimizer.param_groups))

    def train_epoch(self) -> float:
        """Train one epoch and return the mean loss of its batches."""
        losses = _Losses()
        seen: Counter[str] = Counter()
        train_one_epoch(
            model=self.model, data_loader=self._batches(seen), optimizer=self.optimizer, epoch=0, ema=self.ema,
            max_grad_norm=self.max_gradient_norm, logger=losses, distributed=False, **self.common,
        )  # fmt: skip
        self.scheduler.step()
        self.frames_per_epoch = dict(seen)
        return losses.mean()

    def _batches(self, seen: Counter[str]) -> Iterator[Any]:
        for batch in until_stopped(self.loader):
            seen.update(self.model.heads[head] for head in batch["head"].tolist())
            yield batch

    def validate(self) -> dict[str, float]:
        """Return the errors of the averaged weights on the validation frames of each head."""
        common = self.common | {"loss_fn": self._summed}
        with self._averaged():
            found = {
                head: evaluate(model=self.model, data_loader=loader, **common)
                for head, loader in self.valid_loaders.items()
            }
        loss, errors = found[LABELS_HEAD]
        stress = errors.get("rmse_stress")
        row = {
            "valid_loss": float(loss),
            "valid_energy_rmse_meV_per_atom": errors["rmse_e_per_atom"] * MEV_PER_EV,
            "valid_force_rmse_meV_per_A": errors["rmse_f"] * MEV_PER_EV,
            "valid_stress_rmse_GPa": math.nan if stress is None else stress * GPA_PER_EV_PER_A3,
        }
        if REPLAY_HEAD in found:
            row["replay_force_rmse_meV_per_A"] = found[REPLAY_HEAD][1]["rmse_f"] * MEV_PER_EV
        return row

    def weights(self) -> dict[str, Any]:
        """Return a copy of the averaged weights."""
        with self._averaged():
            return {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}

    def state(self) -> dict[str, Any]:
        """Return weights, optimizer, averages, schedule and random states."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "ema": self.ema.state_dict(),
            "order": self.loader.generator.get_state(),
            "random": torch.get_rng_state(),
            "frames_per_epoch": dict(self.frames_per_epoch),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a `state`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.ema.load_state_dict(state["ema"])
        self.loader.generator.set_state(state["order"])
        torch.set_rng_state(state["random"])
        self.frames_per_epoch = state["frames_per_epoch"]

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        """Return what the labels' head says about frames, taken by upstream's own path, in one batch."""
        heads, table = list(self.model.heads), tools.AtomicNumberTable(self.model.atomic_numbers.tolist())
        graphs = [
            AtomicData.from_config(
                config_from_atoms(_bare(atoms), head_name=LABELS_HEAD), z_table=table,
                cutoff=float(self.model.r_max), heads=heads,
            )
            for atoms in frames
        ]  # fmt: skip
        batch = torch_geometric.Batch.from_data_list(graphs).to(self.common["device"])
        out = self.model(batch.to_dict(), training=False, compute_force=True, compute_stress=False)
        forces = np.split(
            out["forces"].detach().cpu().double().numpy(), np.cumsum([len(atoms) for atoms in frames])[:-1]
        )
        return [
            Prediction(energy_eV, of_frame)
            for energy_eV, of_frame in zip(out["energy"].tolist(), forces, strict=True)
        ]

    def _summed(self, pred: Mapping[str, Any], ref: Any) -> Any:
        """Return the loss of a batch times its frames: upstream divides the sum over batches by the frames of all."""
        return self.common["loss_fn"](pred=pred, ref=ref) * ref.num_graphs

    def _averaged(self) -> AbstractContextManager[None]:
        return self.ema.average_parameters()


class _Losses:
    """Stands where upstream wants its logger and keeps the losses of an epoch's batches."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def log(self, step: Mapping[str, Any]) -> None:
        """Keep a batch's loss."""
        self.values.append(float(step["loss"]))

    def mean(self) -> float:
        """Return the mean loss."""
        return float(np.mean(self.values))


class _BuiltError(Exception):
    """Carries what upstream built out of it, at the place where its epochs would begin."""

    def __init__(self, objects: Mapping[str, Any]) -> None:
        super().__init__("built")
        self.objects = objects


@contextmanager
def upstream(dtype: str, folder: Path) -> Iterator[None]:
    """Undo what upstream leaves behind in a process, log handlers and default type; its words go to ``folder``."""
    logger, before = logging.getLogger(), torch.get_default_dtype()
    handlers, level = list(logger.handlers), logger.level
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_default_dtype(getattr(torch, dtype))
    logging.captureWarnings(capture=True)
    with (folder / LOG).open("w") as file:
        try:
            with redirect_stdout(file):
                yield
        finally:
            logging.captureWarnings(capture=False)
            torch.set_default_dtype(before)
            for handler in [one for one in logger.handlers if one not in handlers]:
                logger.removeHandler(handler)
                handler.close()
            logger.setLevel(level)


def _bare(atoms: Atoms) -> Atoms:
    """Return a frame with its labels alone: weights and heads that upstream would find in its ``info`` are not ours."""
    bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    bare.info = {name: atoms.info[name] for name in (ENERGY, STRESS) if name in atoms.info}
    bare.arrays[FORCES] = atoms.arrays[FORCES]
    return bare


def _refuse_unfit(data: Data, recipe: Recipe, atom_energies_eV: Mapping[str, float]) -> None:
    if recipe.loss not in LOSSES:
        raise InputError(f"MACE has no loss {recipe.loss}; there are {', '.join(LOSSES)}")
    if data.replay is not None and recipe.loss != "universal":
        raise InputError(
            "multi-head training uses MACE's universal loss, whatever is asked for: say loss universal"
        )
    if len(data.train) < recipe.batch_size:
        raise InputError(
            f"{len(data.train)} training frames do not fill one batch of {recipe.batch_size}: lower training.batch_size"
        )
    replayed = [atoms for part in data.replay or () for atoms in part]
    missing = {symbol for atoms in (*data.train, *data.valid, *replayed) for symbol in atoms.symbols} - set(
        atom_energies_eV
    )
    if missing:
        raise InputError(
            f"{', '.join(sorted(missing))}: no atomic reference energy, or the parent does not know it"
        )


def _flags(
    data: Data,
    recipe: Recipe,
    parent_file: Path | None,
    atom_energies_eV: Mapping[str, float],
    seed: int,
    folder: Path,
) -> list[str]:
    files = {"train_file": data.train, "valid_file": data.valid}
    if data.replay is not None:
        files |= {"pt_train_file": data.replay[0], "pt_valid_file": data.replay[1]}
    for name, frames in files.items():
        write_frames(folder / f"{name}.extxyz", [_bare(atoms) for atoms in frames])
    energies = {atomic_numbers[symbol]: energy for symbol, energy in atom_energies_eV.items()}
    settings: dict[str, Any] = {
        "name": "model",
        "work_dir": folder,
        "seed": seed,
        **{name: folder / f"{name}.extxyz" for name in files},
        "energy_key": ENERGY,
        "forces_key": FORCES,
        "stress_key": STRESS,
        "E0s": repr(energies),
        "model": "MACE",
        "loss": LOSSES[recipe.loss],
        "energy_weight": recipe.energy_weight,
        "forces_weight": recipe.force_weight,
        "stress_weight": recipe.stress_weight,
        "compute_stress": True,
        "error_table": "PerAtomRMSEstressvirials",
        "batch_size": recipe.batch_size,
        "valid_batch_size": recipe.batch_size,
        "max_num_epochs": recipe.epochs,
        "lr": recipe.learning_rate,
        "scheduler": "ExponentialLR",
        "lr_scheduler_gamma": recipe.final_learning_rate_ratio ** (1.0 / recipe.epochs),
        "weight_decay": recipe.weight_decay,
        "ema_decay": recipe.ema_decay,
        "clip_grad": recipe.max_gradient_norm,
        "default_dtype": recipe.dtype,
        "plot": False,
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "multiheads_finetuning": data.replay is not None,
    }
    switches = ["--ema"]
    if parent_file is None:
        # the universal short-range repulsion (ZBL) stands in where no label reaches: without it a potential trained on
        # little data lets two atoms fall into each other
        switches.append("--pair_repulsion")
        settings |= {
            "num_interactions": recipe.layers,
            "num_channels": recipe.channels,
            "max_L": recipe.max_L,
            "r_max": recipe.cutoff_A,
            "max_ell": recipe.max_ell,
            "correlation": recipe.correlation,
        }
    else:
        # elements that the labels lack stay in the model, which may be asked for them
        settings |= {"foundation_model": parent_file, "foundation_model_elements": True}
    if recipe.freeze is not None:
        settings["freeze"] = recipe.freeze
    if recipe.lora_rank is not None:
        settings |= {"lora": True, "lora_rank": recipe.lora_rank, "lora_alpha": recipe.lora_alpha}
    if data.replay is not None:
        # else learning rate and averaging would be upstream's own, whatever is asked for
        settings |= {"force_mh_ft_lr": True, "real_pt_data_ratio_threshold": recipe.min_finetune_ratio}
    return [*switches, *(f"--{name}={value}" for name, value in settings.items())]
