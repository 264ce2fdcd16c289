"""Figures of potentials and of the frames behind them: parity, learning curves, the map of the sampled space."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hopline.report.numbers import percent
from hopline.report.style import (
    COLOURS,
    FAINT,
    INK,
    WIDTH_IN,
    colour_of,
    drawing,
    new_figure,
    plain_log_ticks,
    to_svg,
)
from hopline.units import MEV_PER_EV

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = {"energy": "energy (meV/atom)", "force": "force (eV/Å)", "stress": "stress (GPa)"}
DENSE = 2000
"""Scatters with more points are drawn as an image inside the SVG."""
NOVELTY_CUT = 2.0
COMPOSITION_COLOURS = (*COLOURS[5:3:-1], *COLOURS[3:1:-1], *COLOURS[7:5:-1])
"""Compositions take the colours from the other end, which few reports need for a potential."""


def draw_parity(predictions: Mapping[str, pd.DataFrame], potentials: Sequence[str]) -> str:
    """Draw predicted against reference energies, forces and stresses, one row for each potential, as SVG.

    Energies are shown relative to each composition's mean reference, in meV/atom, since compositions lie far apart.
    All potentials share the axes of a column.
    """
    shown = [potential for potential in potentials if potential in predictions]
    tables = {potential: _relative_energies(predictions[potential]) for potential in shown}
    kinds = [
        (kind, label)
        for kind, label in KINDS.items()
        if any((table["kind"] == kind).any() for table in tables.values())
    ]
    rows, columns = max(1, len(shown)), max(1, len(kinds))
    with drawing():
        figure, axes = new_figure(
            rows, columns, height_in=0.3 + 3.3 * rows, width_in=WIDTH_IN * columns / len(KINDS)
        )
        for row, potential in zip(axes, shown, strict=False):
            for axis, (kind, label) in zip(row, kinds, strict=True):
                limits = _limits([table[table["kind"] == kind] for table in tables.values()])
                part = tables[potential][tables[potential]["kind"] == kind]
                _draw_one_parity(axis, part, limits, colour_of(potential, potentials), kind)
                axis.set_ylabel(f"predicted {label}")
                axis.set_title(f"{potential}: {kind}")
        for axis, (_, label) in zip(axes[-1], kinds, strict=False):
            axis.set_xlabel(f"DFT {label}")
        return to_svg(figure, "Parity with DFT of " + ", ".join(shown))


def _relative_energies(table: pd.DataFrame) -> pd.DataFrame:
    """Return a copy whose energies are in meV/atom relative to their composition's mean reference."""
    table = table.astype({"reference": float, "predicted": float})
    energy = table["kind"] == "energy"
    mean = table.loc[energy, "reference"].groupby(table.loc[energy, "composition"]).transform("mean")
    for column in ("reference", "predicted"):
        table.loc[energy, column] = (table.loc[energy, column] - mean) * MEV_PER_EV
    return table


def _limits(parts: Sequence[pd.DataFrame]) -> tuple[float, float]:
    values = np.concatenate([part[["reference", "predicted"]].to_numpy().ravel() for part in parts])
    values = values[np.isfinite(values)]
    if not len(values):
        return -1.0, 1.0
    margin = 0.05 * (np.ptp(values) or 1.0)
    return float(values.min() - margin), float(values.max() + margin)


def _draw_one_parity(
    axis: "Axes", part: pd.DataFrame, limits: tuple[float, float], colour: str, kind: str
) -> None:
    dense = len(part) > DENSE
    axis.plot(limits, limits, color=FAINT, linewidth=0.9, zorder=1)
    axis.scatter(
        part["reference"], part["predicted"], s=5 if dense else 12, alpha=0.25 if dense else 0.65, color=colour,
        linewidths=0, rasterized=dense, zorder=2,
    )  # fmt: skip
    axis.set(xlim=limits, ylim=limits, aspect="equal")
    axis.locator_params(nbins=5)
    if not len(part):
        axis.text(0.5, 0.5, "none evaluated", transform=axis.transAxes, ha="center", color=FAINT)
        return
    error = float(np.sqrt(((part["predicted"] - part["reference"]) ** 2).mean()))
    told = {
        "energy": f"RMSE {error:.3g} meV/atom",
        "force": f"RMSE {error * MEV_PER_EV:.3g} meV/Å",
        "stress": f"RMSE {error:.3g} GPa",
    }
    axis.text(0.04, 0.96, told[kind], transform=axis.transAxes, va="top", fontsize=8.5)


