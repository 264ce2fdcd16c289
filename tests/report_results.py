"""Results of a small made-up study of Li in LiF with physically sensible numbers, in the layout of results/."""

import json
from dataclasses import asdict
from pathlib import Path

import ase.io
import numpy as np
import pandas as pd
from ase.build import bulk

from hopline.diffusion.arrhenius import fit_arrhenius, point_from_result
from hopline.files import sha256, write_json
from hopline.units import BOLTZMANN_EV_PER_K

TEMPERATURES_K = (700, 850, 1000)
ENERGY_EV = {"chgnet": 0.31, "chgnet-ft": 0.42}
PREFACTOR_CM2_PER_S = 2.5e-3
COMPOSITION = "Li1"


def write_results(folder: Path) -> dict[str, list[Path]]:
    """Write the study below ``folder`` and return its files by the flag of report_system.py that takes them."""
    rng = np.random.default_rng(7)
    root = folder / "results" / "lif"
    found = {"structures": [root / f"structures/{COMPOSITION}.extxyz"]}
    found["structures"][0].parent.mkdir(parents=True)
    atoms = bulk("LiF", "rocksalt", a=4.08, cubic=True).repeat((2, 2, 1))
    atoms.append("Li")
    atoms.positions[-1] = [1.02, 1.02, 1.02]
    ase.io.write(found["structures"][0], atoms, format="extxyz")
    for part in (_potentials, _sampling, _dynamics, _diffusion):
        for kind, paths in part(root, rng).items():
            found[kind] = found.get(kind, []) + paths
    return found


def as_flags(found: dict[str, list[Path]]) -> list[str]:
    """Spell the files as flags."""
    return [word for kind, paths in found.items() for word in (f"--{kind}", *map(str, paths))]


def provenance(script: str, started: str, wall_time_s: float) -> dict:
    """Return a record as the scripts leave it."""
    return {
        "script": f"{script}.py",
        "settings": {"seed": 12, "started_for": started},
        "inputs_sha256": {f"results/lif/{script}.in": "ab" * 32},
        "versions": {"python": "3.11.7", "numpy": "2.4.6", "ase": "3.29.0"},
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "device": "AMD EPYC, 2 cores",
        "started": started,
        "wall_time_s": wall_time_s,
    }


def _csv(path: Path, table: pd.DataFrame) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)
    return path


def _json(path: Path, content: dict) -> Path:
    write_json(path, content)
    return path


def _potentials(root: Path, rng: np.random.Generator) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {
        "cards": [],
        "evaluations": [],
        "predictions": [],
        "training": [],
        "further": [],
    }
    parent = None
    for name, noise, slope in (("chgnet", 0.11, 0.89), ("chgnet-ft", 0.031, 0.992)):
        place = root / "potentials" / name
        recipe = (
            {"weights": "0.3.0"} if parent is None else {"epochs": 30, "learning_rate": 1e-3, "batch_size": 4}
        )
        card = {
            "name": name, "family": "chgnet", "model_file": "model.pt", "model_sha256": "f2" * 32, "dtype": "float32",
            "head": None, "parent_card_sha256": parent, "dataset_sha256": None if parent is None else "d4" * 32,
            "recipe": recipe, "atom_energies_eV": {}, "versions": {"python": "3.11.7", "chgnet": "0.4.2"},
        }  # fmt: skip
        found["cards"].append(_json(place / "card.json", card))
        parent = sha256(place / "card.json")
        pairs = _pairs(rng, noise, slope)
        found["predictions"].append(_csv(place / "predictions.csv", pairs))
        found["evaluations"].append(_json(place / "evaluation.json", _evaluation(pairs, slope)))
        further = _evaluation(pairs, slope - 0.2) | {
            "n_frames": 12,
            "n_frames_left_out": 3,
            "stress_rmse_GPa": None,
        }
        found["further"].append(_json(place / "evaluations" / "forgetting.json", further))
        _json(
            place / "evaluation.json.provenance.json",
            provenance("evaluate_potential", f"2026-11-20T10:0{len(name)}:00", 22),
        )
    epochs = np.arange(1, 31)
    fall = np.exp(-epochs / 6)
    history = pd.DataFrame(
        {
            "epoch": epochs, "wall_time_s": 14.0 * epochs, "train_loss": 0.02 + 0.9 * fall * rng.uniform(0.9, 1.1, 30),
            "valid_energy_rmse_meV_per_atom": 1.6 + 25 * fall * rng.uniform(0.8, 1.2, 30),
            "valid_force_rmse_meV_per_A": 34 + 80 * fall * rng.uniform(0.9, 1.1, 30),
            "replay_force_rmse_meV_per_A": 70 + 0.4 * epochs,
        }
    )  # fmt: skip
    walls = [
        {"pair": pair, "surroundings": "crystal", "start_A": 1.9, "barrier_eV": barrier_eV, "turning_A": None,
         "hole_A": hole_A, "steepest_eV_per_A": 4.0}
        for pair, barrier_eV, hole_A in (("F-F", 36.09, None), ("F-Li", 11.7, None), ("Li-Li", 0.48, 1.32))
    ]  # fmt: skip
    hot = {"temperature_K": 1200.0, "status": "finished", "reason": "all 2 ps were run", "simulated_ps": 2.0}
    stability = {"walls": walls, "lowest_barrier_eV": 0.48, "min_barrier_eV": 0.0, "hot_run": hot}
    found["stability"] = [_json(root / "potentials/chgnet-ft/stability.json", stability)]
    committee = {
        "members": ["chgnet", "chgnet-ft"], "n_members": 2, "n_frames": 36, "mean_deviation_meV_per_A": 48.2,
        "max_deviation_meV_per_A": 391.0, "mean_error_meV_per_A": 77.3, "spearman_mean_deviation_and_error": 0.83,
        "differ_in": {"strategy": [None, "naive"], "dataset": [None, "cd" * 32]},
    }  # fmt: skip
    found["committees"] = [_json(root / "committees/pair.json", committee)]
    found["training"].append(_csv(root / "potentials/chgnet-ft/training.csv", history))
    _json(
        root / "potentials/chgnet-ft/card.json.provenance.json",
        provenance("finetune_potential", "2026-11-20T09:00:00", 420),
    )
    return found


