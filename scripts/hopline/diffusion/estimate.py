"""The diffusivity of one species from replicas, with an interval that keeps its promise."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hopline.console import InputError
from hopline.diffusion import uncertainty
from hopline.diffusion.msd import local_exponent, log_spaced_lags, mobile_positions
from hopline.diffusion.replicas import (
    Observation,
    ReplicaResult,
    ReplicaSource,
    observe,
    refuse_mixtures,
    replica_results,
    status_note,
)
from hopline.diffusion.verdict import INVALID, NO_DIFFUSION_SEEN, Evidence, VerdictThresholds, judge
from hopline.diffusion.window import FIT_LAGS, choose_window
from hopline.units import CM2_PER_S_PER_A2_PER_PS

CURVE_LAGS = 200
SHORT_REPLICA_SHARE = 0.5
"""A replica shorter than this share of the longest is left out: it would cut the window of all."""


@dataclass(frozen=True)
class Diffusivity:
    """A diffusivity, its errors and whether it may be quoted; the field names are the JSON keys.

    ``standard_error_cm2_per_s`` is the replicas' (of one replica: the random walk's);
    ``standard_error_random_walk_cm2_per_s`` is the analytic one. Where there is no D, it and its errors are
    None; where no diffusion was seen, ``interval_95_cm2_per_s`` runs from zero to ``upper_bound_cm2_per_s``.
    """

    species: str
    n_mobile: int | None
    temperature_K: float | None
    diffusivity_cm2_per_s: float | None
    standard_error_cm2_per_s: float | None
    standard_error_random_walk_cm2_per_s: float | None
    interval_95_cm2_per_s: tuple[float, float] | None
    upper_bound_cm2_per_s: float | None
    verdict: str
    reasons: list[str]
    hops: int | None
    hop_length_A: float | None
    msd_exponent: float | None
    lag_window_ps: tuple[float, float] | None
    lag_window_choice: str | None
    energy_drift_meV_per_atom_per_ps: float | None
    replicas: list[ReplicaResult]
    method: str


@dataclass(frozen=True, eq=False)
class MsdCurve:
    """MSD at log-spaced lags: ``lag_ps`` (n,), ``msd_A2`` (n_replicas, n), their mean, its exponent."""

    lag_ps: NDArray[np.float64]
    msd_A2: NDArray[np.float64]
    mean_msd_A2: NDArray[np.float64]
    local_exponent: NDArray[np.float64]

    def table(self) -> list[list[float | str]]:
        """Return a header and one row per lag."""
        replicas = [f"msd_A2_{row + 1}" for row in range(len(self.msd_A2))]
        columns = np.vstack([self.lag_ps, self.msd_A2, self.mean_msd_A2, self.local_exponent])
        return [["lag_ps", *replicas, "mean_msd_A2", "local_exponent"], *columns.T.tolist()]


def estimate_diffusivity(
    sources: Sequence[ReplicaSource],
    *,
    species: str,
    fit_start_ps: float | None = None,
    fit_stop_ps: float | None = None,
    hop_length_A: float | None = None,
    temperature_K: float | None = None,
    thresholds: VerdictThresholds | None = None,
) -> tuple[Diffusivity, MsdCurve | None]:
    """Return the tracer diffusivity of ``species`` and the MSD curve it comes from.

    The curve is None if too few replicas are usable. D of a replica is the slope of its MSD in the lag
    window, over 6: weighted least squares with an intercept. The result is the replicas' mean. The quoted
    95 % interval is the wider, on either side, of Student's t over the replicas and the scaled chi-square
    whose variance is that of a Gaussian random walk's slope (full covariance) plus the shot noise 1 / hops.
    A window that is not given starts where the pooled MSD's exponent settles at 1 and stops at 0.3 of the
    shortest replica.

    Parameters
    ----------
    sources
        The replicas; those with status ``exploded`` are not measured.
    species
        Chemical symbol of the mobile species; the host is everything else.
    fit_start_ps, fit_stop_ps
        Lag window; either may be left to the rule.
    hop_length_A
        Distance beyond which a settled move is a hop; by default half the nearest-neighbour distance.
    temperature_K
        Nominal temperature to state; by default the measured mean.
    thresholds
        Bounds of the verdict.

    Raises
    ------
    InputError
        If a species is absent, a replica is too short, replicas differ in frame interval or atoms, or the
        window leaves fewer than three lags.
    """
    thresholds = thresholds or VerdictThresholds()
    stated = {
        "fit start": fit_start_ps,
        "fit stop": fit_stop_ps,
        "hop length": hop_length_A,
        "temperature": temperature_K,
    }
    for what, value in stated.items():
        if value is not None and not 0 < value < np.inf:
            raise InputError(f"the {what} is {value}; it must be positive and finite")
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise InputError("a trajectory is given twice: replicas must be different runs")
    notes = [status_note(source) for source in sources]
    observed: list[Observation] = []
    for source in sources:
        if source.status != "exploded":
            observed.append(observe(source, species=species, hop_length_A=hop_length_A))
            hop_length_A = observed[0].hop_length_A  # one yardstick for all replicas
    if not observed:  # nothing will be measured, yet a species that is not there is bad input all the same
        mobile_positions(sources[0].load(), species)
    refuse_mixtures(observed)
    longest_ps = max((one.length_ps for one in observed), default=0.0)
    used = [one for one in observed if one.length_ps >= SHORT_REPLICA_SHARE * longest_ps]
    notes += [
        f"{one.name} is left out: its {one.length_ps:.4g} ps are less than half of the longest replica."
        for one in observed
        if one not in used
    ]
    reasons = [note for note in notes if note]
    if not used or (len(used) < len(sources) and len(used) < thresholds.min_replicas):
        reasons.append(
            f"{len(used)} of {len(sources)} replicas can be used, {thresholds.min_replicas} are needed."
        )
        return _without_estimate(sources, observed, species, temperature_K, reasons), None
    return _estimate(
        sources, observed, used, species, fit_start_ps, fit_stop_ps, temperature_K, thresholds, reasons
    )


def _estimate(
    sources: Sequence[ReplicaSource], observed: Sequence[Observation],
    used: Sequence[Observation], species: str,
    fit_start_ps: float | None, fit_stop_ps: float | None, temperature_K: float | None,
    thresholds: VerdictThresholds, reasons: list[str],
) -> tuple[Diffusivity, MsdCurve]:  # fmt: skip
    window = choose_window(used, fit_start_ps, fit_stop_ps)
    interval_ps, n_mobile = used[0].frame_interval_ps, used[0].n_mobile
    lags = log_spaced_lags(window.start, window.stop, FIT_LAGS)
    lines = [uncertainty.fit_line(len(one.msd_A2), lags) for one in used]
    per_frame = 2 * uncertainty.DIMENSIONS * interval_ps
    values = np.array(
        [float(line.slope @ one.msd_A2[lags]) / per_frame for line, one in zip(lines, used, strict=True)]
    )
    shortest = min(range(len(used)), key=lambda row: len(used[row].msd_A2))
    pooled = np.mean([one.msd_A2[: len(used[shortest].msd_A2)] for one in used], axis=0)
    exponent = float("nan")
    if (pooled[lags] > 0).all():
        exponent, _ = uncertainty.fit_exponent(pooled, lines[shortest], n_mobile * len(used))

    hops = sum(one.hops for one in used)
    within = np.array([line.relative_variance / n_mobile for line in lines])
    mean = float(values.mean())
    error = random_walk_error = interval = p_value = None
    if mean > 0 and hops > 0:
        variance = float(within.mean() / len(used)) + 1.0 / hops
        random_walk_error = mean * float(np.sqrt(variance))
        interval = uncertainty.random_walk_interval(mean, variance)
        error = random_walk_error
        if len(used) > 1:
            error = float(values.std(ddof=1) / np.sqrt(len(used)))
            student = uncertainty.student_interval(values)
            interval = max(0.0, min(interval[0], student[0])), max(interval[1], student[1])
            p_value = _agreement(values, within + len(used) / hops)
    verdict, judged = judge(
        Evidence(
            hops=[one.hops for one in used],
            hop_length_A=used[0].hop_length_A,
            energy_drifts_meV_per_atom_per_ps=[one.energy_drift for one in used],
            temperatures_K=[one.temperature_K for one in used],
            lengths_ps=[one.length_ps for one in used],
            diffusivity=mean,
            relative_standard_error=max(error or 0.0, random_walk_error or 0.0) / mean
            if mean > 0
            else np.inf,
            interval_low=interval[0] if interval else 0.0,
            msd_exponent=exponent,
            stop_msd_A2=float(pooled[window.stop]),
            agreement_p_value=p_value,
            window_regular=window.regular,
            stated_temperature_K=temperature_K,
        ),
        thresholds,
    )
    method = _method(len(used))
    quoted = interval is not None and verdict != NO_DIFFUSION_SEEN
    bound = None
    if verdict == NO_DIFFUSION_SEEN:
        exposure_ps = n_mobile * sum(one.length_ps for one in used)
        site_distance_A = 2 * used[0].hop_length_A
        bound = (
            uncertainty.rate_upper_bound(hops, exposure_ps)
            * site_distance_A**2
            / (2 * uncertainty.DIMENSIONS)
        )
        interval = (0.0, bound)
        method = (
            f"Upper bound (95 %) rate l^2 / 6 with l = {site_distance_A:.3g} A, twice the hop length, and the "
            f"Poisson bound of the rate: {hops} hops in {exposure_ps:.4g} ion ps (none: 3.0 / exposure)."
        )
    drifts = [one.energy_drift for one in used if one.energy_drift is not None]
    result = Diffusivity(
        species=species,
        n_mobile=n_mobile,
        temperature_K=temperature_K
        if temperature_K is not None
        else _mean([one.temperature_K for one in used]),
        diffusivity_cm2_per_s=_cm2(mean) if quoted else None,
        standard_error_cm2_per_s=_cm2(error) if quoted else None,
        standard_error_random_walk_cm2_per_s=_cm2(random_walk_error) if quoted else None,
        interval_95_cm2_per_s=None
        if interval is None
        else (interval[0] * CM2_PER_S_PER_A2_PER_PS, interval[1] * CM2_PER_S_PER_A2_PER_PS),
        upper_bound_cm2_per_s=_cm2(bound),
        verdict=verdict,
        reasons=judged + reasons,
        hops=hops,
        hop_length_A=used[0].hop_length_A,
        msd_exponent=exponent if np.isfinite(exponent) else None,
        lag_window_ps=(window.start * interval_ps, window.stop * interval_ps),
        lag_window_choice=window.how,
        energy_drift_meV_per_atom_per_ps=max(drifts, key=abs, default=None),
        replicas=replica_results(sources, observed, used, values),
        method=method,
    )
    return result, _curve(used, pooled, interval_ps)


def _cm2(value: float | None) -> float | None:
    return None if value is None else value * CM2_PER_S_PER_A2_PER_PS


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _method(n_used: int) -> str:
    fit = (
        "Slope of the windowed MSD (host drift removed) over the lag window, "
        "weighted least squares with intercept, over 6"
    )
    walk = "a random walk's (analytic covariance of its MSD plus shot noise of the hops)"
    if n_used == 1:
        return f"{fit}; one replica: error and 95 % interval are {walk}, no spread between replicas enters."
    return (
        f"{fit}, mean of {n_used} replicas; standard error over replicas; "
        f"95 % interval the wider of Student's t over replicas and {walk}."
    )


def _agreement(values: NDArray[np.float64], relative_variances: NDArray[np.float64]) -> float:
    """Return the p value of replicas having one D, given each one's relative variance."""
    from scipy.stats import chi2

    spread = ((values / values.mean() - 1) ** 2 / relative_variances).sum()
    return float(chi2.sf(spread, len(values) - 1))


