"""Rows of the page's tables, every number already written with its digits."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from hopline.report.inputs import EXPLORATION, Material, Run
from hopline.report.numbers import NONE, count, counted, duration, fixed, is_number, percent, plain, power
from hopline.report.places import Point
from hopline.report.style import colour_of
from hopline.report.trust import diffusivity_text, force_error

Row = dict[str, Any]
SET_WORDS = {"train": "for training", "valid": "for validation", "test": "held out for testing"}


def diffusivity_rows(material: Material) -> list[Row]:
    """Return one row for each diffusivity, by composition, potential and temperature."""
    order = material.potentials
    points = _in_order(material, material.diffusivities)
    rows = []
    for point in points:
        found = material.diffusivities[point]
        interval = found.get("interval_95_cm2_per_s") or (None, None)
        replicas = found.get("replicas", [])
        lengths = [one["length_ps"] for one in replicas if is_number(one.get("length_ps"))]
        window = found.get("lag_window_ps") or (None, None)
        rows.append(
            {
                "potential": point.potential,
                "colour": colour_of(point.potential, order),
                "composition": point.composition,
                "temperature_K": f"{point.temperature_K:g}",
                "diffusivity": diffusivity_text(found),
                "interval": f"{power(interval[0])} to {power(interval[1])}"
                if interval[0] is not None
                else NONE,
                "verdict": found.get("verdict", "unknown"),
                "reasons": found.get("reasons", []),
                "hops": count(found.get("hops")),
                "exponent": fixed(found.get("msd_exponent"), 2),
                "window": f"{plain(window[0], 2)}\N{EN DASH}{plain(window[1], 2)}"
                if window[0] is not None
                else NONE,
                "drift": plain(found.get("energy_drift_meV_per_atom_per_ps"), 2),
                "replicas": f"{sum(bool(one.get('used')) for one in replicas)} of {len(replicas)}",
                "length": plain(max(lengths), 3) if lengths else NONE,
                "each": [_replica_row(one) for one in replicas],
                "method": found.get("method", ""),
            }
        )
    return rows


def _in_order(material: Material, points: Iterable[Point]) -> list[Point]:
    """Sort points by composition (those with lines first, as given), potential (as given) and temperature."""
    compositions = list(
        dict.fromkeys([line[1] for line in material.lines] + sorted(one.composition for one in points))
    )
    return sorted(
        points,
        key=lambda one: (
            compositions.index(one.composition),
            material.potentials.index(one.potential),
            one.temperature_K,
        ),
    )


def line_rows(material: Material) -> list[Row]:
    """Return one row for each fitted line: the points it used, and those left out with the reason."""
    return [
        {
            "potential": line[0],
            "colour": colour_of(line[0], material.potentials),
            "composition": line[1],
            "used": [
                f"{point['temperature_K']:g} K ({point['verdict']})" for point in found.get("points_used", [])
            ],
            "left_out": [
                (
                    f"{point['temperature_K']:g} K"
                    if point.get("temperature_K")
                    else point.get("source", ""),
                    point["why"],
                )
                for point in found.get("points_left_out", [])
            ],
            "p_value": plain(found.get("goodness_of_fit"), 2),
            "method": found.get("method", ""),
        }
        for line, found in material.arrhenius.items()
    ]


def _replica_row(replica: Mapping[str, Any]) -> Row:
    return {
        "trajectory": replica.get("trajectory", ""),
        "status": replica.get("status") or NONE,
        "used": "yes" if replica.get("used") else "no",
        "diffusivity": power(replica.get("diffusivity_cm2_per_s")),
        "hops": count(replica.get("hops")),
        "temperature": fixed(replica.get("mean_temperature_K"), 0),
        "drift": plain(replica.get("energy_drift_meV_per_atom_per_ps"), 2),
        "length": plain(replica.get("length_ps"), 3),
    }


def potential_rows(material: Material) -> list[Row]:
    """Return one row for each potential: what it is made of, its errors, its speed."""
    return [_potential_row(material, name) for name in material.potentials]


def _potential_row(material: Material, name: str) -> Row:
    card, found = material.cards.get(name, {}), material.evaluations.get(name, {})
    parent = material.parent_of(name)
    ratio, alike = None, True
    if parent and is_number(found.get("force_rmse_meV_per_A")) and parent in material.evaluations:
        before = material.evaluations[parent]
        alike = (before.get("n_frames"), before.get("test_sources")) == (
            found.get("n_frames"),
            found.get("test_sources"),
        )
        ratio = found["force_rmse_meV_per_A"] / (force_error(material, parent) or float("nan"))
    recipe = card.get("recipe", {})
    return {
        "name": name,
        "colour": colour_of(name, material.potentials),
        "made": _made(card, parent),
        "recipe": {key: value for key, value in recipe.items() if value is not None},
        "card": card,
        "energy": plain(found.get("energy_rmse_shift_removed_meV_per_atom")),
        "energy_raw": plain(found.get("energy_rmse_meV_per_atom")),
        "energy_mae": plain(found.get("energy_mae_meV_per_atom")),
        "force": plain(found.get("force_rmse_meV_per_A")),
        "force_mae": plain(found.get("force_mae_meV_per_A")),
        "force_mobile": plain(found.get("force_rmse_mobile_meV_per_A")),
        "by_element": {
            key: plain(value) for key, value in found.get("force_rmse_by_element_meV_per_A", {}).items()
        },
        "slope": fixed(found.get("force_slope"), 3),
        "r2": fixed(found.get("force_r2"), 4),
        "energy_r2": fixed(found.get("energy_r2"), 4),
        "worst": plain(found.get("max_force_error_meV_per_A")),
        "stress": plain(found.get("stress_rmse_GPa")),
        "ratio": plain(ratio, 2) + ("" if alike or ratio is None else "*"),
        "alike": alike,
        "parent": parent,
        "n_frames": count(found.get("n_frames")),
        "sources": found.get("test_sources", []),
        "throughput": _throughput(material.runs, name),
    }


def further_rows(material: Material) -> list[Row]:
    """Return one row for each further test set and potential: its errors there."""
    order = material.potentials
    return [
        {
            "test_set": test_set,
            "potential": potential,
            "colour": colour_of(potential, order),
            "n_frames": count(found.get("n_frames")),
            "left_out": count(found.get("n_frames_left_out")),
            "energy": plain(found.get("energy_rmse_shift_removed_meV_per_atom")),
            "energy_raw": plain(found.get("energy_rmse_meV_per_atom")),
            "force": plain(found.get("force_rmse_meV_per_A")),
            "slope": fixed(found.get("force_slope"), 3),
            "stress": plain(found.get("stress_rmse_GPa")),
        }
        for (potential, test_set), found in sorted(
            material.further.items(), key=lambda item: (item[0][1], order.index(item[0][0]))
        )
    ]


def stability_rows(material: Material) -> list[Row]:
    """Return one row for each trained potential: what it takes to push two atoms into each other, and the hot run."""
    rows = []
    for name, found in material.stability.items():
        lowest = min(found.get("walls", []), key=lambda wall: float(wall["barrier_eV"]), default=None)
        hot = found.get("hot_run", {})
        rows.append(
            {
                "potential": name,
                "colour": colour_of(name, material.potentials),
                "barrier": fixed(found.get("lowest_barrier_eV"), 2),
                "where": NONE if lowest is None else f"{lowest['pair']} in {lowest['surroundings']}",
                "hole": fixed(lowest.get("hole_A"), 2) if lowest else NONE,
                "temperature_K": plain(hot.get("temperature_K"), 4),
                "status": hot.get("status", "unknown"),
                "reason": hot.get("reason", ""),
            }
        )
    return rows


def committee_rows(material: Material) -> list[Row]:
    """Return one row for each committee: its members, how far they disagree, and whether that tells their error."""
    return [
        {
            "name": name,
            "members": ", ".join(found.get("members", [])),
            "n_frames": count(found.get("n_frames")),
            "mean": plain(found.get("mean_deviation_meV_per_A")),
            "max": plain(found.get("max_deviation_meV_per_A")),
            "error": plain(found.get("mean_error_meV_per_A")),
            "spearman": fixed(found.get("spearman_mean_deviation_and_error"), 2),
        }
        for name, found in material.committees.items()
    ]


def _made(card: Mapping[str, Any], parent: str | None) -> str:
    if not card:
        return "its card was not given"
    recipe, family = card.get("recipe", {}), card.get("family", "unknown family")
    if card.get("dataset_sha256") is None:
        return (
            f"{family}, as shipped, {recipe['weights']}" if "weights" in recipe else f"{family}, as shipped"
        )
    if card.get("parent_card_sha256") is None:
        return f"{family}, trained from scratch"
    return f"{family}, fine-tuned from {parent or 'a parent whose card is not here'}"


def _throughput(runs: Sequence[Run], name: str) -> str:
    rates = [
        run.sidecar["throughput_ns_per_day"]
        for run in runs
        if run.point.potential == name
        and run.stage.startswith("nve")
        and is_number(run.sidecar.get("throughput_ns_per_day"))
    ]
    return plain(median(rates)) if rates else NONE


def element_columns(material: Material) -> list[str]:
    """Return the elements whose force errors are known for any potential."""
    found = [one.get("force_rmse_by_element_meV_per_A", {}) for one in material.evaluations.values()]
    return sorted({element for errors in found for element in errors})


def sampling_rows(material: Material) -> list[Row]:
    """Return one entry for each dataset: coverage, labels, sets, rejected frames."""
    names = dict.fromkeys([*material.datasets, *material.coverage, *material.rejected])
    rows = []
    for name in names:
        coverage, dataset = material.coverage.get(name, {}), material.datasets.get(name, {})
        rejected = material.rejected.get(name)
        reasons = {} if rejected is None else rejected["reason"].fillna("unstated").value_counts().to_dict()
        counts = dataset.get("frames", dataset.get("counts", {}))
        rows.append(
            {
                "name": name,
                "score": fixed(coverage.get("coverage_score"), 3),
                "novel": percent(coverage.get("novel_fraction"), 1),
                "explained": percent(coverage.get("explained_variance")),
                "components": count(coverage.get("components")),
                "explored": count(coverage.get("explored_frames")),
                "candidates": count(coverage.get("candidate_frames")),
                "selected": count(coverage.get("selected_frames")),
                "sets": [
                    _set_text(key, value, dataset.get("sources") or {}) for key, value in counts.items()
                ],
                "level": dataset.get("level_of_theory"),
                "energy_kind": dataset.get("energy_kind"),
                "atom_energies": {
                    key: fixed(value, 3) for key, value in (dataset.get("atom_energies_eV") or {}).items()
                },
                "atom_energies_kind": dataset.get("atom_energies_kind"),
                "rejected": None if rejected is None else len(rejected),
                "reasons": reasons,
                "known": {
                    "coverage": bool(coverage),
                    "dataset": bool(dataset),
                    "rejected": rejected is not None,
                },
            }
        )
    return rows


def _set_text(name: str, size: int, sources: Mapping[str, Sequence[str]]) -> str:
    told = f"{count(size)} {SET_WORDS.get(name, name)}"
    return f"{told} (from {counted(len(sources[name]), 'source')})" if name in sources else told


def dynamics_table(material: Material) -> tuple[list[str], list[Row]]:
    """Return the stages and one row for each point with the status of every stage."""
    runs = [run for run in material.runs if run.stage != EXPLORATION]
    stages = sorted({run.stage for run in runs}, key=_stage_order)
    points = _in_order(material, {run.point for run in runs})
    rows = [
        {
            "point": point,
            "colour": colour_of(point.potential, material.potentials),
            "stages": [_stage_cell(runs, point, stage) for stage in stages],
        }
        for point in points
    ]
    return stages, rows


def _stage_order(stage: str) -> tuple[int, int]:
    name, _, number = stage.partition("-")
    return ("npt", "nvt", "nve").index(name) if name in {"npt", "nvt", "nve"} else 9, int(
        number or 0
    ) if number.isdigit() or not number else 0


def _stage_cell(runs: Sequence[Run], point: object, stage: str) -> Row | None:
    sidecar = next((run.sidecar for run in runs if run.point == point and run.stage == stage), None)
    if sidecar is None:
        return None
    return {
        "stage": stage,
        "status": sidecar.get("status", "unknown"),
        "reason": sidecar.get("reason", ""),
        "simulated": plain(sidecar.get("simulated_ps"), 3),
        "throughput": plain(sidecar.get("throughput_ns_per_day"), 3),
        "wall": duration(sidecar.get("wall_time_s")),
        "checks": {key: plain(value) for key, value in sidecar.get("checks", {}).items()},
    }


def timing_rows(material: Material) -> list[Row]:
    """Return wall time by script, the longest total first."""
    total: dict[str, list[float]] = {}
    devices: dict[str, set[str]] = {}
    for record in material.records:
        name = str(record.get("script", "unknown")).removesuffix(".py")
        if is_number(record.get("wall_time_s")):
            total.setdefault(name, []).append(float(record["wall_time_s"]))
            devices.setdefault(name, set()).add(str(record.get("device", "unknown")))
    whole = sum(map(sum, total.values())) or 1.0
    return [
        {
            "stage": name.replace("_", " "),
            "jobs": len(walls),
            "total": duration(sum(walls)),
            "longest": duration(max(walls)),
            "share": sum(walls) / whole,
            "share_text": percent(sum(walls) / whole),
            "devices": sorted(devices[name]),
        }
        for name, walls in sorted(total.items(), key=lambda item: -sum(item[1]))
    ]


def provenance_of(material: Material) -> Row:
    """Return what the results were made with: versions, commits, devices, input hashes, runs."""
    versions: dict[str, set[str]] = {}
    hashes: dict[tuple[str, str], None] = {}
    for record in material.records:
        for package, version in (record.get("versions") or {}).items():
            versions.setdefault(str(package), set()).add(str(version))
        for path, digest in (record.get("inputs_sha256") or {}).items():
            hashes[str(path), str(digest)] = None
    started = sorted(str(record["started"]) for record in material.records if record.get("started"))
    return {
        "versions": {package: ", ".join(sorted(found)) for package, found in sorted(versions.items())},
        "commits": sorted(
            {str(record.get("commit") or "outside a git checkout") for record in material.records}
        ),
        "devices": sorted({str(record.get("device", "unknown")) for record in material.records}),
        "hashes": sorted(hashes),
        "runs": [
            {
                "script": record.get("script", ""),
                "started": record.get("started", ""),
                "wall": duration(record.get("wall_time_s")),
                "settings": {key: _setting(value) for key, value in (record.get("settings") or {}).items()},
            }
            for record in material.records
        ],
        "first": started[0][:10] if started else None,
        "last": started[-1][:10] if started else None,
    }


def _setting(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
