"""The data report of each kind of target: facts, findings and a page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from trainer.report import data_page, token_page
from trainer.report.data_findings import Finding
from trainer.tasks.base import Task


class DataReport(NamedTuple):
    """How the report of one kind of data is made."""

    collect: Callable[..., Any]
    """(prepared, spec, on_progress) -> facts with a method `summary`."""
    findings: Callable[[Any], list[Finding]]
    write: Callable[..., None]
    """(path, facts, *, title, prepared, spec_text)"""


_REPORTS = {
    "class": DataReport(
        lambda prepared, spec, on_progress: data_page.collect_facts(prepared, on_progress),
        data_page.list_findings,
        data_page.write_data_page,
    ),
    "tokens": DataReport(token_page.collect_facts, token_page.list_findings, token_page.write_page),
}


def data_report_of(task: Task) -> DataReport | None:
    """Return the report on the data of a task that reads texts; None if there is none for its kind of target."""
    return _REPORTS.get(task.target.kind) if task.text_roles else None
