"""TODO docstring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Of a model that predicts classes, tags, or a number.
_LOOKED_FOR = (
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


def figures_line(figures: Mapping[str, Any]) -> str:
    """Return the figures most people look for, and what is a mean over folds, as one line of text."""
    over_folds = [name for name in figures if f"{name}_std" in figures]
    shown = [name for name in dict.fromkeys([*_LOOKED_FOR, *over_folds]) if name in figures]
    return "  ".join(f"{name} {figures[name]:.4f}{_over_folds(figures, name)}" for name in shown)


def _over_folds(figures: Mapping[str, Any], name: str) -> str:
    """Return how far the folds of a cross-validation are apart, where the figure is the mean over some."""
    std = figures.get(f"{name}_std")
    return "" if std is None else f" ± {std:.4f}"
