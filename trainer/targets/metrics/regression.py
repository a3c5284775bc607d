"""Metrics of a model that predicts a number, from its predictions and the true values. Plain functions of arrays.

Whether a metric is defined depends on the rows alone, never on the predictions. docs/reference/model-metrics.md has
every definition.

To add a metric, add its function to `_ERRORS` or `_RELATIONS` and its name to `Metric` in trainer/spec/evaluate.py (also to
`LOWER_IS_BETTER` there if a lower value is better) and to `Numbers.metric_names` in trainer/targets/numbers.py.

Letters in shapes: B rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np


def regression_metrics(
    predicted_B: np.ndarray, targets_B: np.ndarray, names: Collection[str] | None = None
) -> dict[str, float]:
    """Return the metrics `names`, by default all of them.

    rmse and mae are in the target's units, mse is in their square. All numbers must be finite. r2, pearson and spearman
    are left out if all true values are equal. pearson and spearman are 0 if all predictions are equal: they say nothing
    about the truth. Without rows, the result is empty.
    """
    if not len(targets_B):
        return {}
    varies = (targets_B != targets_B[0]).any()
    metrics = {**_ERRORS, **(_RELATIONS if varies else {})}
    return {name: metrics[name](predicted_B, targets_B) for name in metrics if names is None or name in names}


def _rmse(predicted_B: np.ndarray, targets_B: np.ndarray) -> float:
    return _root_mean_square(predicted_B - targets_B)


def _r2(predicted_B: np.ndarray, targets_B: np.ndarray) -> float:
    return 1.0 - _square(_rmse(predicted_B, targets_B) / _root_mean_square(_deviations(targets_B)))


def _spearman(predicted_B: np.ndarray, targets_B: np.ndarray) -> float:
    from scipy.stats import rankdata

    return _correlation(rankdata(predicted_B), rankdata(targets_B))  # equal values share their mean rank


def _square(value: float) -> float:
    """Return the square; infinite if it is too large for float64."""
    with np.errstate(over="ignore"):
        return float(np.square(value))


def _root_mean_square(values_B: np.ndarray) -> float:
    """Return the root of the mean square. Values are scaled first: the square of 1e200 is too large for float64."""
    largest = float(np.abs(values_B).max())
    return largest * float(np.sqrt(np.mean((values_B / largest) ** 2))) if largest else 0.0


def _deviations(values_B: np.ndarray) -> np.ndarray:
    """Return the values minus their mean; not all 0 if not all values are equal."""
    deviations_B: np.ndarray = values_B - values_B[0]  # first, so that large equal digits do not hide small differences
    return deviations_B - deviations_B.mean()


def _correlation(x_B: np.ndarray, y_B: np.ndarray) -> float:
    """Return Pearson's correlation; 0 if all values of `x_B` or of `y_B` are equal."""
    x_B, y_B = _deviations(x_B), _deviations(y_B)
    scale = _root_mean_square(x_B), _root_mean_square(y_B)
    if not all(scale):
        return 0.0
    return float(np.clip(np.mean((x_B / scale[0]) * (y_B / scale[1])), -1.0, 1.0))


_ERRORS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "rmse": _rmse,
    "mae": lambda predicted_B, targets_B: float(np.abs(predicted_B - targets_B).mean()),
    "mse": lambda predicted_B, targets_B: _square(_rmse(predicted_B, targets_B)),
}
# They need different true values.
_RELATIONS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "r2": _r2,
    "pearson": _correlation,
    "spearman": _spearman,
}
