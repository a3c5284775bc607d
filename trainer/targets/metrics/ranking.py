"""How well scores rank the rows of a class or tag before the others: ROC and precision-recall curves and their areas.

Letters in shapes: B rows, C classes or tags, T distinct thresholds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class RankedScores(NamedTuple):
    """Cumulative counts of one class (or tag) against the rest, for ROC and precision-recall curves.

    There is one entry per distinct score, the highest score first: rows with equal scores share a threshold, so their
    order does not matter.
    """

    hits_T: np.ndarray
    """int64: rows of the class with this score or a higher one."""
    misses_T: np.ndarray
    """int64: other rows with this score or a higher one."""


def rank_scores(hits_B: np.ndarray, scores_B: np.ndarray) -> RankedScores:
    """Return the counts for one class; bool `hits_B` marks its rows. There must be rows of the class and other rows."""
    order = np.argsort(-scores_B, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores_B[order])), len(order) - 1)
    hits_T = np.cumsum(hits_B[order], dtype=np.int64)[last]
    return RankedScores(hits_T, last + 1 - hits_T)


def average_precision(ranked: RankedScores) -> float:
    """Return the mean precision over the rows of the class, each at its own threshold."""
    precision_T = ranked.hits_T / (ranked.hits_T + ranked.misses_T)
    return float((np.diff(ranked.hits_T, prepend=0) * precision_T).sum() / ranked.hits_T[-1])


def areas_under_curves(scores_BC: np.ndarray, hits_BC: np.ndarray) -> dict[str, float]:
    """Return `roc_auc`, and `pr_auc` as average precision.

    Both are means over the columns of `hits_BC` (bool) that hold True and False. Without such a column, the result is
    empty.
    """
    n_hits_C = hits_BC.sum(axis=0)
    columns = np.flatnonzero((n_hits_C > 0) & (n_hits_C < len(hits_BC)))
    if not len(columns):
        return {}
    areas = [_areas_of_column(scores_BC[:, column], hits_BC[:, column]) for column in columns]
    return {
        "roc_auc": float(np.mean([area[0] for area in areas])),
        "pr_auc": float(np.mean([area[1] for area in areas])),
    }


def _areas_of_column(scores_B: np.ndarray, hits_B: np.ndarray) -> tuple[float, float]:
    """Return the area under ROC and the average precision.

    The area under ROC is the share of pairs of a row of the class and another row that are ranked right; a tie is half
    right. Sorted values are searched, which takes a tenth of the time of `rank_scores`: tests compute it many times.
    """
    sorted_B, hits = np.sort(scores_B), np.sort(scores_B[hits_B])
    n_rows, n_hits = len(sorted_B), len(hits)
    n_below, n_up_to = np.searchsorted(sorted_B, hits, "left"), np.searchsorted(sorted_B, hits, "right")
    rank_sum = float((n_below + n_up_to + 1).sum()) / 2  # rows with equal scores share their mean rank
    area = (rank_sum - n_hits * (n_hits + 1) / 2) / (n_hits * (n_rows - n_hits))
    precision = (n_hits - np.searchsorted(hits, hits, "left")) / (n_rows - n_below)
    return area, float(precision.mean())
