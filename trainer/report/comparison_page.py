"""The page that compares runs: metrics side by side, curves laid over each other, and what differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.charts.section import ReportChart, ReportSection, TableColumn
from trainer.report.overlay_charts import Curve, CurvePanel, draw_overlay, line_sample
from trainer.report.page import ReportPage, write_page
from trainer.report.run_facts import (
    LOSSES,
    MISSING,
    describe_duration,
    describe_start,
    describe_state,
    describe_version,
    format_metric,
    format_value,
    runs_are_rows,
)
from trainer.runs.journal import METRICS, read_history, read_json_lines

_MIN_POINTS = 2


def write_comparison_page(path: Path, comparison: Mapping[str, Any], curve_folders: Sequence[Path]) -> None:
    """Write the page.

    `comparison` is as `raymill.compare_runs` returns it, and `curve_folders` are the folders with the runs' histories.
    """
    runs = comparison["runs"]
    page = ReportPage(
        title=f"{len(runs)} runs compared",
        subtitle="the best values are bold" if _marks_best(comparison) else "no best values are marked",
        metrics={},
        main_metric="",
        sections=[
            _runs_section(runs),
            *_metric_sections(comparison),
            *_curve_sections(runs, comparison["metric"], curve_folders),
            *_difference_sections(comparison),
            *_time_sections(comparison),
        ],
        lineage={},
        warnings=comparison["notes"],
    )
    write_page(path, page)


def _marks_best(comparison: Mapping[str, Any]) -> bool:
    return any(entry["best"] for metrics in comparison["metrics"].values() for entry in metrics.values())


def _runs_section(runs: Sequence[Mapping[str, Any]]) -> ReportSection:
    names = ["no.", "line", "run", "state", "started (UTC)", "took", "version"]
    rows = [
        [
            number,
            line_sample(number - 1),
            run["run"],
            describe_state(run),
            describe_start(run),
            describe_duration(run),
            describe_version(run),
        ]
        for number, run in enumerate(runs, 1)
    ]
    columns = [TableColumn(name, number=name in ("no.", "started (UTC)", "took")) for name in names]
    return ReportSection("Runs", columns=columns, rows=rows)


def _metric_sections(comparison: Mapping[str, Any]) -> list[ReportSection]:
    sections = []
    for part, metrics in comparison["metrics"].items():
        names = [comparison["metric"]] if comparison["metric"] in metrics else []
        names += [name for name in metrics if name not in names]
        same = comparison["rows"][part]["same"]
        note = f"All these metrics were computed on the same {part} rows." if same else ""
        values = {name: [format_metric(name, value) for value in metrics[name]["values"]] for name in names}
        best = {name: metrics[name]["best"] for name in names}
        title = f"Metrics on the {part} rows"
        sections.append(_side_by_side(title, values, str, best=best, note=note, number=True))
    return sections


def _difference_sections(comparison: Mapping[str, Any]) -> list[ReportSection]:
    spec, environment = comparison["spec"], comparison["environment"]
    fingerprints = [text and text[:16] for text in comparison["fingerprints"]]
    same = "All runs read rows in the same way: their contracts have the same fingerprint."
    rows = {
        "contract": fingerprints,
        "prepared rows": [folder and Path(folder).name for folder in comparison["prepared"]],
    }
    for part in comparison["metrics"]:
        digests = comparison["rows"][part]["digests"]
        if any(digests):
            rows[f"{part} rows"] = [digest and digest[:16] for digest in digests]
    is_same = len(set(fingerprints)) == 1 and fingerprints[0] is not None
    note = "Equal digests mean equal rows." + (f" {same}" if is_same else "")
    return [
        _side_by_side("Spec: the keys that differ", spec, format_value, note="" if spec else "The specs are the same."),
        _side_by_side("Contracts and rows", rows, format_value, note=note),
        _side_by_side(
            "Environment: what differs",
            environment,
            format_value,
            note="" if environment else "Versions, machine and code are the same.",
        ),
    ]


def _time_sections(comparison: Mapping[str, Any]) -> list[ReportSection]:
    if not comparison["stages"]:
        return []
    return [_side_by_side("Seconds by stage", comparison["stages"], _format_seconds, number=True)]


def _format_seconds(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.1f}"


def _side_by_side(
    title: str,
    values: Mapping[str, Sequence[Any]],
    show: Callable[[Any], str],
    *,
    best: Mapping[str, Sequence[int]] | None = None,
    note: str = "",
    number: bool = False,
) -> ReportSection:
    """Return a table of values by name, each with one value per run; the best are bold."""
    from markupsafe import Markup

    if not values:
        return ReportSection(title, note=note)
    n_runs = len(next(iter(values.values())))
    cells = {
        name: [
            Markup('<strong class="top">{}</strong>').format(show(value))
            if index in (best or {}).get(name, ())
            else show(value)
            for index, value in enumerate(row)
        ]
        for name, row in values.items()
    }
    if runs_are_rows(n_runs, len(values)):
        columns = [
            TableColumn("run", number=True),
            TableColumn("line"),
            *[TableColumn(name.replace("_", " ") if number else name, number, breaks=not number) for name in cells],
        ]
        rows = [[index + 1, line_sample(index), *[row[index] for row in cells.values()]] for index in range(n_runs)]
    else:
        columns = [
            TableColumn(""),
            *[TableColumn(f"run {index + 1}", number, breaks=not number) for index in range(n_runs)],
        ]
        rows = [[name, *row] for name, row in cells.items()]
    return ReportSection(title, columns=columns, rows=rows, note=note)


def _curve_sections(runs: Sequence[Mapping[str, Any]], metric: str, folders: Sequence[Path]) -> list[ReportSection]:
    histories = [_read(read_history, folder) for folder in folders]
    steps = [_read(lambda folder: read_json_lines(folder / METRICS), folder) for folder in folders]
    loss = next((name for name in LOSSES if any(name in entry for history in histories for entry in history)), "")
    panels = [
        CurvePanel(f"Validation {metric}", "epoch", _curves(histories, "epoch", metric)),
        CurvePanel("Training loss", "step", _curves(steps, "step", "loss")),
        CurvePanel(f"Validation {loss}", "epoch", _curves(histories, "epoch", loss) if loss != metric else []),
    ]
    if not panels[1].curves:
        panels[1] = CurvePanel("Training loss", "epoch", _curves(histories, "epoch", "train_loss"))
    panels = [panel for panel in panels if panel.curves]
    if not panels:
        return [ReportSection("Curves", note="No run has more than one epoch, so there are no curves.")]
    missing = [str(number) for number, history in enumerate(histories, 1) if len(history) < _MIN_POINTS]
    note = f"Without a curve by epoch, because there is only one or none: run {', '.join(missing)}." if missing else ""
    labels = [f"{number}  {run['run']}" for number, run in enumerate(runs, 1)]
    chart = ReportChart(draw_overlay(panels, labels), full_width=True)
    return [ReportSection("Curves", [chart], note=note)]


def _read(read: Callable[[Path], list[dict[str, Any]]], folder: Path) -> list[dict[str, Any]]:
    try:
        return [line for line in read(folder) if isinstance(line, dict)]
    except (OSError, ValueError):  # damaged
        return []


def _curves(lines_by_run: Sequence[list[dict[str, Any]]], x: str, y: str) -> list[Curve]:
    """Return the curve of every run that has two or more numbers."""
    curves = []
    for run, lines in enumerate(lines_by_run):
        points = [(line[x], line[y]) for line in lines if _is_number(line.get(x)) and _is_number(line.get(y))]
        if len(points) >= _MIN_POINTS:
            curves.append(Curve(run, [point[0] for point in points], [point[1] for point in points]))
    return curves


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
