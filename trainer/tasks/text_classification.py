"""Text classification: one text in, one of the labels seen in training out."""

from __future__ import annotations

from trainer.targets.classes import Classes
from trainer.tasks.text import TextTask


class TextClassification(TextTask):
    """A text to its class."""

    name = "text-classification"
    roles = {"text": "the text to classify", "label": "its class"}  # noqa: RUF012  read-only
    target = Classes()
