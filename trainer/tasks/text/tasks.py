"""The built-in tasks on texts: each combines texts with a target."""

from __future__ import annotations

from trainer.targets.classes import Classes
from trainer.targets.numbers import Numbers
from trainer.targets.tags import Tags
from trainer.tasks.text.base import TextTask


class TextClassification(TextTask):
    """Predicts the class of a text."""

    name = "text-classification"
    roles = {"text": "the text to classify", "label": "its class"}  # noqa: RUF012  read-only
    target = Classes()


class TextMultiLabel(TextTask):
    """Predicts the tags of a text."""

    name = "text-multi-label"
    roles = {"text": "the text", "labels": "its tags"}  # noqa: RUF012
    target_role = "labels"
    target = Tags()


class TextPairClassification(TextTask):
    """Predicts the class of a pair of texts."""

    name = "text-pair-classification"
    roles = {"text": "the first text", "text_pair": "the second text", "label": "the pair's class"}  # noqa: RUF012
    request = '{"text": "...", "text_pair": "..."}'
    text_roles = ("text", "text_pair")
    target = Classes()


class TextRegression(TextTask):
    """Predicts a number for a text."""

    name = "text-regression"
    roles = {"text": "the text", "value": "its number"}  # noqa: RUF012
    target_role = "value"
    target = Numbers()
