"""The page of one run, whatever its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.charts.section import ReportSection, TableColumn
from trainer.defaults.facts import Choice
from trainer.report.page import ReportPage, write_page
from trainer.report.run_facts import (
    LOSSES,
    describe_duration,
    describe_start,
    describe_state,
    describe_version,
    format_metric,
    format_value,
)
from trainer.report.search_sections import trial_table_sections
from trainer.report.training_sections import choice_sections, curve_sections, notice_sections, step_sections
from trainer.runs.result import TrialRecord


def write_run_page(path: Path, run: Mapping[str, Any], trials: Sequence[TrialRecord]) -> None:
    """Write the page; `run` is as `raymill.show_run` returns it, and `trials` are sorted, the best first."""
    metrics = run["metrics"].get(run["part"], {})
    metrics = {name: value for name, value in metrics.items() if name != "train_loss"}
    page = ReportPage(
        title=run["run"],
        subtitle=f"metrics on the {run['part']} rows" if metrics else "no metrics yet",
        metrics=metrics,
        main_metric=run["metric"],
        sections=[
            _facts_section(run),
            *_curves(run),
            *trial_table_sections(trials, run["metric"]),
            *_part_sections(run),
            *_choices(run),
            *_steps(run),
            *_table_sections(run),
        ],
        lineage=run["lineage"],
        warnings=[run[name] for name in ("error", "problem") if run[name]],
    )
    write_page(path, page)


def _facts_section(run: Mapping[str, Any]) -> ReportSection:
    environment = run["environment"]
    facts = {
        "kind": run["kind"],
        "state": describe_state(run),
        "to resume": run["resume"],
        "version": describe_version(run),
        "started": f"{describe_start(run)} UTC" if run["started"] else "",
        "took": describe_duration(run),
        "command": " ".join(map(str, environment.get("command", []))),
        "code": environment.get("git"),
        "python": environment.get("python"),
    }
    columns = [TableColumn(""), TableColumn("", breaks=True)]
    return ReportSection("Run", columns=columns, rows=[[name, value] for name, value in facts.items() if value])


def _curves(run: Mapping[str, Any]) -> list[ReportSection]:
    """Return the learning curves, if every epoch has what they show."""
    names = ("epoch", "train_loss", run["metric"])
    history = [entry for entry in run["history"] if all(name in entry for name in names)]
    loss = next((name for name in LOSSES if all(name in entry for entry in history)), run["metric"])
    return curve_sections(history, run["metric"], loss)


def _part_sections(run: Mapping[str, Any]) -> list[ReportSection]:
    """Return the metrics of all parts side by side, if there are several parts."""
    parts = run["metrics"]
    if len(parts) < 2:
        return []
    names = dict.fromkeys(name for metrics in parts.values() for name in metrics)
    columns = [TableColumn("metric"), *[TableColumn(part, number=True) for part in parts]]
    rows = [[name, *[format_metric(name, metrics.get(name)) for metrics in parts.values()]] for name in names]
    return [ReportSection("Metrics by part", columns=columns, rows=rows)]


def _choices(run: Mapping[str, Any]) -> list[ReportSection]:
    """Return the table of the values that raymill chose, unless its file is damaged."""
    try:
        return choice_sections({key: Choice(**choice) for key, choice in run["chosen"].items()})
    except TypeError:
        return []


def _steps(run: Mapping[str, Any]) -> list[ReportSection]:
    """Return the metrics by step, and the notices."""
    try:
        sections = step_sections(Path(run["curves_folder"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        sections = [ReportSection("Training by step", note=f"The metrics by step are damaged: {error}.")]
    return [*sections, *notice_sections(run["notices"])]


def _table_sections(run: Mapping[str, Any]) -> list[ReportSection]:
    tables = [
        ("Seconds by stage", {name: f"{seconds:.1f}" for name, seconds in run["stages"].items()}, True),
        ("Files", run["paths"], False),
        (
            "Spec: the keys that are not at their defaults",
            {key: format_value(value) for key, value in run["spec"].items()},
            False,
        ),
    ]
    return [
        ReportSection(
            title, columns=[TableColumn(""), TableColumn("", number, breaks=not number)], rows=list(values.items())
        )
        for title, values, number in tables
        if values
    ]
