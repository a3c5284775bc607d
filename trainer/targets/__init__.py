"""What a model predicts: a class, tags or a number. A task combines its inputs (`trainer.tasks`) with one target."""

from trainer.targets.base import Target
from trainer.targets.classes import Classes
from trainer.targets.numbers import Numbers
from trainer.targets.tags import Tags

__all__ = ["Classes", "Numbers", "Tags", "Target"]
