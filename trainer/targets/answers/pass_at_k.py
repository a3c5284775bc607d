"""pass@k: the chance that at least one of k answers is right."""

from __future__ import annotations

import numpy as np

from trainer.targets.answers.base import Answered, AnswerMetric
from trainer.targets.answers.user_score import UserScore


class PassAtK(AnswerMetric):
    """pass@k for k answers to each prompt. An answer is right if the user's function returns at least 1.

    Each answer is one `Answered`; evaluation sums their statistics in a row, so that a row has the count of its right
    answers. With k answers the unbiased estimate (Chen et al. 2021) is 1 if any of them is right.
    """

    name = "pass_at_k"

    def __init__(self, path: str) -> None:
        """`path` is `my_module:function`."""
        self._score = UserScore(path)

    def statistics(self, row: Answered) -> list[float]:
        return [float(self._score.statistics(row)[0] >= 1.0)]

    def value(self, statistics_BK: np.ndarray) -> float | None:
        return float((statistics_BK[:, 0] > 0).mean()) if len(statistics_BK) else None
