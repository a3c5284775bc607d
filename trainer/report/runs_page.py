"""The page that lists runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.charts.section import ReportChart, ReportSection, TableColumn
from trainer.charts.style import BLUE, GREEN, as_svg, new_figure, style_axes
from trainer.report.page import ReportPage, write_page
from trainer.report.run_facts import (
    describe_duration,
    describe_start,
    describe_state,
    describe_version,
    format_metric,
)

# A chart of one point says nothing.
_MIN_POINTS = 2
_MAX_CHARTS = 6


def write_runs_page(path: Path, runs: Sequence[Mapping[str, Any]], *, title: str, newest_first: bool) -> None:
    """Write the page; `runs` are as `raymill.runs` returns them, oldest first if `newest_first` is set."""
    listed = list(reversed(runs)) if newest_first else list(runs)
    count = f"{len(runs)} run{'' if len(runs) == 1 else 's'}"
    page = ReportPage(
        title=title,
        subtitle=f"{count}, {'the newest first' if newest_first else 'the best first'}",
        metrics={},
        main_metric="",
        sections=[*_metric_sections(runs), _table(listed), *_problem_sections(listed)],
        lineage={},
    )
    write_page(path, page)


def _table(runs: Sequence[Mapping[str, Any]]) -> ReportSection:
    names = ["run", "kind", "state", "started (UTC)", "took", "metric", "value", "rows", "version"]
    rows = [
        [
            run["run"],
            run["kind"],
            describe_state(run),
            describe_start(run),
            describe_duration(run),
            *[run["metric"], format_metric(run["metric"], run["value"]), run["part"]],
            describe_version(run),
        ]
        for run in runs
    ]
    numbers = ("started (UTC)", "took", "value")
    columns = [TableColumn(name, number=name in numbers) for name in names]
    return ReportSection("Runs", columns=columns, rows=rows, note="" if runs else "There are no runs.")


def _problem_sections(runs: Sequence[Mapping[str, Any]]) -> list[ReportSection]:
    """Return a table of what is wrong with runs that failed or are damaged; empty if nothing is wrong."""
    rows = [[run["run"], run["problem"] or run["error"]] for run in runs if run["problem"] or run["error"]]
    columns = [TableColumn("run"), TableColumn("problem", wrong=True, breaks=True)]
    return [ReportSection("Problems", columns=columns, rows=rows)] if rows else []


def _metric_sections(runs: Sequence[Mapping[str, Any]]) -> list[ReportSection]:
    """Return a chart of the main metric for each kind of model that several runs trained."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for run in sorted(runs, key=lambda run: str(run["started"])):
        if run["value"] is not None:
            groups.setdefault((run["name"], run["metric"], run["part"]), []).append(run)
    drawn = [(key, group) for key, group in groups.items() if len(group) >= _MIN_POINTS]
    charts = [
        ReportChart(_draw_metric(group, f"{name}: {metric} on {part}"))
        for (name, metric, part), group in drawn[:_MAX_CHARTS]
    ]
    note = "Each point is a run, in the order in which they started. Green star: the champion."
    return [ReportSection("Main metric", charts, note=note)] if charts else []


def _draw_metric(runs: Sequence[Mapping[str, Any]], title: str) -> str:
    figure = new_figure(4.6, 2.6)
    axes = figure.subplots()
    values = [run["value"] for run in runs]
    axes.plot(range(1, len(runs) + 1), values, color=BLUE, linewidth=0.8, marker="o", markersize=4)
    for number, run in enumerate(runs, 1):
        if run["champion"]:
            axes.plot([number], [run["value"]], color=GREEN, marker="*", markersize=13, zorder=3)
    axes.set(title=title.replace("$", r"\$"), xlabel="run")
    axes.xaxis.get_major_locator().set_params(integer=True)
    style_axes(axes)
    return as_svg(figure)
