"""The Arrhenius line through diffusivities, with errors that come from theirs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hopline.console import InputError
from hopline.diffusion.verdict import INVALID, NO_DIFFUSION_SEEN, RELIABLE, WEAK
from hopline.units import BOLTZMANN_EV_PER_K

LEVEL = 0.95
BAND_POINTS = 50
BAND_MARGIN = 0.1
VERDICTS = (RELIABLE, WEAK, NO_DIFFUSION_SEEN, INVALID)
SMALLEST_ERROR, SMALLEST_ERROR_SHARE = 1e-12, 1e-6
"""Relative errors below the first, or below that share of the largest, are raised: rounding sees no less."""


@dataclass(frozen=True)
class ArrheniusPoint:
    """One diffusivity, the mean of ``replicas``, at one temperature; the errors are standard errors."""

    name: str
    temperature_K: float | None
    diffusivity_cm2_per_s: float | None
    standard_error_cm2_per_s: float | None
    verdict: str
    random_walk_error_cm2_per_s: float | None = None
    replicas: int | None = None


@dataclass(frozen=True)
class Arrhenius:
    """Activation energy and prefactor, D = D0 exp(-E_a / kB T); the field names are the JSON keys.

    ``covariance`` is that of (ln D0, E_a in eV). ``goodness_of_fit`` is chi-square's p value, None with two
    points or without errors. Without two usable points all figures are None and ``reasons`` says why.
    """

    activation_energy_eV: float | None
    activation_energy_standard_error_eV: float | None
    activation_energy_interval_95_eV: tuple[float, float] | None
    prefactor_cm2_per_s: float | None
    log_prefactor_standard_error: float | None
    prefactor_interval_95_cm2_per_s: tuple[float, float] | None
    covariance: list[list[float]] | None
    goodness_of_fit: float | None
    points_used: list[dict[str, Any]]
    points_left_out: list[dict[str, Any]]
    band: list[dict[str, float]]
    reasons: list[str]
    method: str


@dataclass(frozen=True, eq=False)
class _Line:
    log_prefactor: float
    energy_eV: float
    covariance: NDArray[np.float64]
    quantile: NDArray[np.float64]
    p_value: float | None


def point_from_result(content: Mapping[str, Any], *, name: str) -> ArrheniusPoint:
    """Return the point that a diffusivity's JSON describes.

    Raises
    ------
    InputError
        If a needed key is missing, a number is not one, or the verdict is unknown.
    """
    for key in ("diffusivity_cm2_per_s", "standard_error_cm2_per_s", "temperature_K", "verdict"):
        if key not in content:
            raise InputError(f"{name} has no {key}: it is not the result of estimate_diffusivity.py")
    if content["verdict"] not in VERDICTS:
        raise InputError(f"{name} has the verdict {content['verdict']}; known: {', '.join(VERDICTS)}")
    replicas = content.get("replicas") or []
    used = [
        one for one in replicas if isinstance(one, Mapping) and one.get("diffusivity_cm2_per_s") is not None
    ]
    return ArrheniusPoint(
        name=name,
        temperature_K=_number(content, "temperature_K", name),
        diffusivity_cm2_per_s=_number(content, "diffusivity_cm2_per_s", name),
        standard_error_cm2_per_s=_number(content, "standard_error_cm2_per_s", name),
        random_walk_error_cm2_per_s=_number(content, "standard_error_random_walk_cm2_per_s", name),
        verdict=content["verdict"],
        replicas=len(used) or None,
    )


def _number(content: Mapping[str, Any], key: str, name: str) -> float | None:
    value = content.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise InputError(f"{name} has {key} = {value!r}, which is not a finite number")
    return float(value)


def fit_arrhenius(points: Sequence[ArrheniusPoint]) -> Arrhenius:
    """Return the weighted least-squares line ln D = ln D0 - E_a / (kB T) with 95 % intervals.

    The error of ln D is the relative standard error of D; of the replicas' and the random walk's the larger
    one (three replicas may agree by chance). Where the replicas' is larger it has n - 1 degrees of freedom:
    intervals use Student's t with the Welch-Satterthwaite number of the line's own error. Where the replicas'
    is the only one it is raised to its own 95 % half width over 1.96 (Banerjee, Sankhya 22, 359 (1960)), since
    weights from three replicas alone are noise. If chi-square exceeds its degrees of freedom, the covariance
    is scaled by their ratio. Where no point has an error, all weigh the same and errors come from the scatter.
    Points without diffusion, invalid, or without a positive D or T never enter.
    """
    used, left_out, reasons = [], [], []
    for point in points:
        why = _why_not(point)
        if why:
            left_out.append({"source": point.name, "temperature_K": point.temperature_K, "why": why})
        else:
            used.append(point)
    if WEAK in [point.verdict for point in used]:
        weak = ", ".join(f"{point.temperature_K:g} K" for point in used if point.verdict == WEAK)
        reasons.append(f"Weak diffusivities enter with their errors: {weak}.")
    temperatures = {point.temperature_K for point in used}
    if len(temperatures) < 2:  # noqa: PLR2004
        reasons.append(
            f"A line needs two temperatures with a usable diffusivity; there are {len(temperatures)}."
        )
        return _no_line(used, left_out, reasons)

    x = np.array([1.0 / (BOLTZMANN_EV_PER_K * (point.temperature_K or np.nan)) for point in used])
    y = np.log([point.diffusivity_cm2_per_s or np.nan for point in used])
    errors, freedoms = _relative_errors(used)
    if errors is not None and not all(point.standard_error_cm2_per_s for point in used):
        reasons.append(
            "A point without an error of its own was given the largest relative error of the others."
        )
    line = _fit_line(x, y, errors, freedoms)
    if len(used) == 2:  # noqa: PLR2004
        reasons.append("Two points fix a line exactly: there is no goodness of fit.")
        if errors is None:
            reasons.append("Neither point has an error, so the line's errors are unknown.")
    elif errors is None:
        reasons.append(
            "No point has an error: all weigh the same, and errors come from the scatter about the line."
        )
    elif line.p_value is not None and line.p_value < 1 - LEVEL:
        reasons.append(
            f"The points scatter more than their errors allow (p = {line.p_value:.2g}); errors are scaled up."
        )
    return _result(line, used, left_out, reasons)


def _why_not(point: ArrheniusPoint) -> str | None:
    if point.verdict in {NO_DIFFUSION_SEEN, INVALID}:
        return f"its verdict is {point.verdict}"
    if point.temperature_K is None or not point.temperature_K > 0:
        return "it has no temperature"
    if point.diffusivity_cm2_per_s is None or not point.diffusivity_cm2_per_s > 0:
        return "it has no positive diffusivity"
    return None


def _relative_errors(
    used: Sequence[ArrheniusPoint],
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64]]:
    """Return the relative errors (None if there are none) and the degrees of freedom behind each."""
    from scipy.stats import norm, t

    errors, freedoms = np.zeros(len(used)), np.full(len(used), np.inf)
    for row, point in enumerate(used):
        between, within = point.standard_error_cm2_per_s or 0.0, point.random_walk_error_cm2_per_s
        if point.replicas is not None and point.replicas > 1 and between > (within or 0.0):
            freedom = point.replicas - 1
            if within is None:
                between *= t.ppf((1 + LEVEL) / 2, freedom) / norm.ppf((1 + LEVEL) / 2)
            else:
                freedoms[row] = freedom
        errors[row] = max(between, within or 0.0) / (point.diffusivity_cm2_per_s or np.nan)
    if not errors.any():
        return None, freedoms
    errors[errors == 0] = errors.max()
    return np.maximum(errors, max(SMALLEST_ERROR, SMALLEST_ERROR_SHARE * errors.max())), freedoms


def _fit_line(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    errors: NDArray[np.float64] | None,
    freedoms: NDArray[np.float64],
) -> _Line:
    from scipy.stats import chi2, t

    sigma = np.ones(len(x)) if errors is None else errors
    weights = (sigma.min() / sigma) ** 2
    heaviest = int(weights.argmax())
    x_near, y_near = x - x[heaviest], y - y[heaviest]  # nothing cancels where the weight is
    x_mean = (weights * x_near).sum() / weights.sum()
    slope_factors = weights * (x_near - x_mean) / (weights * (x_near - x_mean) ** 2).sum()
    level_factors = weights / weights.sum() - slope_factors * (x_mean + x[heaviest])
    factors = np.array([level_factors, -slope_factors])  # (ln D0, E_a) = factors @ y
    log_prefactor, energy = factors @ y_near + [y[heaviest], 0.0]
    spare = len(x) - 2
    chi_square = float((((y - log_prefactor + energy * x) / sigma) ** 2).sum())
    if errors is None:
        scale = chi_square / spare if spare else np.nan
        return _Line(
            log_prefactor,
            energy,
            factors @ factors.T * scale,
            np.full(2, t.ppf((1 + LEVEL) / 2, max(spare, 1))),
            None,
        )
    shares = factors**2 * sigma**2
    shares /= shares.sum(axis=1, keepdims=True)
    inverse_freedom = (shares**2 / freedoms).sum(axis=1)
    freedom = 1.0 / np.maximum(
        inverse_freedom, 1e-9
    )  # a billion degrees of freedom are a normal distribution
    covariance = (factors * sigma**2) @ factors.T
    if spare:
        covariance *= max(1.0, chi_square / spare)
    p_value = float(chi2.sf(chi_square, spare)) if spare else None
    return _Line(log_prefactor, energy, covariance, t.ppf((1 + LEVEL) / 2, freedom), p_value)


def _result(
    line: _Line, used: Sequence[ArrheniusPoint], left_out: list[dict[str, Any]], reasons: list[str]
) -> Arrhenius:
    errors = np.sqrt(np.diag(line.covariance))
    known = bool(np.isfinite(errors).all())
    half = line.quantile * errors
    return Arrhenius(
        activation_energy_eV=line.energy_eV,
        activation_energy_standard_error_eV=float(errors[1]) if known else None,
        activation_energy_interval_95_eV=(line.energy_eV - half[1], line.energy_eV + half[1])
        if known
        else None,
        prefactor_cm2_per_s=float(np.exp(line.log_prefactor)),
        log_prefactor_standard_error=float(errors[0]) if known else None,
        prefactor_interval_95_cm2_per_s=(
            (float(np.exp(line.log_prefactor - half[0])), float(np.exp(line.log_prefactor + half[0])))
            if known
            else None
        ),
        covariance=line.covariance.tolist() if known else None,
        goodness_of_fit=line.p_value,
        points_used=[_told(point) for point in used],
        points_left_out=left_out,
        band=_band(line, used),
        reasons=reasons,
        method=(
            "Weighted least squares of ln D against 1/kB T; covariance of (ln D0, E_a / eV); "
            "95 % intervals by Student's t."
        ),
    )


def _told(point: ArrheniusPoint) -> dict[str, Any]:
    return {
        "source": point.name,
        "temperature_K": point.temperature_K,
        "diffusivity_cm2_per_s": point.diffusivity_cm2_per_s,
        "standard_error_cm2_per_s": point.standard_error_cm2_per_s,
        "verdict": point.verdict,
    }


def _band(line: _Line, used: Sequence[ArrheniusPoint]) -> list[dict[str, float]]:
    """Return the line and its pointwise 95 % band over the used temperatures and a tenth beyond."""
    inverse = np.array([1.0 / (point.temperature_K or np.nan) for point in used])
    margin = BAND_MARGIN * np.ptp(inverse)
    grid = np.linspace(inverse.min() - margin, inverse.max() + margin, BAND_POINTS)
    design = np.column_stack([np.ones(BAND_POINTS), -grid / BOLTZMANN_EV_PER_K])
    middle = design @ [line.log_prefactor, line.energy_eV]
    half = line.quantile.max() * np.sqrt(
        np.maximum(np.einsum("pi,ij,pj->p", design, line.covariance, design), 0.0)
    )
    return [
        {
            "inverse_temperature_per_K": float(x),
            "diffusivity": float(np.exp(y)),
            "low": float(np.exp(y - h)),
            "high": float(np.exp(y + h)),
        }
        for x, y, h in zip(grid, middle, half, strict=True)
    ]


def _no_line(used: Sequence[ArrheniusPoint], left_out: list[dict[str, Any]], reasons: list[str]) -> Arrhenius:
    return Arrhenius(
        activation_energy_eV=None,
        activation_energy_standard_error_eV=None,
        activation_energy_interval_95_eV=None,
        prefactor_cm2_per_s=None,
        log_prefactor_standard_error=None,
        prefactor_interval_95_cm2_per_s=None,
        covariance=None,
        goodness_of_fit=None,
        points_used=[_told(point) for point in used],
        points_left_out=left_out,
        band=[],
        reasons=reasons,
        method="No line: too few usable points.",
    )
