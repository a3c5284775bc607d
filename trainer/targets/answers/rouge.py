"""ROUGE-L of rouge-score."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from cluster.extras import import_extra
from trainer.targets.answers.base import Answered, AnswerMetric


class RougeL(AnswerMetric):
    """The mean over rows of ROUGE-L's F1 (Lin 2004): the longest common subsequence of words."""

    name = "rouge_l"

    @cached_property
    def _scorer(self) -> Any:
        return import_extra("rouge_score.rouge_scorer", "generation", "the metric rouge_l").RougeScorer(["rougeL"])

    def statistics(self, row: Answered) -> list[float]:
        return [float(self._scorer.score(row.reference, row.answer)["rougeL"].fmeasure)]
