"""Exact match: whether the answer is the reference, apart from white space at the ends."""

from __future__ import annotations

import unicodedata

from trainer.targets.answers.base import Answered, AnswerMetric


class ExactMatch(AnswerMetric):
    """The share of rows whose answer equals the reference."""

    name = "exact_match"

    def statistics(self, row: Answered) -> list[float]:
        return [float(_canonical(row.answer) == _canonical(row.reference))]


def _canonical(text: str) -> str:
    return unicodedata.normalize("NFC", text.strip())
