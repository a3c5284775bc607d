"""The interface of a metric of written answers.

Evaluation stores a few numbers for each row, its *statistics*, instead of the answers. The metric of any set of rows is
computed from their statistics, so the gate can compare two models on the same rows and test the difference.

Letters in shapes: B rows, K statistics of a metric.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np


class Answered(NamedTuple):
    """A row with the model's answer. All three are texts."""

    prompt: str
    answer: str
    reference: str
    """What the row has in place of the answer."""


class AnswerMetric(ABC):
    """One metric of answers."""

    #: The name in a spec and in reports.
    name: str
    #: The number of statistics of a row, K.
    n_statistics: int = 1

    @abstractmethod
    def statistics(self, row: Answered) -> list[float]:
        """Return the K statistics of a row."""

    def value(self, statistics_BK: np.ndarray) -> float | None:
        """Return the metric of rows with these statistics; None if it is not defined for them.

        The default is the mean of the only statistic.
        """
        return float(statistics_BK[:, 0].mean()) if len(statistics_BK) else None
