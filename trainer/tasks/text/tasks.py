"""Text classification: one text in, one of the labels seen in training out."""

from __future__ import annotations

from trainer.targets.classes import Classes
from trainer.targets.numbers import Numbers
from trainer.targets.tags import Tags
from trainer.tasks.text.base import TextTask


class TextClassification(TextTask):
    """A text to its class."""

    name = "text-classification"
    roles = {"text": "the text to classify", "label": "its class"}  # noqa: RUF012  read-only
    target = Classes()


class TextMultiLabel(TextTask):
    """A text to its tags."""

    name = "text-multi-label"
    roles = {"text": "the text", "labels": "its tags"}  # noqa: RUF012
    target_role = "labels"
    target = Tags()


class TextPairClassification(TextTask):
    """Two texts to the class of what is between them."""

    name = "text-pair-classification"
    roles = {"text": "the first text", "text_pair": "the second text", "label": "the pair's class"}  # noqa: RUF012
    request = '{"text": "...", "text_pair": "..."}'
    texts = ("text", "text_pair")
    target = Classes()


class TextRegression(TextTask):
    """A text to a number."""

    name = "text-regression"
    roles = {"text": "the text", "value": "its number"}  # noqa: RUF012
    target_role = "value"
    target = Numbers()