def _pairs(rng: np.random.Generator, noise: float, slope: float) -> pd.DataFrame:
    energy = np.concatenate([-4.85 + 0.03 * rng.standard_normal(18), -4.71 + 0.03 * rng.standard_normal(18)])
    force = 1.1 * rng.standard_normal(36 * 33 * 3)
    stress = 1.5 * rng.standard_normal(36 * 9)
    elements = np.tile(np.repeat(["F"] * 16 + ["Li"] * 17, 3), 36)
    return pd.concat(
        [
            pd.DataFrame({"kind": "energy", "element": "", "composition": ["bulk"] * 18 + ["Li1"] * 18,
                          "reference": energy, "predicted": energy + noise * 0.05 * rng.standard_normal(36)}),
            pd.DataFrame({"kind": "force", "element": elements, "composition": "Li1", "reference": force,
                          "predicted": slope * force + noise * rng.standard_normal(len(force))}),
            pd.DataFrame({"kind": "stress", "element": "", "composition": "Li1", "reference": stress,
                          "predicted": stress + 3 * noise * rng.standard_normal(len(stress))}),
        ]
    )  # fmt: skip


def _evaluation(pairs: pd.DataFrame, slope: float) -> dict:
    error = pairs["predicted"] - pairs["reference"]

    def rmse(chosen: pd.Series) -> float:
        return float(np.sqrt((error[chosen.to_numpy()] ** 2).mean()))

    force, energy = pairs["kind"] == "force", rmse(pairs["kind"] == "energy") * 1e3
    by_element = {name: 1e3 * rmse(force & (pairs["element"] == name)) for name in ("F", "Li")}
    return {
        "n_frames": 36,
        "energy_rmse_meV_per_atom": 312.4 + energy,
        "energy_mae_meV_per_atom": 311.8,
        "energy_rmse_shift_removed_meV_per_atom": energy,
        "force_rmse_meV_per_A": 1e3 * rmse(force),
        "force_mae_meV_per_A": 0.8e3 * rmse(force),
        "force_rmse_by_element_meV_per_A": by_element,
        "force_rmse_mobile_meV_per_A": by_element["Li"],
        "mobile": "Li",
        "force_slope": slope,
        "force_r2": 0.9921,
        "stress_rmse_GPa": rmse(pairs["kind"] == "stress"),
        "test_sources": ["bulk/700K", "bulk/1200K", "Li1/850K"],
    }


