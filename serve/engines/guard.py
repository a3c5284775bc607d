"""Decide whether an engine is as good as the model itself, from the scores of both on the same held-out rows.

An engine may lose `serve.max_metric_drop`. On few rows, a single answer moves the metric by more than that: with 300
rows, one more wrong answer costs a third of a percentage point. So a larger loss counts only if it is real, which the
paired test of trainer/inference/significance.py decides. Two limits on the number of rows that change their answer hold
whatever the test says, because a test on few rows finds nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trainer.inference.significance import SIGNIFICANT, MetricOfScores, paired_p_value

# An engine is refused if a larger share of the rows changes its answer, even if the metric is the same.
_MAX_CHANGED = 0.10
# A loss that may be noise is accepted only if at most this share of the rows changes its answer. With 300 rows, that
# accepts a loss of at most 1.3 points in accuracy; with 1,000 rows, of 0.8 points.
_MAX_CHANGED_WITH_LOSS = 0.02
# Added to the tolerance, so that floating-point error does not decide whether a metric's drop is within it.
_ROUNDING = 1e-9


class Verdict(NamedTuple):
    """What the comparison of an engine with the model itself has shown."""

    metric: float
    """The engine's metric."""
    own_metric: float
    """The metric of the model itself."""
    rows: int
    """Rows that were compared."""
    changed: int
    """Rows whose answer changed."""
    p_value: float | None
    """How often random swaps lose at least as much. None if the loss is within the tolerance: it is not tested then."""
    refused: str
    """Why the engine may not be chosen; empty if it may."""
    conclusion: str
    """A sentence with the numbers and what follows from them."""


def judge(
    own: np.ndarray,
    scores: np.ndarray,
    changed: np.ndarray,
    metric: MetricOfScores,
    *,
    name: str,
    higher_is_better: bool,
    tolerance: float,
    subject: str = "rows change their answer",
) -> Verdict:
    """Compare an engine's `scores` with those of the model itself (`own`), both of shape (rows, outputs).

    `changed` says for each row whether its answer changed. `metric` computes the metric called `name` from scores.
    `tolerance` is in percentage points; for a metric of which a lower value is better, it is in percent of the model's
    own metric. `subject` says in messages what the rows of `changed` are.
    """
    own_metric, engine_metric = metric(own), metric(scores)
    sign = 1.0 if higher_is_better else -1.0
    loss = sign * (own_metric - engine_metric)
    allowed = tolerance / 100 * (1.0 if higher_is_better else abs(own_metric))
    n_rows, n_changed = len(own), int(changed.sum())
    loses_too_much = loss > allowed + _ROUNDING
    p_value = paired_p_value(own, scores, metric, higher_is_better=higher_is_better) if loses_too_much else None
    facts = f"{name} {engine_metric:.4f}, with the model itself {own_metric:.4f}; {n_changed:,} of {n_rows:,} {subject}"
    refused, reason = "", "it loses nothing"
    if n_changed > _MAX_CHANGED * n_rows:
        refused = reason = f"more than {_MAX_CHANGED:.0%} of the {subject}"
    elif p_value is not None:
        if p_value < SIGNIFICANT:
            refused = reason = f"it loses more than serve.max_metric_drop, and the loss is real (p = {p_value:.3f})"
        elif n_changed > _MAX_CHANGED_WITH_LOSS * n_rows:
            refused = reason = (
                f"it loses more than serve.max_metric_drop, and too many {subject} (over "
                f"{_MAX_CHANGED_WITH_LOSS:.0%}) to take that for noise (p = {p_value:.2f})"
            )
        else:
            reason = f"its loss may be noise (p = {p_value:.2f})"
    elif loss > 0:
        reason = "its loss is within serve.max_metric_drop"
    return Verdict(
        metric=engine_metric,
        own_metric=own_metric,
        rows=n_rows,
        changed=n_changed,
        p_value=p_value,
        refused=f"{refused}: {facts}" if refused else "",
        conclusion=f"{facts}: {reason}",
    )
