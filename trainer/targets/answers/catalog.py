"""The metrics of answers. A new metric is a file, a line in `METRICS`, and its name in `trainer.spec.answers`.

A row has the statistics of all metrics in this order, each after a count: 1 if the metric was computed, else 0. So the
statistics say by themselves which metrics they hold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.spec.answers import AnswersSpec
from trainer.targets.answers.base import Answered, AnswerMetric
from trainer.targets.answers.bleu import Bleu, ChrF
from trainer.targets.answers.exact_match import ExactMatch
from trainer.targets.answers.json_valid import JsonValid
from trainer.targets.answers.pass_at_k import PassAtK
from trainer.targets.answers.rouge import RougeL
from trainer.targets.answers.user_score import UserScore

METRICS: tuple[type[AnswerMetric], ...] = (ExactMatch, Bleu, ChrF, RougeL, JsonValid, UserScore, PassAtK)

#: The number of statistics of a row, K.
N_STATISTICS = sum(1 + metric.n_statistics for metric in METRICS)


class AnswerJudge:
    """Computes the statistics that a spec asks for."""

    def __init__(self, spec: AnswersSpec) -> None:
        """Raises `SpecError` if a setting is not valid."""
        self._metrics = {kind: kind(spec) for kind in METRICS if kind.name in spec.metrics}

    def statistics(self, samples: Sequence[Answered]) -> np.ndarray:
        """Return the float64 statistics of a row with these answers, shape (K,); all 0 if it has none."""
        row: list[float] = []
        for kind in METRICS:
            metric = self._metrics.get(kind) if samples else None
            if metric is None:
                row += [0.0] * (1 + kind.n_statistics)
                continue
            used = samples if kind.takes_all_samples else samples[:1]
            row += [1.0, *np.sum([metric.statistics(sample) for sample in used], axis=0).tolist()]
        return np.asarray(row)


def answer_metrics(statistics_BK: np.ndarray) -> dict[str, float]:
    """Return the metrics of rows with these statistics. One that is not defined for these rows is left out."""
    values, start = {}, 0
    for kind in METRICS:
        rows = statistics_BK[statistics_BK[:, start] > 0, start + 1 : start + 1 + kind.n_statistics]
        start += 1 + kind.n_statistics
        value = kind.value(rows) if len(rows) else None
        if value is not None:
            values[kind.name] = value
    return values
