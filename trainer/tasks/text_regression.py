"""Regression on texts: one text in, a number out, as a score or a rating."""

from __future__ import annotations

from trainer.targets.numbers import Numbers
from trainer.tasks.text import TextTask


class TextRegression(TextTask):
    """A text to a number."""

    name = "text-regression"
    roles = {"text": "the text", "value": "its number"}  # noqa: RUF012
    target_role = "value"
    target = Numbers()
