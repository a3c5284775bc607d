"""The metrics of answers by name, and the metrics that a spec asks for. A new metric is a file and a line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from trainer.spec.answers import AnswersSpec
from trainer.targets.answers.base import Answered, AnswerMetric
from trainer.targets.answers.bleu import Bleu, ChrF
from trainer.targets.answers.exact_match import ExactMatch
from trainer.targets.answers.json_valid import JsonValid
from trainer.targets.answers.pass_at_k import PassAtK
from trainer.targets.answers.rouge import RougeL
from trainer.targets.answers.user_score import UserScore

METRICS: dict[str, Callable[[AnswersSpec], AnswerMetric]] = {
    ExactMatch.name: lambda spec: ExactMatch(),
    Bleu.name: lambda spec: Bleu(),
    ChrF.name: lambda spec: ChrF(),
    RougeL.name: lambda spec: RougeL(),
    JsonValid.name: lambda spec: JsonValid(spec.json_schema),
    UserScore.name: lambda spec: UserScore(spec.function or ""),
    PassAtK.name: lambda spec: PassAtK(spec.function or ""),
}


class AnswerMetrics:
    """The metrics of one spec. The first statistic of a row says whether the model wrote an answer to it."""

    def __init__(self, spec: AnswersSpec) -> None:
        self._metrics = [METRICS[name](spec) for name in spec.metrics]

    @property
    def n_statistics(self) -> int:
        """The number of statistics of a row, K."""
        return 1 + sum(metric.n_statistics for metric in self._metrics)

    def statistics(self, samples: Sequence[Answered]) -> np.ndarray:
        """Return the float64 statistics of a row, shape (K,): those of its first answer, and for pass@k of all."""
        row = [1.0]
        for metric in self._metrics:
            used = samples if isinstance(metric, PassAtK) else samples[:1]
            row += np.sum([metric.statistics(sample) for sample in used], axis=0).tolist()
        return np.asarray(row)

    def values(self, statistics_BK: np.ndarray) -> dict[str, float]:
        """Return each metric of rows with these statistics. Rows without an answer do not count.

        A metric that is not defined for these rows is left out.
        """
        answered = statistics_BK[statistics_BK[:, 0] > 0]
        values, start = {}, 1
        for metric in self._metrics:
            value = metric.value(answered[:, start : start + metric.n_statistics])
            start += metric.n_statistics
            if value is not None:
                values[metric.name] = value
        return values
