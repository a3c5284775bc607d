"""Rewards of answers: the ones of the spec, weighted and added up."""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cluster.errors import SpecError, UserError, first_line
from trainer.contract import user_code
from trainer.rewards.unit_tests import passes_tests
from trainer.spec.method import RewardSpec
from trainer.targets.answers.base import Answered

#: The spec's key that names a function, for messages.
KEY = "train.method.rewards"

#: Maps a row with its answer to a finite number.
Reward = Callable[[Answered], float]


def make_reward(spec: RewardSpec) -> Reward:
    """Return the reward that `spec` names, without its weight. Raises `SpecError` for a function that is missing."""
    if spec.kind == "exact_match":
        return lambda row: float(_plain(row.answer) == _plain(row.reference))
    if spec.kind == "regex":
        assert spec.pattern is not None  # checked by the spec
        pattern = re.compile(spec.pattern)
        return lambda row: float(pattern.search(row.answer) is not None)
    if spec.kind == "unit_tests":
        return lambda row: float(passes_tests(row.answer, row.reference, spec.timeout_s, spec.memory_mb))
    return _user_reward(spec.kind)


def reward_answers(specs: Sequence[RewardSpec], rows: Sequence[Answered]) -> np.ndarray:
    """Return the reward of each answer, float64, shape (rows,): the sum of all rewards, each times its weight.

    Tests of answers run side by side, on all cores.
    """
    total = np.zeros(len(rows))
    for spec in specs:
        reward = make_reward(spec)
        if spec.kind == "unit_tests":
            with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
                values = list(pool.map(reward, rows))
        else:
            values = [reward(row) for row in rows]
        total += spec.weight * np.array(values, np.float64)
    return total


def _plain(text: str) -> str:
    """Return a text as the metric `exact_match` compares it."""
    return unicodedata.normalize("NFC", text.strip())


def _user_reward(path: str) -> Reward:
    function = user_code.load_user_object(user_code.find_source(path, KEY))

    def reward(row: Answered) -> float:
        try:
            value = function(row.prompt, row.answer, row.reference)
        except Exception as error:
            raise UserError(
                f"{KEY}: {path} raised {type(error).__name__}: {first_line(error)}, for the answer {row.answer[:200]!r}",
                "correct the function: it must return a number for any text",
            ) from error
        if isinstance(value, bool | int | float | np.number) and math.isfinite(value):
            return float(value)
        raise SpecError(f"{KEY}: {path} returned {value!r}, not a finite number", "return a number, such as 1.0 or 0.0")

    return reward
