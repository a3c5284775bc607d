"""Multi-label text classification: one text in, any number of tags out."""

from __future__ import annotations

from trainer.targets.tags import Tags
from trainer.tasks.text import TextTask


class TextMultiLabel(TextTask):
    """A text to its tags."""

    name = "text-multi-label"
    roles = {"text": "the text", "labels": "its tags"}  # noqa: RUF012
    target_role = "labels"
    target = Tags()
