"""Figures of diffusion: the Arrhenius plot, mean squared displacements, pair distributions, throughput."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hopline.diffusion.verdict import NO_DIFFUSION_SEEN, RELIABLE
from hopline.report.inputs import Run
from hopline.report.numbers import is_number, with_error
from hopline.report.places import Point
from hopline.report.style import (
    FAINT,
    INK,
    WIDTH_IN,
    colour_of,
    drawing,
    marker_of,
    new_figure,
    to_svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DASH = "\N{EN DASH}"
MAX_COLUMNS = 4
RDF_ROWS = 3
NO_NEIGHBOUR = 0.01
"""g(r) below this is empty: the plot starts where the first neighbours do."""
DECADES_BEYOND, MAX_DECADES_BEYOND = 0.6, 1.5
"""How far the Arrhenius plot's axis reaches beyond its points, at least and at most; wider bars are cut."""
MIN_INVERSE_SPAN = 0.1
"""Least width of an Arrhenius plot, in 1000 / K: one temperature still needs room."""


def draw_arrhenius(
    diffusivities: Mapping[Point, Mapping[str, Any]],
    arrhenius: Mapping[tuple[str, str], Mapping[str, Any]],
    potentials: Sequence[str],
    composition: str,
) -> str:
    """Draw D against 1000 / T for one composition, with each fitted line and its 95 % band, as SVG.

    Filled markers are reliable, open ones weak, crosses invalid; arrows hang from the upper bound where no diffusion
    was seen. Bars are 95 % intervals. Points appear whether or not a line could be fitted.
    """
    here = {point: found for point, found in diffusivities.items() if point.composition == composition}
    with drawing():
        figure, axes = new_figure(height_in=4.6)
        axis = axes[0][0]
        axis.set_yscale("log")
        fitted = {line[0] for line in arrhenius if line[1] == composition}
        shown = fitted | {point.potential for point in here}
        for potential in (name for name in potentials if name in shown):
            colour = colour_of(potential, potentials)
            line = arrhenius.get((potential, composition), {})
            band = pd.DataFrame(line.get("band") or [])
            label = f"{potential}\nno line fitted"
            if len(band):
                x = 1000.0 * band["inverse_temperature_per_K"]
                axis.plot(x, band["diffusivity"], color=colour, zorder=2)
                if np.isfinite(band[["low", "high"]].astype(float).to_numpy()).all():
                    axis.fill_between(x, band["low"], band["high"], color=colour, alpha=0.13, linewidth=0)
                told = with_error(
                    line.get("activation_energy_eV"), line.get("activation_energy_standard_error_eV")
                )
                label = f"{potential}\n$E_a$ = {told} eV"
            for point, found in here.items():
                if point.potential == potential:
                    _mark(axis, point, found, colour, marker_of(potential, potentials))
            axis.plot([], [], color=colour, marker=marker_of(potential, potentials), label=label)
        _frame_arrhenius(axis, here)
        for label, style in _verdict_handles():
            axis.plot([], [], color=FAINT, linestyle="none", label=label, **style)
        figure.legend(loc="outside right upper", labelspacing=1.0)
        return to_svg(figure, f"Arrhenius plot of composition {composition}")


def _verdict_handles() -> list[tuple[str, dict[str, Any]]]:
    return [
        ("reliable", {"marker": "o"}),
        ("weak", {"marker": "o", "markerfacecolor": "white"}),
        ("upper bound", {"marker": "$\\downarrow$", "markersize": 10}),
        ("invalid", {"marker": "x"}),
    ]


def _mark(axis: "Axes", point: Point, found: Mapping[str, Any], colour: str, marker: str) -> None:
    x = 1000.0 / point.temperature_K
    value, bound = found.get("diffusivity_cm2_per_s"), found.get("upper_bound_cm2_per_s")
    if found.get("verdict") == NO_DIFFUSION_SEEN:
        if is_number(bound) and bound > 0:
            arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.5, "shrinkA": 0, "shrinkB": 0}
            axis.annotate("", xy=(x, bound / 2.5), xytext=(x, bound), arrowprops=arrow, zorder=5)
            axis.plot([x], [bound], marker="_", markersize=13, color=colour, markeredgewidth=2, zorder=5)
        return
    if not is_number(value) or value <= 0:
        return
    interval = found.get("interval_95_cm2_per_s")
    if interval and is_number(interval[0]) and is_number(interval[1]):
        low = interval[0] if interval[0] > 0 else value * 1e-6  # to the plot's floor
        axis.plot([x, x], [low, interval[1]], color=colour, linewidth=1.4, zorder=3)
        caps = [end for end in interval if end > 0]
        axis.plot([x] * len(caps), caps, "_", color=colour, markersize=7, zorder=3)
    filled = found.get("verdict") == RELIABLE
    style: dict[str, Any] = {"marker": marker, "markersize": 8, "color": colour, "markeredgewidth": 1.6}
    if found.get("verdict") == "invalid":
        style["marker"] = "x"
    axis.plot([x], [value], markerfacecolor=colour if filled else "white", zorder=4, **style)