def _without_estimate(
    sources: Sequence[ReplicaSource], observed: Sequence[Observation], species: str,
    temperature_K: float | None, reasons: list[str],
) -> Diffusivity:  # fmt: skip
    drifts = [one.energy_drift for one in observed if one.energy_drift is not None]
    return Diffusivity(
        species=species,
        n_mobile=observed[0].n_mobile if observed else None,
        temperature_K=temperature_K
        if temperature_K is not None
        else _mean([one.temperature_K for one in observed]),
        diffusivity_cm2_per_s=None,
        standard_error_cm2_per_s=None,
        standard_error_random_walk_cm2_per_s=None,
        interval_95_cm2_per_s=None,
        upper_bound_cm2_per_s=None,
        verdict=INVALID,
        reasons=reasons,
        hops=sum(one.hops for one in observed) if observed else None,
        hop_length_A=observed[0].hop_length_A if observed else None,
        msd_exponent=None,
        lag_window_ps=None,
        lag_window_choice=None,
        energy_drift_meV_per_atom_per_ps=max(drifts, key=abs, default=None),
        replicas=replica_results(sources, observed, [], np.empty(0)),
        method="No estimate: too few usable replicas.",
    )


def _curve(used: Sequence[Observation], pooled: NDArray[np.float64], interval_ps: float) -> MsdCurve:
    lags = log_spaced_lags(1, len(pooled) - 1, CURVE_LAGS)
    return MsdCurve(
        lag_ps=lags.astype(np.float64) * interval_ps,
        msd_A2=np.array([one.msd_A2[lags] for one in used]),
        mean_msd_A2=pooled[lags],
        local_exponent=local_exponent(pooled, lags),
    )
