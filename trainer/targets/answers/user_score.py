"""A metric of the user's own: a function of prompt, answer and reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

from cluster.errors import SpecError
from trainer.contract import user_code
from trainer.spec.answers import AnswersSpec
from trainer.targets.answers.base import Answered, AnswerMetric

_KEY = "evaluate.answers.function"


class UserScore(AnswerMetric):
    """The mean over rows of what the user's function returns."""

    name = "answer_score"

    def __init__(self, spec: AnswersSpec) -> None:
        assert spec.function  # checked by the spec
        self._path = spec.function

    @cached_property
    def _function(self) -> Callable[[str, str, str], float]:
        function: Callable[[str, str, str], float] = user_code.load_user_object(user_code.find_source(self._path, _KEY))
        return function

    def statistics(self, row: Answered) -> list[float]:
        score = self._function(row.prompt, row.answer, row.reference)
        if isinstance(score, bool | int | float) and math.isfinite(score):
            return [float(score)]
        raise SpecError(
            f"{_KEY}: {self._path} returned {score!r}, not a finite number", "return a number, such as 1.0 or 0.0"
        )
