"""What a report is made of: sections of charts and a table, whatever the task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Chart(NamedTuple):
    """One picture."""

    svg: str
    caption: str = ""
    """A sentence below it."""
    grow: int = 1
    """Share of the row's width beside other charts."""


class Column(NamedTuple):
    """One column of a table."""

    name: str
    number: bool = False
    """Right-aligned."""
    wrong: bool = False
    """In the colour of mistakes."""


class Section(NamedTuple):
    """A heading, charts side by side, and a table below them."""

    title: str
    charts: Sequence[Chart] = ()
    columns: Sequence[Column] = ()
    rows: Sequence[Sequence[Any]] = ()
    """Cells as they are shown; `markupsafe.Markup` is not escaped."""
    note: str = ""
    """A sentence below the table, or instead of it."""
