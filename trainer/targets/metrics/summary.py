"""The main metrics of a model in one line of text, for the console and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The main metrics of all kinds of target. A model's line has only those that the model has.
_MAIN_METRICS = (
    "accuracy",
    "exact_match",
    "micro_f1",
    "macro_f1",
    "weighted_f1",
    "roc_auc",
    "log_loss",
    "rmse",
    "mae",
    "r2",
)


def metrics_line(metrics: Mapping[str, Any]) -> str:
    """Return the main metrics, and all metrics that are means over folds, as one line of text."""
    over_folds = [name for name in metrics if f"{name}_std" in metrics]
    shown = [name for name in dict.fromkeys([*_MAIN_METRICS, *over_folds]) if name in metrics]
    return "  ".join(f"{name} {metrics[name]:.4f}{_spread_over_folds(metrics, name)}" for name in shown)


def _spread_over_folds(metrics: Mapping[str, Any], name: str) -> str:
    """Return the standard deviation over the folds of a cross-validation; "" if there are no folds."""
    std = metrics.get(f"{name}_std")
    return "" if std is None else f" ± {std:.4f}"