def draw_learning_curves(training: Mapping[str, pd.DataFrame], potentials: Sequence[str]) -> str:
    """Draw training loss and validation errors by epoch on log axes, the least error marked, as SVG.

    Where replay frames were watched, their force error is a dashed line of the same colour.
    """
    panels = (
        ("valid_force_rmse_meV_per_A", "validation force RMSE (meV/Å)"),
        ("valid_energy_rmse_meV_per_atom", "validation energy RMSE (meV/atom)"),
        ("train_loss", "training loss"),
    )
    with drawing():
        figure, axes = new_figure(1, len(panels), height_in=3.3)
        for axis, (column, label) in zip(axes[0], panels, strict=True):
            axis.set_yscale("log")
            for potential in (name for name in potentials if name in training):
                table = training[potential]
                known = table[np.isfinite(table[column].astype(float)) & (table[column] > 0)]
                colour = colour_of(potential, potentials)
                axis.plot(known["epoch"], known[column], color=colour, label=potential)
                replayed = f"replay{column.removeprefix('valid')}"
                if column != "train_loss" and replayed in table and table[replayed].notna().any():
                    axis.plot(table["epoch"], table[replayed], color=colour, linestyle="--", linewidth=1)
                if column != "train_loss" and len(known):
                    best = int(known[column].to_numpy().argmin())
                    axis.plot(
                        known["epoch"].iloc[best], known[column].iloc[best], "o", color=colour, markersize=5
                    )
            plain_log_ticks(axis)
            axis.set_title(label)
            axis.set_xlabel("epoch")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=max(1, len(labels)))
        return to_svg(figure, "Learning curves")


def draw_map(table: pd.DataFrame, explained: Sequence[float] | None = None) -> str:
    """Draw explored and selected frames in the first two components, by composition and by novelty, as SVG."""
    table = table.astype({"pc1": float, "pc2": float, "novelty": float})
    explored, selected = table[table["set"] == "explored"], table[table["set"] == "selected"]
    shares = [f" ({percent(value)} of the variance)" for value in (explained or [])[:2]] + ["", ""]
    names = list(dict.fromkeys(explored["composition"].fillna("").astype(str)))
    with drawing():
        figure, axes = new_figure(1, 2, height_in=4.3, sharex=True, sharey=True)
        left, right = axes[0]
        style: dict[str, Any] = {"s": 9, "linewidths": 0, "rasterized": len(explored) > DENSE}
        for row, name in enumerate(names):
            part = explored[explored["composition"].fillna("").astype(str) == name]
            tint = COMPOSITION_COLOURS[row % len(COMPOSITION_COLOURS)]
            left.scatter(part["pc1"], part["pc2"], color=tint, alpha=0.6, label=name or "unnamed", **style)
        left.scatter(
            selected["pc1"], selected["pc2"], s=20, facecolors="none", edgecolors=INK, linewidths=0.9,
            label=f"selected ({len(selected)})", rasterized=len(selected) > DENSE,
        )  # fmt: skip
        left.set_title(f"{len(explored)} explored frames by composition")
        shown = right.scatter(
            explored["pc1"], explored["pc2"], c=explored["novelty"].clip(0, NOVELTY_CUT), cmap="cividis_r", vmin=0,
            vmax=NOVELTY_CUT, **style,
        )  # fmt: skip
        right.set_title("novelty: above 1 the selection does not reach")
        bar = figure.colorbar(shown, ax=right, extend="max", pad=0.02, aspect=30)
        bar.set_label("distance to the selection / its reach")
        bar.outline.set_visible(False)
        for axis in axes[0]:
            axis.set_xlabel(f"PC1{shares[0]}")
        left.set_ylabel(f"PC2{shares[1]}")
        figure.legend(
            *left.get_legend_handles_labels(),
            loc="outside upper left",
            ncols=min(8, len(names) + 1),
            markerscale=1.6,
        )
        return to_svg(figure, "Map of explored and selected frames")
