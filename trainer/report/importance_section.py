"""What a report says about how much each column of a table matters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.report import importance_chart
from trainer.report.sections import Chart, Section

_MOST = 20


def sections(found: Mapping[str, Any] | None) -> list[Section]:
    """Return a section from what `trainer.estimators.importance` wrote; none without it."""
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
                    importance_chart.bars(shown, f"rise of the {figure}"),
                    f"By how much the {figure} of {found['rows']:,} held-out rows ({found['value']:.4g}) grows when a "
                    f"column's cells are shuffled among them; the line is one standard deviation of {found['repeats']} shuffles. "
                    "Columns that say the same stand in for each other and look small."
                    + (f" {left} more columns are not shown." if left else ""),
                )
            ],
        )
    ]
