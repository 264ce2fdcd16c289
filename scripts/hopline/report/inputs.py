"""Everything a report tells, read from the files of the stages; what is missing stays empty."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hopline.console import InputError
from hopline.files import read_json, sha256
from hopline.frames import read_frames
from hopline.report.places import Point, names_below, point_of, temperature_of

EXPLORATION = "exploration"
"""Stage of the runs that gathered the pool of frames; they belong to no potential under study."""
COLUMNS = {
    "training": ("epoch", "train_loss", "valid_energy_rmse_meV_per_atom", "valid_force_rmse_meV_per_A"),
    "predictions": ("kind", "element", "composition", "reference", "predicted"),
    "maps": ("pc1", "pc2", "set", "composition", "novelty"),
    "curves": ("lag_ps", "mean_msd_A2", "local_exponent"),
    "correlations": ("centre", "neighbour", "r_A", "g"),
    "rejected": ("source", "frame", "reason"),
}
"""Columns that each kind of table must have."""

Files = Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class Cell:
    """A simulated cell: number of atoms, formula, and the least distance between opposite faces in A."""

    n_atoms: int
    formula: str
    width_A: float


@dataclass(frozen=True)
class Run:
    """One molecular-dynamics run: its point, its stage (``npt``, ``nvt``, ``nve-1``, ...) and its sidecar."""

    point: Point
    stage: str
    sidecar: Mapping[str, Any]


@dataclass(frozen=True)
class Material:
    """All results of one system, by potential, dataset, composition, or point."""

    system: str
    host: str | None = None
    mobile: str | None = None
    cells: Mapping[str, Cell] = field(default_factory=dict)
    cards: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    card_names: Mapping[str, str] = field(default_factory=dict)
    evaluations: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    predictions: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    further: Mapping[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """Evaluations on further test sets, by potential and test set."""
    stability: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    committees: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    training: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    coverage: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    maps: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    datasets: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    rejected: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    runs: Sequence[Run] = ()
    diffusivities: Mapping[Point, dict[str, Any]] = field(default_factory=dict)
    curves: Mapping[Point, pd.DataFrame] = field(default_factory=dict)
    correlations: Mapping[Point, pd.DataFrame] = field(default_factory=dict)
    arrhenius: Mapping[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    records: Sequence[Mapping[str, Any]] = ()
    """Provenance of every run found beside the results, each once, oldest first."""

    @property
    def potentials(self) -> list[str]:
        """Names of all potentials, in the order in which they were given."""
        named = [*self.cards, *self.evaluations, *self.predictions, *self.training, *self.stability]
        named += [potential for potential, _ in self.further]
        named += [
            point.potential
            for found in (self.diffusivities, self.curves, self.correlations)
            for point in found
        ]
        named += [line[0] for line in self.arrhenius]
        named += [run.point.potential for run in self.runs if run.stage != EXPLORATION]
        return list(dict.fromkeys(named))

    @property
    def lines(self) -> list[tuple[str, str]]:
        """Potential and composition of every series of temperatures."""
        return list(dict.fromkeys([*(point.line for point in self.diffusivities), *self.arrhenius]))

    def parent_of(self, potential: str) -> str | None:
        """Return the name of the potential that this one was trained from, where its card is among the cards."""
        return self.card_names.get(str(self.cards.get(potential, {}).get("parent_card_sha256")))


def read_material(
    system: str,
    *,
    host: str | None = None,
    mobile: str | None = None,
    structures: Files = (),
    cards: Files = (),
    evaluations: Files = (),
    predictions: Files = (),
    further: Files = (),
    stability: Files = (),
    committees: Files = (),
    training: Files = (),
    coverage: Files = (),
    maps: Files = (),
    datasets: Files = (),
    rejected: Files = (),
    sidecars: Files = (),
    diffusivities: Files = (),
    curves: Files = (),
    correlations: Files = (),
    arrhenius: Files = (),
) -> Material:
    """Read the results of one system; names of potentials, compositions and temperatures come from the folders.

    Raises
    ------
    InputError
        If a file is missing, not what its place promises, or lies outside the layout of ``results/``.
    """
    runs = [_run(path) for path in sidecars]
    by_line = {names_below(path, "diffusion", 2): read_json(path) for path in arrhenius}
    return Material(
        system=system,
        host=host,
        mobile=mobile or _mobile(diffusivities),
        cells={Path(path).stem: _cell(path) for path in structures},
        cards=_by_name(cards, "potentials"),
        card_names={sha256(path): names_below(path, "potentials", 1)[0] for path in cards},
        evaluations=_by_name(evaluations, "potentials"),
        predictions=_tables(predictions, "potentials", "predictions"),
        further={_potential_and_set(path): read_json(path) for path in further},
        stability=_by_name(stability, "potentials"),
        committees={Path(path).stem: read_json(path) for path in committees},
        training=_tables(training, "potentials", "training"),
        coverage=_by_name(coverage, "sampling"),
        maps=_tables(maps, "sampling", "maps"),
        datasets=_by_name(datasets, "datasets"),
        rejected=_tables(rejected, "labels", "rejected"),
        runs=runs,
        diffusivities={point_of(path, "diffusion"): read_json(path) for path in diffusivities},
        curves={point_of(path, "diffusion"): _table(path, "curves") for path in curves},
        correlations={point_of(path, "diffusion"): _table(path, "correlations") for path in correlations},
        arrhenius={(line[0], line[1]): content for line, content in by_line.items()},
        records=_records(
            [run.sidecar for run in runs],
            exact=[*diffusivities, *arrhenius, *correlations, *structures, *further, *committees],
            folders=[*cards, *coverage, *datasets, *rejected],
        ),
    )


def _by_name(paths: Files, folder: str) -> dict[str, dict[str, Any]]:
    return {names_below(path, folder, 1)[0]: read_json(path) for path in paths}


def _potential_and_set(path: str | os.PathLike[str]) -> tuple[str, str]:
    potential, _, name = names_below(path, "potentials", 3)
    return potential, Path(name).stem


def _tables(paths: Files, folder: str, kind: str) -> dict[str, pd.DataFrame]:
    return {names_below(path, folder, 1)[0]: _table(path, kind) for path in paths}


def _table(path: str | os.PathLike[str], kind: str) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, keep_default_na=False, na_values=["", "nan"])
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a complete table ({error}); make it again") from error
    missing = [column for column in COLUMNS[kind] if column not in table.columns]
    if missing:
        raise InputError(f"{path} has no column {', '.join(missing)}; it is not a table of {kind}")
    return table


def _run(path: str | os.PathLike[str]) -> Run:
    if "configurations" in Path(path).parts:
        composition, name = names_below(path, "configurations", 2)
        return Run(Point("", composition, temperature_of(name, path)), EXPLORATION, read_json(path))
    return Run(point_of(path, "dynamics"), Path(path).stem, read_json(path))


def _cell(path: str | os.PathLike[str]) -> Cell:
    atoms = read_frames(path)[0]
    widths_A = 1.0 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)
    return Cell(len(atoms), str(atoms.get_chemical_formula()), float(widths_A.min()))


def _mobile(diffusivities: Files) -> str | None:
    species = sorted({str(read_json(path).get("species")) for path in diffusivities} - {"None"})
    return " and ".join(species) or None


def _records(
    sidecars: Iterable[Mapping[str, Any]], *, exact: Files, folders: Files
) -> list[Mapping[str, Any]]:
    """Gather provenance: inside sidecars, beside some files, anywhere in the folders of others."""
    beside = [Path(f"{path}.provenance.json") for path in exact]
    for folder in dict.fromkeys(Path(path).parent for path in folders):
        beside += sorted(folder.rglob("*.provenance.json"))
    records = [
        # of all attempts, not the last one alone
        {
            **sidecar["provenance"],
            "wall_time_s": sidecar.get("wall_time_s") or sidecar["provenance"].get("wall_time_s"),
        }
        for sidecar in sorted(sidecars, key=lambda one: one.get("wall_time_s") or 0.0)
        if sidecar.get("provenance")
    ]
    records += [read_json(path) for path in dict.fromkeys(beside) if path.is_file()]
    # a run that made several results left the same record beside each
    once = {
        (str(one.get("script")), str(one.get("started")), str(one.get("settings"))): one for one in records
    }
    return sorted(once.values(), key=lambda one: str(one.get("started")))
