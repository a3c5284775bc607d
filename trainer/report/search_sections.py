"""The sections of a report about a search: its trials, hyperparameters, cost, importance and finalists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from trainer.charts.section import ReportChart, ReportSection, TableColumn
from trainer.report.search_charts import (
    draw_cost,
    draw_importance,
    draw_parallel,
    draw_pareto,
    draw_progress,
    draw_trials,
)
from trainer.runs.result import RunResult, SearchRecord, TrialRecord
from trainer.spec.evaluate import LOWER_IS_BETTER

_MIN_TRIALS = 2


def trial_sections(result: RunResult, metric: str) -> list[ReportSection]:
    """Return the chart and the table of all trials, best first; empty if there was no search."""
    return trial_table_sections(sort_trials(result.trials, metric), metric)


def trial_table_sections(trials: Sequence[TrialRecord], metric: str) -> list[ReportSection]:
    """Return the chart and the table of trials in the order of `sort_trials`; empty without trials."""
    if not trials:
        return []
    keys = sorted({key for trial in trials for key in trial.values})
    numbers = [*keys, "epochs", "seconds", metric]
    chart = draw_trials({trial.name: trial.history for trial in trials}, trials[0].name, metric)
    return [
        ReportSection(
            "Trials",
            [ReportChart(chart, full_width=True)],
            columns=[TableColumn("trial"), *[TableColumn(name, number=True) for name in numbers]],
            rows=[_trial_row(trial, keys) for trial in trials],
            best_row=0,
        )
    ]


def sort_trials(trials: Iterable[TrialRecord], metric: str) -> list[TrialRecord]:
    """Return trials by their metric, the best first and those without one last."""
    return sorted(trials, key=lambda trial: _sort_value(trial, metric), reverse=True)


def search_sections(result: RunResult, metric: str) -> list[ReportSection]:
    """Return the hyperparameters, cost, importance and finalists of a search; empty if there was no search."""
    if result.search is None:
        return []
    evaluated = [trial for trial in result.trials if trial.metric is not None]
    winner = result.folder.name.partition("-")[0]  # the folder of a re-trained finalist begins with its trial's name
    sections = []
    if len(evaluated) >= _MIN_TRIALS:
        keys = list(dict.fromkeys(key for trial in evaluated for key in trial.values))
        higher_is_better = metric not in LOWER_IS_BETTER
        parallel = draw_parallel(evaluated, keys, metric, winner, higher_is_better=higher_is_better)
        caption = "One line per trial. Green: the winner. Paler lines: worse trials."
        sections.append(ReportSection("Hyperparameters", [ReportChart(parallel, caption)]))
        progress = draw_progress(evaluated, metric, higher_is_better=higher_is_better)
        charts = [
            ReportChart(progress, "Best value over training time."),
            ReportChart(draw_cost(result.trials, winner), "Green: the winner. Paler bars: trials stopped early."),
        ]
        sections.append(ReportSection("Search cost", charts))
    if result.search.importance:
        note = (
            "fANOVA over the trials (Hutter et al. 2014). It is imprecise with few trials, and it cannot rate "
            "hyperparameters that hardly varied."
        )
        chart = ReportChart(draw_importance(result.search.importance))
        sections.append(ReportSection("Hyperparameter importance", [chart], note=note))
    if result.search.finalists:
        sections.append(_finalists_section(result.search))
    return sections


def _sort_value(trial: TrialRecord, metric: str) -> float:
    if trial.metric is None:
        return float("-inf")
    return -trial.metric if metric in LOWER_IS_BETTER else trial.metric


def _trial_row(trial: TrialRecord, keys: list[str]) -> list[Any]:
    result = f"{trial.metric:.4f}" if trial.metric is not None else (trial.error or trial.state)
    values = [_format_value(trial.display_value(key)) for key in keys]
    return [trial.name, *values, trial.epochs, f"{trial.seconds:.1f}", result]


def _format_value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _finalists_section(search: SearchRecord) -> ReportSection:
    names = list(dict.fromkeys(name for finalist in search.finalists for name in finalist.metrics))
    columns = [TableColumn("trial"), TableColumn("seeds", True), *[TableColumn(name, True) for name in names]]
    columns += [TableColumn("on the Pareto front"), TableColumn("violated constraints", wrong=True)]
    main_metric = search.objectives[0][0]
    rows = [
        [
            finalist.name,
            len(finalist.seeds),
            *[
                _format_metric(finalist.metrics.get(name))
                + (_format_range(finalist.seeds) if name == main_metric else "")
                for name in names
            ],
            "yes" if finalist.on_front else "",
            ", ".join(finalist.violated),
        ]
        for finalist in search.finalists
    ]
    charts = []
    if len(search.objectives) > 1:
        caption = "Green: the Pareto front. ×: violates a constraint."
        charts = [ReportChart(draw_pareto(search.finalists, search.objectives), caption)]
    constraints = f" Constraints: {', '.join(search.constraints)}." if search.constraints else ""
    return ReportSection(
        "Finalists", charts, columns, rows, f"Metrics are means over the seeds. The first finalist wins.{constraints}"
    )


def _format_metric(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"


def _format_range(seeds: dict[int, float]) -> str:
    if len(seeds) < 2:
        return ""
    return f" ({min(seeds.values()):.4f} to {max(seeds.values()):.4f})"
