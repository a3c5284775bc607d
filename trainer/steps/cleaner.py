"""Clean texts before they are tokenized: with the same functions for training rows, files to predict and requests.

A step is built from the contract alone (its name and parameters). A new step is a module of this package and a line in
`_STEP_MAKERS`. The names are `data.steps` in trainer/spec/steps.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.text import is_blank
from trainer.contract.contract import Contract, Step
from trainer.spec.data import DataSpec
from trainer.spec.steps import StepSpec
from trainer.steps import custom, normalize, redact, strip_html
from trainer.values.words import canonical_text

#: Takes a text and returns the text to use, or None to reject it.
TextStep = Callable[[str], str | None]

_STEP_MAKERS: dict[str, Callable[[dict[str, Any]], TextStep]] = {
    "normalize": normalize.make,
    "strip_html": strip_html.make,
    "redact": redact.make,
    "python": custom.make,
}


def contract_steps(data: DataSpec, folder: Path) -> tuple[list[Step], dict[str, str]]:
    """Return the steps that clean single texts, and the files that they write into `folder` (name -> SHA-256)."""
    steps: list[Step] = []
    files: dict[str, str] = {}
    for step in data.steps:
        if step.name not in _STEP_MAKERS:
            continue
        params = step.params.model_dump(mode="json")
        if step.name == "python":
            params, copies = custom.pin_function(params["function"], folder)
            files.update(copies)
        steps.append(Step(name=step.name, params=params))
    return steps, files


def dataset_steps(data: DataSpec) -> list[StepSpec]:
    """Return the steps that work on all rows together (deduplicate, balance, sample); requests skip them."""
    return [step for step in data.steps if step.name not in _STEP_MAKERS]


class Cleaner:
    """The text steps of one contract, in order. Creating it raises `ModelError` if a custom function has changed."""

    def __init__(self, contract: Contract) -> None:
        self._steps = [
            (step.params.get("function", step.name), _STEP_MAKERS[step.name](step.params))
            for step in contract.steps
            if step.name in _STEP_MAKERS
        ]

    def __bool__(self) -> bool:
        return bool(self._steps)

    def __call__(self, texts: Sequence[str]) -> tuple[list[str], list[str | None]]:
        """Return the cleaned texts, and for each the reason why it is rejected, or None. Rejected texts stay as is."""
        cleaned = list(texts)
        reasons: list[str | None] = [None] * len(cleaned)
        for index, text in enumerate(texts):
            cleaned[index], reasons[index] = self._clean(text)
        return cleaned, reasons

    def columns(
        self, columns: Mapping[str, Sequence[Any]], texts: Sequence[str]
    ) -> tuple[dict[str, Sequence[Any]], list[str | None]]:
        """Return raw values by role, cleaned for the roles in `texts`, and for each row why it is rejected, or None.

        Texts are brought into their canonical form first, with or without steps. Roles without a column are skipped.
        """
        cleaned = dict(columns)
        reasons: list[str | None] = [None] * len(next(iter(columns.values())))
        for role in [role for role in texts if role in columns]:
            cleaned[role] = [text if text is None else canonical_text(text) for text in columns[role]]
            if not self:
                continue
            cleaned[role], role_reasons = self(cleaned[role])
            reasons = [first or second for first, second in zip(reasons, role_reasons, strict=True)]
        return cleaned, reasons

    def _clean(self, text: str) -> tuple[str, str | None]:
        cleaned: str | None = text
        for name, step in self._steps:
            try:
                cleaned = step(cleaned or "")
            except custom.CustomStepError as error:
                return text, str(error)
            if cleaned is None:
                return text, f"refused by {name}"
        if not cleaned or is_blank(cleaned):
            return text, "empty after cleaning"
        return cleaned, None
