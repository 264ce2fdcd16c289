"""One look for all figures: colours by potential, type sizes for the page's width, SVG that stands in a page."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 10.9
"""Width of a figure that fills the page: its type then appears at the size it has here."""
INK, FAINT, GRID = "#1b1f24", "#6b7280", "#e5e7eb"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5B4B8A", "#8C6D31")
"""Okabe and Ito's colour-blind-safe set without yellow and black, and two more."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
SETTINGS: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "text.color": INK,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.08,
    "savefig.facecolor": "none",
    "svg.fonttype": "path",
    "svg.hashsalt": "hopline",
}


def colour_of(potential: str, potentials: Sequence[str]) -> str:
    """Return the colour that a potential has in every figure of the page."""
    return COLOURS[potentials.index(potential) % len(COLOURS)]


def marker_of(potential: str, potentials: Sequence[str]) -> str:
    """Return the marker that a potential has in every figure of the page."""
    return MARKERS[potentials.index(potential) % len(MARKERS)]


@contextmanager
def drawing() -> Iterator[None]:
    """Draw with the report's look, whatever a user's own matplotlib settings say."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(SETTINGS)
        yield


def new_figure(
    rows: int = 1, columns: int = 1, *, height_in: float, width_in: float = WIDTH_IN, **settings: Any
) -> tuple["Figure", list[list["Axes"]]]:
    """Return a figure without any window, and its axes by row and column."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **settings)
    return figure, [list(row) for row in axes]


def plain_log_ticks(axis: "Axes") -> None:
    """Write the ticks of a log axis as plain numbers at 1, 2 and 5, for axes of about a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def to_svg(figure: "Figure", label: str) -> str:
    """Return a figure as an ``svg`` element to stand in a page, with a label for those who cannot see it."""
    from html import escape

    text = io.StringIO()
    nothing: Any = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(text, format="svg", metadata=nothing, dpi=150)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    # the page scales the drawing; the natural width keeps small figures small
    width = re.search(r'width="([\d.]+)pt"', svg)
    natural = f' style="max-width:{float(width.group(1)):.0f}pt"' if width else ""
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[\d.]+pt"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[\d.]+pt"', r"\1", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(label, quote=True)}"{natural}', 1)
