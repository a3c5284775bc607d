"""Charts of a report as SVG text, drawn with matplotlib's object interface: no pyplot, no display, no global state."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

INK, GRID, GRAY = "#1f2933", "#d9dee3", "#9aa5b1"
BLUE, ORANGE, GREEN = "#2563a8", "#c8641b", "#2e7d4f"
PART_COLORS = {"train": BLUE, "validation": ORANGE, "test": GREEN}

# Okabe and Ito's colors, which color-blind readers can tell apart, without yellow: it is too pale on white.
_LINE_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#56b4e9", "#e69f00")
# Dashes and gaps, in points.
_LINE_DASHES = ((), (5.0, 2.0), (1.2, 1.6), (7.0, 2.0, 1.2, 2.0))


class LineStyle(NamedTuple):
    """The color and the dashes of one of many lines."""

    color: str
    dashes: tuple[float, ...]
    """Lengths of dashes and gaps in points; empty for a solid line."""


def line_style(index: int) -> LineStyle:
    """Return the style of a line by its index. The first 28 differ, and neighbors have different colors."""
    n_colors = len(_LINE_COLORS)
    return LineStyle(_LINE_COLORS[index % n_colors], _LINE_DASHES[index // n_colors % len(_LINE_DASHES)])


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure; width and height are in inches."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Text stays text: smaller files, and the reader's own fonts.
    mpl.rcParams["svg.fonttype"] = "none"
    mpl.rcParams["svg.hashsalt"] = "raymill"
    mpl.rcParams["font.family"] = "sans-serif"
    mpl.rcParams["font.size"] = 9
    return Figure(figsize=(width, height), layout="constrained")


def as_svg(figure: Any) -> str:
    """Return a figure as the text of an `<svg>` element. Equal figures give equal text."""
    sink = io.StringIO()
    figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = sink.getvalue()
    return text[text.index("<svg") :]


def style_axes(axes: Any) -> None:
    """Remove the top and right spines and draw a light horizontal grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=INK, length=3)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
