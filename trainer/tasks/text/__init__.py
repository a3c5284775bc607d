"""Tasks on texts."""

from trainer.tasks.text.base import TextTask
from trainer.tasks.text.tasks import TextClassification, TextMultiLabel, TextPairClassification, TextRegression

__all__ = ["TextClassification", "TextMultiLabel", "TextPairClassification", "TextRegression", "TextTask"]
