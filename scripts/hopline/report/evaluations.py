"""The evaluations: one tidy row for each potential and test set, with what the potential is made of."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hopline.console import InputError
from hopline.files import read_json, sha256
from hopline.report.places import names_below, system_of

RECIPE = ("strategy", "seed", "learning_rate", "energy_weight", "force_weight", "stress_weight", "best_epoch")
ERRORS = (
    "n_frames", "n_frames_left_out", "energy_rmse_meV_per_atom", "energy_rmse_shift_removed_meV_per_atom",
    "force_rmse_meV_per_A", "force_mae_meV_per_A", "force_slope", "stress_rmse_GPa",
)  # fmt: skip
COLUMNS = (
    "system", "potential", "test_set", "family", "parent", *RECIPE, "dtype", "train_frames", "replay_frames", *ERRORS,
    "force_rmse_over_parent",
)  # fmt: skip
"""``force_rmse_over_parent``: below 1 better than its parent there; above 1, on a replay set's frames, forgotten."""
COUNTS = ("seed", "best_epoch", "train_frames", "replay_frames")
HELD_OUT = "held out"
"""The test set of a dataset's own held-out trajectories."""

Files = Sequence[str | os.PathLike[str]]


def compare(cards: Files, evaluations: Files) -> pd.DataFrame:
    """Return one row (`COLUMNS`) for each evaluation, sorted; a missing value is empty.

    Names come from the folders the files lie in; a parent is the card of the same system that a potential's card was
    made from, by its hash. Two are compared only where they were tested on one file.

    Raises
    ------
    InputError
        If a file is not what its place promises, or an evaluation is of a potential that has no card here.
    """
    made_of = {_potential(path): read_json(path) for path in cards}
    names = {(_potential(path)[0], sha256(path)): _potential(path)[1] for path in cards}
    found = {}
    for path in evaluations:
        system, potential = _potential(path)
        if (system, potential) not in made_of:
            raise InputError(f"{path} is of {potential} in {system}, whose card was not given")
        further = names_below(path, "potentials", 2)[1] == "evaluations"
        found[system, potential, Path(path).stem if further else HELD_OUT] = read_json(path)
    rows = []
    for (system, potential, test_set), errors in sorted(found.items()):
        card = made_of[system, potential]
        parent = names.get((system, str(card.get("parent_card_sha256"))))
        before = found.get((system, str(parent), test_set), {})
        comparable = before.get("force_rmse_meV_per_A") and before.get("test_sha256") == errors.get(
            "test_sha256"
        )
        frames = card.get("frames", {})
        rows.append(
            {"system": system, "potential": potential, "test_set": test_set, "parent": parent}
            | {name: card.get(name) for name in ("family", "dtype")}
            | {name: card.get("recipe", {}).get(name) for name in RECIPE}
            | {f"{role}_frames": frames.get(role) for role in ("train", "replay")}
            | {name: _number(errors, name, system, potential) for name in ERRORS}
            | {
                "force_rmse_over_parent": errors["force_rmse_meV_per_A"] / before["force_rmse_meV_per_A"]
                if comparable
                else None
            }
        )
    # whole numbers stay so where others have none
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(COUNTS, "Int64"))


def _potential(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Return the system and the potential that a file belongs to."""
    return system_of(path, "potentials"), names_below(path, "potentials", 1)[0]


def _number(errors: Mapping[str, Any], name: str, system: str, potential: str) -> Any:
    if name not in errors:
        raise InputError(f"an evaluation of {potential} in {system} has no {name}: make it anew")
    return errors[name]
