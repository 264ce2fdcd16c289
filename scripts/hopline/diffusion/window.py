"""Where on the MSD a diffusivity is read off."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hopline.console import InputError
from hopline.diffusion import uncertainty
from hopline.diffusion.msd import local_exponent, log_spaced_lags
from hopline.diffusion.replicas import Observation

FIT_LAGS = 60
START_LAGS = 50
STOP_SHARE = 0.3
"""Share of the shortest used replica where the lag window stops: later lags have few independent origins."""
FALLBACK_START_SHARE = 0.2
START_TOLERANCE = 0.15
START_SIGMAS = 3.0
INFORMATIVE_ERROR = 0.1
"""The window starts where the local exponent stays within 0.15 of 1, or within 3 of its own errors.

Only lags where a random walk's exponent is known to 0.1 are asked: later ones are noise, and a start that
followed noise would favour windows in which the ions went slowly (measured: D 3 % too low for one ion).
"""


@dataclass(frozen=True)
class LagWindow:
    """A lag window in frames, how it was chosen, and whether linear growth was found for it."""

    start: int
    stop: int
    how: str
    regular: bool


def choose_window(
    used: Sequence[Observation], fit_start_ps: float | None, fit_stop_ps: float | None
) -> LagWindow:
    """Return the lag window, as stated or by the rule that ``estimate_diffusivity`` describes.

    Raises
    ------
    InputError
        If it leaves the shortest replica or holds fewer than three lags.
    """
    interval_ps = used[0].frame_interval_ps
    n_frames = min(len(one.msd_A2) for one in used)
    stop = int(STOP_SHARE * (n_frames - 1)) if fit_stop_ps is None else round(fit_stop_ps / interval_ps)
    told = f"stops at {STOP_SHARE:g} of the shortest replica" if fit_stop_ps is None else "stops as stated"
    if stop >= n_frames:
        raise InputError(f"the lag window stops at {fit_stop_ps} ps, beyond the shortest replica")
    if fit_start_ps is not None:
        start, how, regular = max(1, round(fit_start_ps / interval_ps)), "starts as stated", True
    else:
        start, how, regular = _settled_start(used, n_frames, stop)
    if len(log_spaced_lags(start, max(start, stop), FIT_LAGS)) < 3:  # noqa: PLR2004
        raise InputError(
            f"the lag window {start * interval_ps:.4g} to {stop * interval_ps:.4g} ps "
            "holds fewer than three lags: widen it or write frames more often"
        )
    return LagWindow(start, stop, f"{how}; {told}", regular)


def _settled_start(used: Sequence[Observation], n_frames: int, stop: int) -> tuple[int, str, bool]:
    if stop < 2:  # noqa: PLR2004
        return 1, "starts at the first lag", True
    pooled = np.mean([one.msd_A2[:n_frames] for one in used], axis=0)
    lags = log_spaced_lags(1, max(1, stop // 2), START_LAGS)
    exponents = local_exponent(pooled, lags)
    errors = uncertainty.octave_exponent_error(n_frames, lags, used[0].n_mobile * len(used))
    asked = errors <= max(INFORMATIVE_ERROR, float(errors.min()))
    lags, exponents, errors = lags[asked], exponents[asked], errors[asked]
    bad = ~(np.abs(exponents - 1) <= np.maximum(START_TOLERANCE, START_SIGMAS * errors))
    first = int(np.flatnonzero(bad)[-1]) + 1 if bad.any() else 0
    if first == len(lags):
        start = max(1, round(FALLBACK_START_SHARE * stop))
        return start, f"starts at {FALLBACK_START_SHARE:g} of its end, no linear growth being found", False
    rule = f"starts where the pooled MSD's exponent stays within 1 +- {START_TOLERANCE:g} (or its own error)"
    return int(lags[first]), rule, True
