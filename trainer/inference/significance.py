"""How sure a comparison on few rows is: a paired test of two models, and the range of one model's metric.

Both resample the rows and compute the metric again, so they work for any metric of any target. The random numbers are
the same in every call.

Scores have the shape (rows, outputs).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

#: Below this probability, a difference counts as real.
SIGNIFICANT = 0.05
# Number of swaps, and the number of swaps with as large a gain after which the test ends early: more of them would
# hardly change a large p-value.
_SWAPS, _ENOUGH = 1000, 50
_SAMPLES = 1000
# Large scores are swapped or sampled less often, so that this many cells are computed in all.
_CELLS, _FEWEST = 30_000_000, 200
# Added to a difference, so that floating-point error does not decide whether another one is as large.
_ROUNDING = 1e-9

#: Computes a metric from scores.
MetricOfScores: TypeAlias = Callable[[np.ndarray], float]
#: Computes a metric from the scores of sampled rows and their indices, which may repeat; None if it is not defined.
MetricOfRows: TypeAlias = Callable[[np.ndarray, np.ndarray], "float | None"]


def paired_p_value(better: np.ndarray, worse: np.ndarray, metric: MetricOfScores, *, higher_is_better: bool) -> float:
    """Return how often a gain of at least the gain of `better` over `worse` comes up if both models are equally good.

    If they are, swapping their scores of any row does not change the expected metric. So the scores of random rows are
    swapped, and the p-value is the share of swaps with as large a gain: a one-sided sign-flip test. For accuracy it
    converges to McNemar's exact test.
    """
    sign = 1.0 if higher_is_better else -1.0
    gain = sign * (metric(better) - metric(worse))
    generator = np.random.default_rng(0)
    n_as_large = 0
    most = _count_within_limits(_SWAPS, better.size)
    for n_swaps in range(1, most + 1):
        is_swapped = (generator.random(len(better)) < 0.5).reshape(-1, *[1] * (better.ndim - 1))
        first, second = np.where(is_swapped, worse, better), np.where(is_swapped, better, worse)
        n_as_large += sign * (metric(first) - metric(second)) >= gain - _ROUNDING
        if n_as_large == _ENOUGH:
            return n_as_large / n_swaps
    return (1 + n_as_large) / (1 + most)


def metric_range(scores: np.ndarray, metric: MetricOfRows) -> tuple[float, float] | None:
    """Return the range that holds 95 % of the values of `metric` on random samples of the rows (a bootstrap).

    Returns None if the metric is not defined for half of the samples or more.
    """
    generator = np.random.default_rng(0)
    n_samples = _count_within_limits(_SAMPLES, scores.size)
    samples = (generator.integers(0, len(scores), len(scores)) for _ in range(n_samples))
    values = [value for rows in samples if (value := metric(scores[rows], rows)) is not None]
    if len(values) <= n_samples / 2:
        return None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _count_within_limits(count: int, cells: int) -> int:
    return min(count, max(_FEWEST, _CELLS // max(1, cells)))
