"""Classification of pairs of texts: entailment, duplicates, whether an answer fits a question."""

from __future__ import annotations

from trainer.targets.classes import Classes
from trainer.tasks.text import TextTask


class TextPairClassification(TextTask):
    """Two texts to the class of what is between them."""

    name = "text-pair-classification"
    roles = {"text": "the first text", "text_pair": "the second text", "label": "the pair's class"}  # noqa: RUF012
    request = '{"text": "...", "text_pair": "..."}'
    texts = ("text", "text_pair")
    target = Classes()
