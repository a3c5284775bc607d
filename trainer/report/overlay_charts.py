"""Charts that lay the curves of several runs over each other, and the line that stands for a run in tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trainer.charts.style import as_svg, line_style, new_figure, style_axes
from trainer.report.training_charts import thin_out

if TYPE_CHECKING:
    from markupsafe import Markup

_WIDTH_IN = 10.0
# Space of the legend: of one character, of a line sample with its margins, and of a row.
_CHARACTER_IN, _SAMPLE_IN, _LEGEND_ROW_IN = 0.075, 0.7, 0.19
# So few lines have different widths: of two equal curves, the wider one is visible below the other.
_MAX_WIDE_LINES = 6
# A line with few points shows each of them.
_MAX_MARKED_POINTS = 15


class Curve(NamedTuple):
    """One run's line in a panel."""

    run: int
    """Index of the run; it chooses the line's color and dashes."""
    x: Sequence[float]
    y: Sequence[float]


class CurvePanel(NamedTuple):
    """One chart with a line per run."""

    title: str
    x_label: str
    curves: Sequence[Curve]


def draw_overlay(panels: Sequence[CurvePanel], labels: Sequence[str]) -> str:
    """Return the panels, the first across the whole width, with one legend; `labels` are the runs' names by index."""
    from matplotlib.lines import Line2D

    shown = sorted({curve.run for panel in panels for curve in panel.curves})
    longest = max(len(labels[run]) for run in shown)
    n_columns = max(1, min(len(shown), int(_WIDTH_IN / (longest * _CHARACTER_IN + _SAMPLE_IN))))
    n_rows = 1 + (len(panels) > 1)
    figure = new_figure(_WIDTH_IN, 2.9 * n_rows + _LEGEND_ROW_IN * -(-len(shown) // n_columns))
    widths = _line_widths(shown)
    layout = [[0, 0], [1, 2 if len(panels) > 2 else 1]][:n_rows]
    axes_by_panel = figure.subplot_mosaic(layout)
    for index, panel in enumerate(panels[:3]):
        axes = axes_by_panel[index]
        for curve in panel.curves:
            _draw_curve(axes, curve, widths[curve.run])
        axes.set(title=panel.title, xlabel=panel.x_label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        style_axes(axes)
    handles = [Line2D([], [], **_line_options(run, widths[run])) for run in shown]
    figure.legend(
        handles,
        [labels[run].replace("$", r"\$") for run in shown],  # a dollar sign would begin a formula
        loc="outside lower left",
        ncols=n_columns,
        frameon=False,
        fontsize=8,
        handlelength=3.4,
    )
    return as_svg(figure)


def _line_widths(runs: Sequence[int]) -> dict[int, float]:
    """Return the width of each run's line in points; the first is drawn first and, of few lines, the widest."""
    if len(runs) > _MAX_WIDE_LINES:
        return dict.fromkeys(runs, 1.6)
    step = 2.0 / max(1, len(runs) - 1)
    return {run: 1.4 + step * rank for rank, run in enumerate(reversed(runs))}


def _draw_curve(axes: Any, curve: Curve, width: float) -> None:
    x, y = thin_out(np.array(curve.x, float), np.array(curve.y, float))
    marker = "o" if len(x) <= _MAX_MARKED_POINTS else ""
    axes.plot(x, y, marker=marker, markersize=1.6 + width, **_line_options(curve.run, width))


def _line_options(run: int, width: float) -> dict[str, Any]:
    style = line_style(run)
    return {"color": style.color, "linewidth": width, "linestyle": (0, style.dashes) if style.dashes else "-"}


def line_sample(run: int) -> Markup:
    """Return a small picture of a run's line, for a table."""
    from markupsafe import Markup

    style = line_style(run)
    dashes = " ".join(f"{1.6 * length:g}" for length in style.dashes)
    return Markup(
        '<svg width="40" height="8" role="img" aria-label="line"><line x1="0" y1="4" x2="40" y2="4" stroke="{}" '
        'stroke-width="2.2" stroke-dasharray="{}"/></svg>'
    ).format(style.color, dashes or "none")