def _frame_arrhenius(axis: "Axes", here: Mapping[Point, Mapping[str, Any]]) -> None:
    inverse = np.array([1000.0 / point.temperature_K for point in here] or [1.0])
    margin = max(0.12 * np.ptp(inverse), 0.5 * MIN_INVERSE_SPAN)
    axis.set_xlim(inverse.min() - margin, inverse.max() + margin)
    levels = [
        found.get(key)
        for found in here.values()
        for key in ("diffusivity_cm2_per_s", "upper_bound_cm2_per_s")
    ]
    known = [level for level in levels if is_number(level) and level > 0]
    if known:
        intervals = [found.get("interval_95_cm2_per_s") or () for found in here.values()]
        ends = [end for interval in intervals for end in interval if is_number(end) and end > 0]
        low, high = min(known), max(known)
        axis.set_ylim(
            max(min([low / 10**DECADES_BEYOND, *(end / 1.5 for end in ends)]), low / 10**MAX_DECADES_BEYOND),
            min(
                max([high * 10**DECADES_BEYOND, *(end * 1.5 for end in ends)]), high * 10**MAX_DECADES_BEYOND
            ),
        )
    else:
        axis.text(
            0.5, 0.5, "no diffusivity or bound to draw", transform=axis.transAxes, ha="center", color=FAINT
        )
    axis.set_xlabel("1000 / T (1/K)")
    axis.set_ylabel("D (cm²/s)")
    top = axis.secondary_xaxis("top", functions=(_thousand_over, _thousand_over))
    temperatures_K = sorted({point.temperature_K for point in here})
    top.set_xticks(temperatures_K, [f"{value:g}" for value in temperatures_K])
    top.set_xlabel("T (K)")


def _thousand_over(value: Any) -> Any:
    with np.errstate(divide="ignore"):
        return 1000.0 / np.asarray(value, dtype=float)


