"""Whether a diffusivity may be quoted, and why not, in sentences a reader can act on."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hopline.units import BOLTZMANN_EV_PER_K, MEV_PER_EV

RELIABLE, WEAK, NO_DIFFUSION_SEEN, INVALID = "reliable", "weak", "no-diffusion-seen", "invalid"
INVALID_DRIFT_FACTOR = 10.0
"""A drift this many times its bound is no microcanonical run at all: invalid instead of weak."""


@dataclass(frozen=True)
class VerdictThresholds:
    """Bounds between a reliable and a weak diffusivity; each field's meaning stands in its metadata."""

    min_hops_per_replica: int = field(
        default=10, metadata={"help": "fewest hops in each replica; fewer leave over 30 %% of shot noise"}
    )
    exponent_tolerance: float = field(
        default=0.2, metadata={"help": "how far the MSD's exponent in the lag window may be from 1"}
    )
    max_energy_drift_meV_per_atom_per_ps: float = field(
        default=0.05,
        metadata={
            "help": "bound of the total energy's drift; ten times it is invalid where it heats beyond max_heating_share"
        },
    )
    max_heating_share: float = field(
        default=0.05,
        metadata={"help": "bound of the drift's heating over a replica, drift x length / 3 kB T"},
    )
    max_relative_standard_error: float = field(default=0.3, metadata={"help": "bound of standard error / D"})
    min_stop_msd_hop_lengths_squared: float = field(
        default=4.0, metadata={"help": "least MSD at the window's end, in squared hop lengths"}
    )
    min_replicas: int = field(
        default=2, metadata={"help": "replicas that must remain where some were left out"}
    )
    max_temperature_deviation: float = field(
        default=0.05,
        metadata={"help": "how far the replicas' mean temperature may be from the one stated, as a share"},
    )
    replica_agreement_false_alarm: float = field(
        default=0.001,
        metadata={"help": "chance of calling replicas of one random walk different"},
    )


@dataclass(frozen=True)
class Evidence:
    """What the verdict looks at; sequences have one entry per used replica, None where it is not recorded."""

    hops: Sequence[int]
    hop_length_A: float
    energy_drifts_meV_per_atom_per_ps: Sequence[float | None]
    temperatures_K: Sequence[float | None]
    lengths_ps: Sequence[float]
    diffusivity: float
    relative_standard_error: float
    interval_low: float
    msd_exponent: float
    stop_msd_A2: float
    agreement_p_value: float | None
    window_regular: bool
    stated_temperature_K: float | None = None


def judge(evidence: Evidence, thresholds: VerdictThresholds) -> tuple[str, list[str]]:
    """Return the verdict on used replicas and its reasons; an invalid one outweighs everything else."""
    invalid, weak = _judge_energy(evidence, thresholds)
    if invalid:
        return INVALID, invalid + weak
    if sum(evidence.hops) == 0:
        told = (
            f"No ion moved {evidence.hop_length_A:.2f} A away and stayed there in "
            f"{sum(evidence.lengths_ps):.4g} ps of {len(evidence.hops)} replica(s)."
        )
        return NO_DIFFUSION_SEEN, [told, *weak]
    if not evidence.diffusivity > 0:
        told = f"{sum(evidence.hops)} hops were seen, but the MSD does not grow in the lag window."
        return NO_DIFFUSION_SEEN, [told, *weak]
    weak += _judge_statistics(evidence, thresholds)
    weak += _judge_temperature(evidence, thresholds)
    if weak:
        return WEAK, weak
    if all(drift is None for drift in evidence.energy_drifts_meV_per_atom_per_ps):
        return RELIABLE, [
            "Every check passed but the energy's drift: the trajectories carry no total energy."
        ]
    return RELIABLE, ["Every check passed."]


def _judge_energy(evidence: Evidence, thresholds: VerdictThresholds) -> tuple[list[str], list[str]]:
    invalid, weak = [], []
    bound = thresholds.max_energy_drift_meV_per_atom_per_ps
    for row, drift in enumerate(evidence.energy_drifts_meV_per_atom_per_ps):
        if drift is None:
            continue
        told = f"The total energy of used replica {row + 1} drifts by {drift:.3g} meV/atom/ps"
        heating_K = abs(drift) / MEV_PER_EV * evidence.lengths_ps[row] / (3 * BOLTZMANN_EV_PER_K)
        temperature_K = evidence.temperatures_K[row]
        # a short run's slope is mostly the integrator's fluctuation: what falsifies D is the temperature it changes
        hotter = temperature_K is None or heating_K > thresholds.max_heating_share * temperature_K
        over = f"{heating_K:.2g} K over its {evidence.lengths_ps[row]:.4g} ps"
        if abs(drift) > INVALID_DRIFT_FACTOR * bound and hotter:
            invalid.append(
                f"{told}, more than {INVALID_DRIFT_FACTOR:g} times the bound of {bound:g}: {over}."
            )
        elif abs(drift) > bound:
            weak.append(f"{told}, the bound is {bound:g}: {over}.")
        elif temperature_K is not None and hotter:
            weak.append(f"{told}: {over}.")
    return invalid, weak


def _judge_statistics(evidence: Evidence, thresholds: VerdictThresholds) -> list[str]:
    weak = []
    if min(evidence.hops) < thresholds.min_hops_per_replica:
        weak.append(
            f"Only {min(evidence.hops)} hops in the quietest replica; "
            f"{thresholds.min_hops_per_replica} are wanted."
        )
    if not abs(evidence.msd_exponent - 1) <= thresholds.exponent_tolerance:
        weak.append(
            f"The MSD grows as lag^{evidence.msd_exponent:.2f} in the window, "
            f"not within 1 +- {thresholds.exponent_tolerance:g}."
        )
    if not evidence.window_regular:
        weak.append(
            "The MSD never settles to linear growth, so the window's start is a fixed share of its end."
        )
    if evidence.relative_standard_error > thresholds.max_relative_standard_error:
        weak.append(
            "The standard error (the larger of the replicas' and a random walk's) is "
            f"{evidence.relative_standard_error:.0%} of D, the bound is {thresholds.max_relative_standard_error:.0%}."
        )
    if evidence.interval_low <= 0:
        weak.append("The 95 % interval reaches zero.")
    if len(evidence.hops) == 1:
        weak.append("There is one replica, so nothing shows whether another start would agree.")
    p_value = evidence.agreement_p_value
    if p_value is not None and p_value < thresholds.replica_agreement_false_alarm:
        weak.append(f"The replicas differ more than a random walk's would (p = {p_value:.1g}).")
    wanted_A2 = thresholds.min_stop_msd_hop_lengths_squared * evidence.hop_length_A**2
    if np.isfinite(evidence.stop_msd_A2) and evidence.stop_msd_A2 < wanted_A2:
        weak.append(
            f"At the window's end ions have moved {evidence.stop_msd_A2:.2f} A^2, "
            f"{wanted_A2:.2f} are wanted: run longer."
        )
    return weak


def _judge_temperature(evidence: Evidence, thresholds: VerdictThresholds) -> list[str]:
    known_K = [value for value in evidence.temperatures_K if value is not None]
    if not known_K or not evidence.stated_temperature_K:
        return []
    mean_K = float(np.mean(known_K))
    if abs(mean_K / evidence.stated_temperature_K - 1) <= thresholds.max_temperature_deviation:
        return []
    told = (
        f"The replicas ran at {mean_K:.0f} K on average, {evidence.stated_temperature_K:g} K are stated: "
        "start them nearer the mean energy of a longer NVT run."
    )
    return [told]
