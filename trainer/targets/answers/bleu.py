"""BLEU and chrF of sacrebleu."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from cluster.extras import import_extra
from trainer.targets.answers.base import Answered, AnswerMetric

_ORDERS = 4


class Bleu(AnswerMetric):
    """Corpus BLEU from 0 to 1 (Papineni et al. 2002), with sacrebleu's tokenizer `13a` and exponential smoothing."""

    name = "bleu"
    #: Matches and n-grams for n = 1 to 4, the answer's length and the reference's.
    n_statistics = 2 * _ORDERS + 2

    @cached_property
    def _bleu(self) -> Any:
        # Each row is counted alone, so the advice about the order for single sentences does not apply.
        return import_extra("sacrebleu", "generation", "the metric bleu").BLEU(effective_order=False)

    def statistics(self, row: Answered) -> list[float]:
        score = self._bleu.corpus_score([row.answer], [[row.reference]])
        return [*map(float, score.counts), *map(float, score.totals), float(score.sys_len), float(score.ref_len)]

    @staticmethod
    def value(statistics_BK: np.ndarray) -> float | None:
        sums = statistics_BK.sum(axis=0)
        bleu = import_extra("sacrebleu", "generation", "the metric bleu").BLEU
        score = bleu.compute_bleu(
            correct=sums[:_ORDERS].tolist(),
            total=sums[_ORDERS : 2 * _ORDERS].tolist(),
            sys_len=int(sums[-2]),
            ref_len=int(sums[-1]),
            smooth_method="exp",
        )
        return float(score.score) / 100.0


class ChrF(AnswerMetric):
    """The mean over rows of chrF2 from 0 to 1 (Popović 2015): n-grams of characters, so it suits any language."""

    name = "chrf"

    @cached_property
    def _chrf(self) -> Any:
        return import_extra("sacrebleu", "generation", "the metric chrf").CHRF()

    def statistics(self, row: Answered) -> list[float]:
        return [float(self._chrf.sentence_score(row.answer, [row.reference]).score) / 100.0]