def draw_msd(
    curves: Mapping[Point, pd.DataFrame],
    diffusivities: Mapping[Point, Mapping[str, Any]],
    potentials: Sequence[str],
    line: tuple[str, str],
) -> str:
    """Draw MSD against lag at each temperature of one potential and composition, on common log axes, as SVG."""
    points = sorted(point for point in curves if point.line == line)
    rows = max(1, -(-len(points) // MAX_COLUMNS))
    columns = max(2, -(-len(points) // rows))
    colour = colour_of(line[0], potentials)
    with drawing():
        figure, axes = new_figure(
            rows, columns, height_in=0.35 + 2.75 * rows, width_in=WIDTH_IN, sharex=True, sharey=True
        )
        flat = [axis for row in axes for axis in row]
        for axis, point in zip(flat, points, strict=False):
            _draw_one_msd(axis, curves[point], diffusivities.get(point, {}), colour)
            axis.set_title(f"{point.temperature_K:g} K")
        for axis in flat[len(points) :]:
            axis.set_visible(False)
        for axis in flat[max(0, len(points) - columns) : len(points)]:
            axis.xaxis.set_tick_params(labelbottom=True)
            axis.set_xlabel("lag (ps)")
        for row in axes:
            row[0].set_ylabel("MSD (Å²)")
        return to_svg(figure, f"Mean squared displacement, potential {line[0]}, composition {line[1]}")


def _draw_one_msd(axis: "Axes", curve: pd.DataFrame, found: Mapping[str, Any], colour: str) -> None:
    axis.set(xscale="log", yscale="log")
    if not len(curve):
        axis.text(0.5, 0.5, "no usable replica", transform=axis.transAxes, ha="center", color=FAINT)
        return
    for column in curve.columns:
        if column.startswith("msd_A2_"):
            positive = curve[curve[column] > 0]
            axis.plot(positive["lag_ps"], positive[column], color=colour, linewidth=0.8, alpha=0.55)
    mean = curve[curve["mean_msd_A2"] > 0]
    axis.plot(mean["lag_ps"], mean["mean_msd_A2"], color=colour, linewidth=2.4)
    window = found.get("lag_window_ps")
    if window:
        axis.axvspan(window[0], window[1], color=FAINT, alpha=0.14, linewidth=0)
        _draw_slope_one(axis, mean, window)
    told = [str(found.get("verdict", "")).replace("-", " ")]
    if is_number(found.get("msd_exponent")):
        told.append(f"lag$^{{\\,{found['msd_exponent']:.2f}}}$ in the window")
    axis.text(0.04, 0.96, "\n".join(told), transform=axis.transAxes, va="top", fontsize=8, color=INK)


def _draw_slope_one(axis: "Axes", mean: pd.DataFrame, window: Sequence[float]) -> None:
    """Draw the straight line of ordinary diffusion a little above the mean, for the eye to compare with."""
    inside = mean[(mean["lag_ps"] >= window[0]) & (mean["lag_ps"] <= window[1])]
    if len(inside) > 1:
        level = 1.8 * float(np.exp(np.log(inside["mean_msd_A2"] / inside["lag_ps"]).mean()))
        ends = np.array([window[0], window[1]])
        axis.plot(ends, level * ends, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))


def draw_pair_distributions(
    correlations: Mapping[Point, pd.DataFrame], potentials: Sequence[str], composition: str
) -> tuple[str, list[float]]:
    """Draw g(r) of every pair for one composition; return the SVG and the temperatures shown (at most three)."""
    here = {point: table for point, table in correlations.items() if point.composition == composition}
    temperatures_K = sorted({point.temperature_K for point in here})
    if len(temperatures_K) > RDF_ROWS:
        temperatures_K = [temperatures_K[0], temperatures_K[len(temperatures_K) // 2], temperatures_K[-1]]
    found = {
        tuple(sorted(pair))
        for table in here.values()
        for pair in zip(table["centre"], table["neighbour"], strict=True)
    }
    pairs = sorted(found)
    rows, columns = max(1, len(temperatures_K)), max(1, len(pairs))
    with drawing():
        figure, axes = new_figure(rows, columns, height_in=0.5 + 1.9 * rows, sharex=True, sharey="col")
        for row, temperature_K in zip(axes, temperatures_K, strict=False):
            for axis, pair in zip(row, pairs, strict=True):
                axis.axhline(1.0, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
                for point, table in sorted(
                    here.items(), key=lambda item: potentials.index(item[0].potential)
                ):
                    part = table[(table["centre"] == pair[0]) & (table["neighbour"] == pair[1])]
                    if point.temperature_K == temperature_K and len(part):
                        colour = colour_of(point.potential, potentials)
                        axis.plot(part["r_A"], part["g"], color=colour, linewidth=1.5, label=point.potential)
                axis.set_title(f"{pair[0]}{DASH}{pair[1]}, {temperature_K:g} K")
                axis.set_ylim(bottom=0)
            row[0].set_ylabel("g(r)")
        nearest_A = min(
            (table.loc[table["g"] > NO_NEIGHBOUR, "r_A"].min() for table in here.values()), default=0.0
        )
        for axis in axes[-1]:
            axis.set_xlabel("r (Å)")
            if np.isfinite(nearest_A):
                axis.set_xlim(left=max(0.0, nearest_A - 0.3))
        known = {
            label: handle
            for row in axes
            for axis in row
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        figure.legend(known.values(), known.keys(), loc="outside upper left", ncols=max(1, len(known)))
        return to_svg(figure, f"Pair distributions of composition {composition}"), temperatures_K


def draw_throughput(runs: Sequence[Run], potentials: Sequence[str]) -> str:
    """Draw each potential's median throughput of its production runs in ns/day, with the range, as SVG."""
    rates = {
        potential: [
            run.sidecar["throughput_ns_per_day"]
            for run in runs
            if run.point.potential == potential
            and run.stage.startswith("nve")
            and is_number(run.sidecar.get("throughput_ns_per_day"))
        ]
        for potential in potentials
    }
    rates = {potential: values for potential, values in rates.items() if values}
    with drawing():
        figure, axes = new_figure(height_in=0.75 + 0.42 * max(1, len(rates)))
        axis = axes[0][0]
        for row, (potential, values) in enumerate(rates.items()):
            middle = float(np.median(values))
            axis.barh(row, middle, height=0.55, color=colour_of(potential, potentials))
            axis.plot([min(values), max(values)], [row, row], color=INK, linewidth=1.2)
            axis.annotate(
                f"{middle:.3g} ns/day",
                (max(*values, middle), row),
                xytext=(7, 0),
                textcoords="offset points",
                va="center",
            )
        axis.set_yticks(range(len(rates)), list(rates))
        axis.set_ylim(len(rates) - 0.5, -0.5)
        axis.set_xlim(0, 1.18 * max((max(values) for values in rates.values()), default=1.0))
        axis.set_xlabel("throughput of a production replica (ns/day)")
        axis.grid(visible=False, axis="y")
        return to_svg(figure, "Throughput by potential")
