"""The parts of a report: sections with charts and a table, for any task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from cluster.errors import error_summary


class ReportChart(NamedTuple):
    """An SVG chart with its caption."""

    svg: str
    caption: str = ""
    """A sentence below the chart."""
    grow: int = 1
    """Share of the row's width, relative to the charts beside it."""
    full_width: bool = False
    """Stretch the chart to the width of the page."""


class TableColumn(NamedTuple):
    """One column of a table."""

    name: str
    number: bool = False
    """Right-align the cells."""
    wrong: bool = False
    """Show the cells in the color of mistakes."""
    breaks: bool = False
    """Break long words, such as paths, at any character."""


class ReportSection(NamedTuple):
    """A heading, charts side by side, and a table below them."""

    title: str
    charts: Sequence[ReportChart] = ()
    columns: Sequence[TableColumn] = ()
    rows: Sequence[Sequence[Any]] = ()
    """Cells as displayed; `markupsafe.Markup` is not escaped."""
    note: str = ""
    """A sentence below the table, or instead of it."""
    best_row: int | None = None
    """Index of the row to highlight."""
    left_out: bool = False
    """Whether this only says, in `note`, why a section is left out."""


def sections_or_reason(title: str, build: Callable[[], Iterable[ReportSection]]) -> list[ReportSection]:
    """Return the sections that `build` returns, or one that says why they are left out: the rest of a page goes on."""
    try:
        return list(build())
    except Exception as error:  # of any library that draws, or of a user's own task
        return [ReportSection(title, note=f"Left out: {error_summary(error)}", left_out=True)]
