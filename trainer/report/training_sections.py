"""The sections of a report about a training: learning curves, metrics by step, hardware, and notices."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.charts.section import ReportChart, ReportSection, TableColumn
from trainer.defaults.facts import Choice, choice_rows
from trainer.report.rollout_sections import rollout_sections
from trainer.report.training_charts import draw_learning_curves, draw_steps
from trainer.runs.environment import HARDWARE_FILE
from trainer.runs.journal import METRICS, read_json_lines
from trainer.runs.result import RunResult


def learning_curve_sections(result: RunResult, metric: str, loss: str) -> list[ReportSection]:
    """Return the learning curves; empty after a single epoch. `loss` names the validation loss."""
    return curve_sections(result.history, metric, loss)


def curve_sections(history: list[dict[str, Any]], metric: str, loss: str) -> list[ReportSection]:
    """Return the learning curves of a history with one entry per epoch; empty after a single epoch."""
    if len(history) < 2:
        return []
    chart = ReportChart(draw_learning_curves(history, metric, loss), full_width=True)
    return [ReportSection("Learning curves", [chart])]


def step_sections(folder: Path) -> list[ReportSection]:
    """Return the metrics by step of a run's folder; empty without steps, for example for estimators."""
    lines = read_json_lines(folder / METRICS)
    if len(lines) < 2:
        return []
    caption = "Each point is the mean of a few steps. The dark line is the moving average."
    section = ReportSection(
        "Training by step",
        charts=[ReportChart(draw_steps(lines), caption)],
        columns=[TableColumn("quantity"), TableColumn("value", number=True)],
        rows=_describe_training(folder, lines),
    )
    return [section, *rollout_sections(folder, lines)]


def choice_sections(choices: Mapping[str, Choice]) -> list[ReportSection]:
    """Return the table of the values that raymill chose for keys that are `auto`; empty if it chose none."""
    if not choices:
        return []
    columns = [TableColumn("key"), TableColumn("value", number=True), TableColumn("reason")]
    return [ReportSection("Chosen for these rows and this model", columns=columns, rows=choice_rows(choices))]


def notice_sections(notices: Sequence[Mapping[str, Any]]) -> list[ReportSection]:
    """Return the table of a run's notices; empty without notices."""
    if not notices:
        return []
    rows = [[str(notice["at"]).replace("T", " ").rstrip("Z"), notice["text"]] for notice in notices]
    return [ReportSection("Notices", columns=[TableColumn("time (UTC)"), TableColumn("notice")], rows=rows)]


def _describe_training(folder: Path, lines: list[dict[str, Any]]) -> list[list[Any]]:
    try:
        hardware = json.loads((folder / HARDWARE_FILE).read_bytes())
    except (OSError, ValueError):
        hardware = {}
    workers = sorted({line["workers"] for line in lines})
    device = hardware.get("gpu") or f"{hardware.get('processor', '')}, {hardware.get('threads', '?')} threads"
    rows = [
        ["steps", f"{lines[-1]['step']:,}"],
        ["rows per second (median)", f"{_median(lines, 'rows_per_s'):,.0f}"],
        ["seconds per step (median)", f"{_median(lines, 'step_time_s'):.4f}"],
        ["peak memory of the first worker", f"{max(line['memory_bytes'] for line in lines) / 2**30:.2f} GiB"],
        ["workers", " to ".join(map(str, dict.fromkeys([workers[0], workers[-1]])))],
        ["hardware per worker", device],
        ["precision", hardware.get("precision") or ""],
    ]
    if "tokens_per_s" in lines[-1]:
        rows.insert(2, ["tokens per second (median)", f"{_median(lines, 'tokens_per_s'):,.0f}"])
    if "arithmetic_share" in lines[-1]:
        share = f"{_median(lines, 'arithmetic_share'):.0%}"
        rows.insert(3, ["share of the rate of matrix products (median)", share])
    return rows


def _median(lines: list[dict[str, Any]], name: str) -> float:
    return statistics.median(line[name] for line in lines if name in line)
