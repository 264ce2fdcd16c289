"""The summary: one tidy row for each system, potential, composition and temperature."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hopline.console import InputError
from hopline.files import read_json
from hopline.report.places import names_below, point_of, system_of

COLUMNS = (
    "system",
    "potential",
    "composition",
    "temperature_K",
    "diffusivity_cm2_per_s",
    "standard_error_cm2_per_s",
    "interval_95_low",
    "interval_95_high",
    "verdict",
    "activation_energy_eV",
    "activation_energy_standard_error_eV",
    "activation_energy_interval_95_low_eV",
    "activation_energy_interval_95_high_eV",
    "prefactor_cm2_per_s",
    "upper_bound_cm2_per_s",
    "hops",
    "msd_exponent",
    "reasons",
)
"""``interval_95_low`` and ``interval_95_high`` are those of the diffusivity, in cm^2/s."""

Files = Sequence[str | os.PathLike[str]]


def summarise(diffusivities: Files, arrhenius: Files) -> pd.DataFrame:
    """Return one row (`COLUMNS`) for each diffusivity file, sorted; a missing value is empty.

    The activation energy is that of the row's system, potential and composition, and is empty where no line was
    fitted. Names come from the folders the files lie in.

    Raises
    ------
    InputError
        If a file is not what its place promises, or two files are for one row.
    """
    lines = {
        (system_of(path, "diffusion"), *names_below(path, "diffusion", 2)): read_json(path)
        for path in arrhenius
    }
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for path in diffusivities:
        point, system, found = point_of(path, "diffusion"), system_of(path, "diffusion"), read_json(path)
        if "verdict" not in found:
            raise InputError(f"{path} has no verdict: it is not the result of estimate_diffusivity.py")
        key = (system, point.potential, point.composition, point.temperature_K)
        if key in rows:
            raise InputError(
                f"{path} is the second result for {system}, {point.potential}, {point.composition}, "
                f"{point.temperature_K:g} K: give each once"
            )
        rows[key] = dict(zip(COLUMNS, key, strict=False)) | _row(found, lines.get(key[:3], {}))
    return pd.DataFrame([rows[key] for key in sorted(rows)], columns=list(COLUMNS))


def _row(found: Mapping[str, Any], line: Mapping[str, Any]) -> dict[str, Any]:
    low, high = found.get("interval_95_cm2_per_s") or (None, None)
    energy_low, energy_high = line.get("activation_energy_interval_95_eV") or (None, None)
    own = (
        "diffusivity_cm2_per_s",
        "standard_error_cm2_per_s",
        "verdict",
        "upper_bound_cm2_per_s",
        "hops",
        "msd_exponent",
    )
    fitted = ("activation_energy_eV", "activation_energy_standard_error_eV", "prefactor_cm2_per_s")
    return {
        **{key: found.get(key) for key in own},
        **{key: line.get(key) for key in fitted},
        "interval_95_low": low,
        "interval_95_high": high,
        "activation_energy_interval_95_low_eV": energy_low,
        "activation_energy_interval_95_high_eV": energy_high,
        "reasons": " ".join(map(str, found.get("reasons", []))),
    }
