"""The report section on how much each column of a table matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.charts.section import ReportChart, ReportSection
from trainer.charts.style import BLUE, GRID, INK, as_svg, new_figure

_MAX_COLUMNS = 20
_MAX_NAME_LENGTH = 32


def importance_sections(importance: Mapping[str, Any] | None) -> list[ReportSection]:
    """Return a section for the result of `permutation_importance`, or an empty list if there is no result."""
    if not importance or not importance["columns"]:
        return []
    shown = importance["columns"][:_MAX_COLUMNS]
    n_hidden = len(importance["columns"]) - len(shown)
    metric = importance["figure"].replace("_", " ")
    return [
        ReportSection(
            "Importance of the columns",
            charts=[
                ReportChart(
                    importance_chart(shown, f"increase of the {metric}"),
                    f"The increase of the {metric} of {importance['rows']:,} held-out rows ({importance['value']:.4g}) "
                    "when a column's cells are shuffled among them; the line is one standard deviation of "
                    f"{importance['repeats']} shuffles. Columns that carry the same information replace each other and "
                    "look unimportant." + (f" {n_hidden} more columns are not shown." if n_hidden else ""),
                )
            ],
        )
    ]


def importance_chart(columns: Sequence[Mapping[str, Any]], label: str) -> str:
    """Return a horizontal bar per column as SVG, the first on top, with its standard deviation."""
    figure = new_figure(8, 0.6 + 0.26 * len(columns))
    axes = figure.subplots()
    positions = range(len(columns), 0, -1)
    axes.barh(
        positions,
        [column["rise"] for column in columns],
        xerr=[column["std"] for column in columns],
        color=BLUE,
        height=0.7,
        error_kw={"ecolor": INK, "elinewidth": 0.8},
    )
    axes.set_yticks(positions, [_shorten(column["name"]) for column in columns])
    axes.set(xlabel=label)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=INK, length=3)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    return as_svg(figure)


def _shorten(name: str) -> str:
    text = name if len(name) <= _MAX_NAME_LENGTH else name[:_MAX_NAME_LENGTH] + "..."
    return text.replace("$", r"\$")  # a dollar sign would begin a formula
