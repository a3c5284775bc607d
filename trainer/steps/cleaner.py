"""Cleaning a text before it is tokenized: the same functions for a training row, a file to predict and a request.

A step is made from the contract alone (its name and parameters); a new one is a file here and a line in `_KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.text import is_blank
from trainer.contract.contract import Contract, Step
from trainer.spec.data import Data, StepSpec
from trainer.steps import custom, normalise, redact, strip_html

#: Takes a text and returns the text to use, or None for one that must not be used.
TextStep = Callable[[str], str | None]

_KINDS: dict[str, Callable[[dict[str, Any]], TextStep]] = {
    "normalise": normalise.make,
    "strip_html": strip_html.make,
    "redact": redact.make,
    "python": custom.make,
}


def of_spec(data: Data, folder: Path) -> tuple[list[Step], dict[str, str]]:
    """Return the steps that requests go through too, and the files they put into `folder` with their SHA-256."""
    steps: list[Step] = []
    files: dict[str, str] = {}
    for given in data.steps:
        if given.name not in _KINDS:
            continue
        params = given.params.model_dump(mode="json")
        if given.name == "python":
            params, kept = custom.pin(params["function"], folder)
            files.update(kept)
        steps.append(Step(name=given.name, params=params))
    return steps, files


def of_whole(data: Data) -> list[StepSpec]:
    """Return the steps that look at all rows together (deduplicate, balance, sample); requests know nothing of them."""
    return [given for given in data.steps if given.name not in _KINDS]


class Cleaner:
    """The text steps of one contract, in order. Raises `ModelError` if a function of the user's has changed."""

    def __init__(self, contract: Contract) -> None:
        self._steps = [
            (step.params.get("function", step.name), _KINDS[step.name](step.params))
            for step in contract.steps
            if step.name in _KINDS
        ]

    def __bool__(self) -> bool:
        return bool(self._steps)

    def __call__(self, texts: Sequence[str]) -> tuple[list[str], list[str | None]]:
        """Return the cleaned texts, and for each why it cannot be used, or None. Refused texts stay as they came."""
        cleaned = list(texts)
        reasons: list[str | None] = [None] * len(cleaned)
        for place, text in enumerate(texts):
            cleaned[place], reasons[place] = self._one(text)
        return cleaned, reasons

    def columns(
        self, columns: Mapping[str, Sequence[Any]], texts: Sequence[str]
    ) -> tuple[dict[str, Sequence[Any]], list[str | None]]:
        """Return raw values by role with those of the roles in `texts` cleaned, and for each row why it cannot be used."""
        cleaned = dict(columns)
        reasons: list[str | None] = [None] * len(next(iter(columns.values())))
        for role in texts if self else ():
            cleaned[role], found = self(columns[role])
            reasons = [before or new for before, new in zip(reasons, found, strict=True)]
        return cleaned, reasons

    def _one(self, text: str) -> tuple[str, str | None]:
        found: str | None = text
        for name, step in self._steps:
            try:
                found = step(found or "")
            except custom.FunctionFailed as error:
                return text, str(error)
            if found is None:
                return text, f"refused by {name}"
        if not found or is_blank(found):
            return text, "empty after cleaning"
        return found, None
