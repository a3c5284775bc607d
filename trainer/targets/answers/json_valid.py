"""JSON validity: whether an answer that should be JSON is, and matches the schema."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from cluster.errors import SpecError
from cluster.extras import import_extra
from trainer.spec.answers import AnswersSpec
from trainer.targets.answers.base import Answered, AnswerMetric

# A call of a tool, as most chat templates write it. Its content is what has to be JSON.
_CALL = re.compile(r"\s*<tool_call>(.*)</tool_call>\s*", re.DOTALL)


class JsonValid(AnswerMetric):
    """Among rows whose reference is JSON (or the call of a tool): the share whose answer is, and matches `schema`."""

    name = "json_valid"
    #: Whether the row counts, and whether its answer is valid.
    n_statistics = 2

    def __init__(self, spec: AnswersSpec) -> None:
        self._validator = _validator(spec.json_schema) if spec.json_schema is not None else None

    def statistics(self, row: Answered) -> list[float]:
        if _read(row.reference) is None:
            return [0.0, 0.0]
        answer = _read(row.answer)
        is_valid = answer is not None and (self._validator is None or self._validator.is_valid(answer[0]))
        return [1.0, float(is_valid)]

    @staticmethod
    def value(statistics_BK: np.ndarray) -> float | None:
        count, valid = statistics_BK.sum(axis=0)
        return float(valid / count) if count else None


def _read(text: str) -> list[Any] | None:
    """Return the JSON object or array in `text`, in a list; None if it is neither. A lone number or word is no JSON."""
    call = _CALL.fullmatch(text)
    try:
        value = json.loads(call.group(1) if call else text)
    except (ValueError, RecursionError):
        return None
    return [value] if isinstance(value, dict | list) else None


def _validator(schema: dict[str, Any]) -> Any:
    jsonschema = import_extra("jsonschema", "generation", "evaluate.answers.json_schema")
    kind = jsonschema.validators.validator_for(schema)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise SpecError(
            f"evaluate.answers.json_schema is not a JSON schema: {error.message}",
            "repair the schema, or remove the key",
        ) from error
    return kind(schema)
