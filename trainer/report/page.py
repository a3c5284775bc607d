"""The report of a run or an evaluation: one HTML file that opens without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.charts.section import Section
from trainer.inference.evaluate import Evaluation
from trainer.registry.gate import Decision
from trainer.report import html, search_charts, search_sections, training_charts, training_sections
from trainer.runs.result import RunResult, TrialRecord
from trainer.targets.metrics.summary import figures_line

FILE = "report.html"
# Shown first, in this order; others follow.
_FIRST = (
    "accuracy",
    "macro_f1",
    "weighted_f1",
    "micro_f1",
    "exact_match",
    "rmse",
    "mae",
    "r2",
    "roc_auc",
    "pr_auc",
    "log_loss",
)


def write(
    path: Path,
    *,
    title: str,
    metric: str,
    evaluation: Evaluation | None,
    lineage: dict[str, Any],
    sections: Sequence[Section] = (),
    loss: str = "log_loss",
    result: RunResult | None = None,
    decision: Decision | None = None,
    spec_text: str = "",
) -> None:
    """Write the report. Without a `result` (an evaluation of a registered model) it has no curves and no trials; without an
    `evaluation` (a training alone) it shows the figures on the validation rows.

    `sections` are those about the model, beside the evaluation's; `loss` is the figure that is the validation loss.
    """
    from markupsafe import Markup

    trials = sorted(result.trials, key=_rank(metric), reverse=True) if result else []
    winner = trials[0].name if trials else ""
    keys = sorted({key for trial in trials for key in trial.values})
    html.write(
        path,
        "template.html",
        title=title,
        subtitle=f"{evaluation.rows:,} held-out rows{_folds(result)}"
        if evaluation
        else "figures on the validation rows",
        metric=metric,
        metrics=_ordered(_figures(evaluation, result)),
        gate=decision,
        curves=Markup(training_charts.learning_curves(result.history, metric, loss))
        if result and len(result.history) > 1
        else None,
        trials=[_trial_row(trial, keys, winner) for trial in trials],
        trial_keys=keys,
        trials_chart=Markup(search_charts.trials({t.name: t.history for t in trials}, winner, metric))
        if trials
        else None,
        sections=[
            *(evaluation.sections if evaluation else ()),
            *sections,
            *(search_sections.sections(result, metric) if result else ()),
            *(training_sections.sections(result.folder) if result else ()),
        ],
        markup=Markup,
        lineage=list(lineage.items()),
        spec=spec_text,
    )


def _figures(evaluation: Evaluation | None, result: RunResult | None) -> dict[str, float]:
    if evaluation:
        return evaluation.metrics
    return {name: value for name, value in (result.metrics if result else {}).items() if name != "train_loss"}


def _folds(result: RunResult | None) -> str:
    folds = result.spec.train.folds if result else None
    if not result or not folds:
        return ""
    reached = figures_line(result.metrics).replace("  ", ", ")
    return f"; validation figures are means over {folds} folds{f': {reached}' if reached else ''}"


def _rank(metric: str) -> Any:
    from trainer.spec.run import LOWER_IS_BETTER

    sign = -1 if metric in LOWER_IS_BETTER else 1
    return lambda trial: sign * trial.metric if trial.metric is not None else float("-inf")


def _ordered(metrics: dict[str, float]) -> list[tuple[str, float]]:
    names = [name for name in _FIRST if name in metrics] + [name for name in metrics if name not in _FIRST]
    return [(name, metrics[name]) for name in names]


def _trial_row(trial: TrialRecord, keys: list[str], winner: str) -> dict[str, Any]:
    return {
        "name": trial.name,
        "won": trial.name == winner,
        "shown": [_shown(trial.shown(key)) for key in keys],
        "epochs": trial.epochs,
        "seconds": f"{trial.seconds:.1f}",
        "metric": f"{trial.metric:.4f}" if trial.metric is not None else (trial.error or trial.state),
    }


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
