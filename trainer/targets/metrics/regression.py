"""Metrics of a model that predicts a number, from its predictions and the true values. Plain functions of arrays.

Letters in shapes: B rows.
"""

from __future__ import annotations

import numpy as np


def regression_metrics(predicted_B: np.ndarray, targets_B: np.ndarray) -> dict[str, float]:
    """Return rmse, mae and mse, in units of the target, and r2, pearson and spearman.

    r2 is left out if all true values are equal, the correlations if all values of either side are.
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
