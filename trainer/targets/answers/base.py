"""The interface of a metric of written answers.

Evaluation stores a few numbers for each row, its *statistics*, instead of the answers. The metric of any set of rows is
computed from their statistics alone, so the gate can compare two models on the same rows and test the difference.

Letters in shapes: B rows, K statistics of a metric.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from trainer.spec.answers import AnswersSpec


class Answered(NamedTuple):
    """A row with an answer of the model. All three are texts."""

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
    #: Whether a row has the statistics of all its answers, summed; if not, of the first one.
    takes_all_samples = False

    def __init__(self, spec: AnswersSpec) -> None:  # noqa: B027  most metrics have no settings
        """Raises `SpecError` if a setting of `spec` is not valid."""

    @abstractmethod
    def statistics(self, row: Answered) -> list[float]:
        """Return the K statistics of a row."""

    @staticmethod
    def value(statistics_BK: np.ndarray) -> float | None:
        """Return the metric of at least one row with these statistics; None if it is not defined for them.

        The default is the mean of the only statistic.
        """
        return float(statistics_BK[:, 0].mean())
