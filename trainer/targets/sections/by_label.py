"""The report section with precision, recall and F1 of each class or tag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from trainer.charts.section import ReportSection, TableColumn

_HEADINGS = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "average_precision": "average precision",
    "predicted": "predicted",
    "rows": "rows",
}
_PLURALS = {"class": "classes", "tag": "tags"}


def by_label_section(
    noun: Literal["class", "tag"], entries: Sequence[Mapping[str, Any]], note: str = ""
) -> ReportSection:
    """Return the table of `entries` as `metrics_by_class` or `metrics_by_tag` returns them.

    The label with the lowest F1 comes first; labels without rows come last. A value that is not defined is left empty.
    """
    names = [name for name in _HEADINGS if entries and name in entries[0]]
    without_rows = sum(not entry["rows"] for entry in entries)
    averages = (
        f"{without_rows:,} of {len(entries):,} {_PLURALS[noun]} have no rows: macro averages leave them out."
        if without_rows
        else ""
    )
    return ReportSection(
        f"By {noun}",
        columns=[TableColumn(noun), *[TableColumn(_HEADINGS[name], number=True) for name in names]],
        rows=[
            [entry["label"], *[_format_cell(entry[name]) for name in names]] for entry in sorted(entries, key=_order)
        ],
        note=" ".join(filter(None, [averages, note])),
    )


def _order(entry: Mapping[str, Any]) -> tuple[bool, float]:
    return not entry["rows"], entry["f1"] or 0.0


def _format_cell(value: float | int | None) -> str | int:
    if value is None or isinstance(value, int):
        return "" if value is None else value
    return f"{value:.3f}"