def _sampling(root: Path, rng: np.random.Generator) -> dict[str, list[Path]]:
    centres = np.array([[-2.0, 0.3], [0.5, 1.2], [2.5, -0.6]])
    names = np.repeat(["bulk", "Li1", "Li1"], 900)
    points = np.concatenate([centre + rng.standard_normal((900, 2)) * [0.9, 0.5] for centre in centres])
    chosen = points[rng.choice(len(points), 60, replace=False)]
    novelty = np.linalg.norm(points[:, None] - chosen[None], axis=2).min(axis=1) / 0.35
    explored = pd.DataFrame(
        {
            "pc1": points[:, 0],
            "pc2": points[:, 1],
            "set": "explored",
            "composition": names,
            "novelty": novelty,
        }
    )
    selected = pd.DataFrame(
        {"pc1": chosen[:, 0], "pc2": chosen[:, 1], "set": "selected", "composition": "", "novelty": 0.0}
    )
    place = root / "sampling" / "lif-direct"
    coverage = {
        "coverage_score": 0.871, "coverage_score_by_component": [0.9, 0.842], "novel_fraction": 0.083, "bins": 50,
        "components": 12, "explained_variance": 0.96, "explained_variance_by_component": [0.51, 0.2, 0.09],
        "explored_frames": 2700, "candidate_frames": 240, "selected_frames": 60,
    }  # fmt: skip
    dataset = {
        "frames": {"train": 51, "valid": 9, "test": 36},
        "sources": {"train": ["a", "b", "c"], "valid": ["d"], "test": ["e", "f", "g"]},
        "level_of_theory": "PBE, 80 Ry, Quantum ESPRESSO 6.7", "energy_kind": "free",
        "atom_energies_eV": {"Li": -200.123456, "F": -655.98765}, "atom_energies_kind": "isolated atoms",
    }  # fmt: skip
    rejected = pd.DataFrame(
        {"source": ["runs/0003/pw.out", "runs/0017/pw.out"], "frame": [0, 0], "frame_id": ["", ""],
         "reason": ["SCF did not converge", "SCF did not converge"]}
    )  # fmt: skip
    files = {
        "coverage": [_json(place / "coverage.json", coverage)],
        "maps": [_csv(place / "map.csv", pd.concat([explored, selected]))],
        "datasets": [_json(root / "datasets/lif-direct/dataset.json", dataset)],
        "rejected": [_csv(root / "labels/lif-direct/rejected.csv", rejected)],
    }
    for index in range(3):
        record = provenance("label_espresso", f"2026-11-20T08:0{index}:00", 31.5)
        _json(root / f"labels/lif-direct/runs/{index:04d}/pw.out.provenance.json", record)
    return files


def _dynamics(root: Path, rng: np.random.Generator) -> dict[str, list[Path]]:
    paths = []
    for potential in ENERGY_EV:
        for temperature_K in TEMPERATURES_K:
            for row, stage in enumerate(("npt", "nvt", "nve-1", "nve-2", "nve-3")):
                bad = (potential, temperature_K, stage) == ("chgnet", 1000, "nve-3")
                sidecar = {
                    "status": "exploded" if bad else "finished",
                    "reason": "after 3.1 ps: a force of 71.2 eV/A exceeds 60 eV/A" if bad else "all 10 ps were run",
                    "checks": {"max_temperature_K": 1.6 * temperature_K, "max_force_eV_per_A": 4.2},
                    "simulated_ps": 3.1 if bad else 10.0,
                    "throughput_ns_per_day": float(rng.uniform(0.9, 1.3)),
                    "provenance": provenance(
                        {"npt": "equilibrate_npt", "nvt": "equilibrate_nvt"}.get(stage, "simulate_replica"),
                        f"2026-11-20T1{row}:{temperature_K % 60:02d}:{len(potential):02d}",
                        float(rng.uniform(700, 900)),
                    ),
                }  # fmt: skip
                place = root / f"dynamics/{potential}/{COMPOSITION}/{temperature_K}K/{stage}.json"
                paths.append(_json(place, sidecar))
    return {"sidecars": paths}


def _diffusion(root: Path, rng: np.random.Generator) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {"diffusivities": [], "curves": [], "correlations": [], "arrhenius": []}
    for potential, energy_eV in ENERGY_EV.items():
        place = root / "diffusion" / potential / COMPOSITION
        results = []
        for temperature_K in TEMPERATURES_K:
            true = PREFACTOR_CM2_PER_S * np.exp(-energy_eV / (BOLTZMANN_EV_PER_K * temperature_K))
            verdict = {700: "weak"}.get(temperature_K, "reliable")
            if (potential, temperature_K) == ("chgnet-ft", 700):
                verdict = "no-diffusion-seen"
            results.append(
                _json(
                    place / f"{temperature_K}K.json",
                    _diffusivity(rng, true, temperature_K, verdict, potential),
                )
            )
            found["curves"].append(_csv(place / f"{temperature_K}K.curve.csv", _curve(rng, true)))
            found["correlations"].append(
                _csv(place / f"{temperature_K}K.rdf.csv", _pair_distributions(temperature_K, energy_eV))
            )
        points = [point_from_result(json.loads(path.read_text()), name=str(path)) for path in results]
        found["arrhenius"].append(_json(place / "arrhenius.json", asdict(fit_arrhenius(points))))
        found["diffusivities"] += results
    return found


