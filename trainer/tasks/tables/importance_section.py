"""What a report says about how much each column of a table matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.charts.section import Chart, Section
from trainer.charts.style import BLUE, GRID, INK, as_svg, new_figure

_MOST = 20


def sections(found: Mapping[str, Any] | None) -> list[Section]:
    """Return a section from what `trainer.tasks.estimators.importance` wrote; none without it."""
    if not found or not found["columns"]:
        return []
    shown = found["columns"][:_MOST]
    left = len(found["columns"]) - len(shown)
    figure = found["figure"].replace("_", " ")
    return [
        Section(
            "Importance of the columns",
            charts=[
                Chart(
                    bars(shown, f"rise of the {figure}"),
                    f"By how much the {figure} of {found['rows']:,} held-out rows ({found['value']:.4g}) grows when a "
                    f"column's cells are shuffled among them; the line is one standard deviation of {found['repeats']} shuffles. "
                    "Columns that say the same stand in for each other and look small."
                    + (f" {left} more columns are not shown." if left else ""),
                )
            ],
        )
    ]


_LONGEST_NAME = 32


def bars(columns: Sequence[Mapping[str, Any]], label: str) -> str:
    """Return a horizontal bar for each column, the first on top, with its standard deviation."""
    figure = new_figure(8, 0.6 + 0.26 * len(columns))
    axes = figure.subplots()
    places = range(len(columns), 0, -1)
    rises = [column["rise"] for column in columns]
    axes.barh(places, rises, xerr=[column["std"] for column in columns], color=BLUE, height=0.7,
              error_kw={"ecolor": INK, "elinewidth": 0.8})  # fmt: skip
    axes.set_yticks(places, [_short(column["name"]) for column in columns])
    axes.set(xlabel=label)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=INK, length=3)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    return as_svg(figure)


def _short(name: str) -> str:
    shown = name if len(name) <= _LONGEST_NAME else name[:_LONGEST_NAME] + "..."
    return shown.replace("$", r"\$")  # a dollar sign would begin a formula
