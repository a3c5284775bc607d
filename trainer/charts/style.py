"""Charts of a report as SVG text, drawn with matplotlib's object interface: no pyplot, no display, no global state."""

from __future__ import annotations

import io
from typing import Any

INK, GRID, GRAY = "#1f2933", "#d9dee3", "#9aa5b1"
BLUE, ORANGE, GREEN = "#2563a8", "#c8641b", "#2e7d4f"
PART_COLORS = {"train": BLUE, "validation": ORANGE, "test": GREEN}


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
