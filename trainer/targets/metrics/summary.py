"""The main metrics of a model in one line of text, for the console and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: How many classes or tags no row has. Metrics hold the count only if it is above 0.
CLASSES_WITHOUT_ROWS, TAGS_WITHOUT_ROWS = "classes_without_rows", "tags_without_rows"
#: Counts among the metrics; all other metrics are measures.
COUNTS = (CLASSES_WITHOUT_ROWS, TAGS_WITHOUT_ROWS)

# The main metrics of all kinds of target. A model's line has only those that the model has.
_MAIN_METRICS = (
    "accuracy",
    "exact_match",
    "micro_f1",
    "macro_f1",
    "weighted_f1",
    "roc_auc",
    "log_loss",
    "perplexity",
    "token_accuracy",
    "preference_accuracy",
    "preference_margin",
    "reward",
    "json_valid",
    "chrf",
    "rouge_l",
    "bleu",
    "answer_score",
    "pass_at_k",
    "rmse",
    "mae",
    "r2",
)


def metrics_line(metrics: Mapping[str, Any]) -> str:
    """Return the main metrics, all metrics that are means over folds, and what no row has, as one line of text."""
    over_folds = [name for name in metrics if f"{name}_std" in metrics]
    shown = [name for name in dict.fromkeys([*_MAIN_METRICS, *over_folds]) if name in metrics]
    values = [f"{name} {metrics[name]:.4f}{_spread_over_folds(metrics, name)}" for name in shown]
    return "  ".join([*values, *describe_missing_rows(metrics)])


def describe_missing_rows(metrics: Mapping[str, Any]) -> list[str]:
    """Return for example `["(100 classes have no rows)"]`; empty if all classes and tags have rows."""
    return [f"({metrics[name]:g} {name.partition('_')[0]} have no rows)" for name in COUNTS if metrics.get(name)]


def _spread_over_folds(metrics: Mapping[str, Any], name: str) -> str:
    """Return the standard deviation over the folds of a cross-validation; "" if there are no folds."""
    std = metrics.get(f"{name}_std")
    return "" if std is None else f" ± {std:.4f}"
