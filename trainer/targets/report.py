"""Report sections about predictions: one function per kind of target.

A target of your own adds its sections with `@prediction_sections.register`; subclasses inherit the function of their
base class. A target without a function has no sections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch

import numpy as np

from trainer.charts.section import ReportSection
from trainer.targets.base import FittedTarget, Target
from trainer.targets.classes import Classes
from trainer.targets.numbers import Numbers, significant_decimals
from trainer.targets.sections.classes import class_sections
from trainer.targets.sections.numbers import number_sections
from trainer.targets.sections.tags import tag_sections
from trainer.targets.tags import Tags


@dataclass(frozen=True)
class ScoredRows:
    """Rows with the model's scores and the true targets."""

    inputs: Sequence[str]
    """Each row's input as the page shows it; `markupsafe.Markup` is not escaped."""
    scores: np.ndarray
    """Shape (B, C)."""
    targets: np.ndarray
    """As `Target.array` returns them."""


@singledispatch
def prediction_sections(
    target: Target, fitted: FittedTarget, rows: ScoredRows, n_bins: int, n_mistakes: int
) -> list[ReportSection]:
    """Return the report's sections about `rows`: charts, tables, and the `n_mistakes` worst rows.

    `n_bins` is the number of calibration bins.
    """
    return []


@prediction_sections.register
def _(target: Classes, fitted: FittedTarget, rows: ScoredRows, n_bins: int, n_mistakes: int) -> list[ReportSection]:
    return class_sections(target.labels(fitted), rows.inputs, rows.scores, rows.targets, n_bins, n_mistakes)


@prediction_sections.register
def _(target: Tags, fitted: FittedTarget, rows: ScoredRows, n_bins: int, n_mistakes: int) -> list[ReportSection]:
    return tag_sections(target.labels(fitted), rows.inputs, rows.scores, rows.targets, n_mistakes)


@prediction_sections.register
def _(target: Numbers, fitted: FittedTarget, rows: ScoredRows, n_bins: int, n_mistakes: int) -> list[ReportSection]:
    decimals = significant_decimals(fitted)
    return number_sections(rows.inputs, rows.scores[:, 0], rows.targets, n_mistakes, decimals)