def _diffusivity(
    rng: np.random.Generator, true: float, temperature_K: int, verdict: str, potential: str
) -> dict:
    values = true * (1 + 0.12 * rng.standard_normal(3))
    mean, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(3))
    seen = verdict != "no-diffusion-seen"
    reasons = {
        "reliable": ["Every check passed."],
        "weak": ["Only 4 hops in the quietest replica; 10 are wanted."],
        "no-diffusion-seen": ["No ion moved 1.02 A away and stayed there in 30 ps of 3 replica(s)."],
    }[verdict]
    return {
        "species": "Li", "n_mobile": 17, "temperature_K": float(temperature_K),
        "diffusivity_cm2_per_s": mean if seen else None, "standard_error_cm2_per_s": error if seen else None,
        "standard_error_random_walk_cm2_per_s": 0.15 * mean if seen else None,
        "interval_95_cm2_per_s": [max(0.0, mean - 4.3 * error), mean + 4.3 * error] if seen else [0.0, 3.1e-6],
        "upper_bound_cm2_per_s": None if seen else 3.1e-6, "verdict": verdict, "reasons": reasons,
        "hops": 57 if seen else 0, "hop_length_A": 1.02, "msd_exponent": 0.97, "lag_window_ps": [0.6, 3.0],
        "lag_window_choice": "starts where the exponent settles; stops at 0.3 of the shortest replica",
        "energy_drift_meV_per_atom_per_ps": 0.0031,
        "replicas": [
            {"trajectory": f"results/lif/dynamics/{potential}/Li1/{temperature_K}K/nve-{row + 1}.h5",
             "status": "finished", "used": True, "diffusivity_cm2_per_s": float(value), "hops": 19,
             "energy_drift_meV_per_atom_per_ps": 0.003,
             "mean_temperature_K": temperature_K + 3.2, "length_ps": 10.0}
            for row, value in enumerate(values)
        ],
        "method": "Slope of the windowed MSD over the lag window, over 6, mean of 3 replicas.",
    }  # fmt: skip


def _curve(rng: np.random.Generator, true: float) -> pd.DataFrame:
    lag_ps = np.geomspace(0.01, 9.9, 120)
    rattle_A2 = 0.25 * (1 - np.exp(-((lag_ps / 0.06) ** 2)))
    table = {"lag_ps": lag_ps}
    for row in range(3):
        walk = np.cumsum(rng.standard_normal(120)) * 0.01
        table[f"msd_A2_{row + 1}"] = (rattle_A2 + 6 * true * 1e4 * lag_ps) * np.exp(
            walk * np.sqrt(lag_ps / 10) * 2
        )
    mean = np.mean([table[f"msd_A2_{row + 1}"] for row in range(3)], axis=0)
    return pd.DataFrame(
        {**table, "mean_msd_A2": mean, "local_exponent": np.gradient(np.log(mean), np.log(lag_ps))}
    )


def _pair_distributions(temperature_K: int, energy_eV: float) -> pd.DataFrame:
    r_A = np.arange(0.025, 4.0, 0.05)
    width = 0.16 * np.sqrt(temperature_K / 700) * (1 + (0.42 - energy_eV))
    shells = {("F", "F"): [2.9, 4.1], ("F", "Li"): [2.04, 3.5], ("Li", "Li"): [2.85, 4.05]}
    parts = []
    for (one, other), centres in shells.items():
        g = sum(
            4.0 / row * np.exp(-((r_A - centre) ** 2) / (2 * width**2))
            for row, centre in enumerate(centres, start=1)
        )
        parts += [
            pd.DataFrame(
                {
                    "centre": a,
                    "neighbour": b,
                    "r_A": r_A,
                    "g": g,
                    "upper_edge_A": r_A + 0.025,
                    "coordination": np.cumsum(g) * 0.1,
                }
            )
            for a, b in {(one, other), (other, one)}
        ]
    return pd.concat(parts)
