"""Metrics of a model that predicts a number, from its predictions and the true values. Plain functions of arrays.

To add a metric, return it from `regression_metrics` and add its name to `Metric` in trainer/spec/evaluate.py (also to
`LOWER_IS_BETTER` there if a lower value is better) and to `Numbers.metric_names` in trainer/targets/numbers.py.

Letters in shapes: B rows.
"""

from __future__ import annotations

import numpy as np


def regression_metrics(predicted_B: np.ndarray, targets_B: np.ndarray) -> dict[str, float]:
    """Return rmse and mae in the target's units, mse in their square, and r2, pearson and spearman.

    r2 is left out if all true values are equal. pearson and spearman are left out if all true values or all predictions
    are equal.
    """
    from scipy.stats import rankdata

    errors_B = predicted_B - targets_B
    mse = float(np.mean(errors_B**2))
    metrics = {"rmse": mse**0.5, "mae": float(np.abs(errors_B).mean()), "mse": mse}
    if np.ptp(targets_B) > 0:
        metrics["r2"] = 1.0 - mse / float(np.var(targets_B))
        if np.ptp(predicted_B) > 0:
            metrics["pearson"] = _correlation(predicted_B, targets_B)
            metrics["spearman"] = _correlation(rankdata(predicted_B), rankdata(targets_B))
    return {name: value for name, value in metrics.items() if name in ("rmse", "mae", "mse") or np.isfinite(value)}


def _correlation(x_B: np.ndarray, y_B: np.ndarray) -> float:
    return float(np.corrcoef(x_B, y_B)[0, 1])
