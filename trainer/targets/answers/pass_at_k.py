"""pass@k: the chance that at least one of k answers is right."""

from __future__ import annotations

import numpy as np

from trainer.targets.answers.base import Answered
from trainer.targets.answers.user_score import UserScore


class PassAtK(UserScore):
    """pass@k for k answers to each prompt. An answer is right if the user's function returns at least 1.

    The statistic of a row is the number of its right answers. With k answers, the unbiased estimate (Chen et al. 2021)
    is 1 if any of them is right.
    """

    name = "pass_at_k"
    takes_all_samples = True

    def statistics(self, row: Answered) -> list[float]:
        return [float(super().statistics(row)[0] >= 1.0)]

    @staticmethod
    def value(statistics_BK: np.ndarray) -> float | None:
        return float((statistics_BK[:, 0] > 0).mean())
