"""Tasks: what rows and requests look like, how they become model inputs, and which model is trained."""

from trainer.tasks.base import Task
from trainer.tasks.encoder import Encoded, Encoder
from trainer.tasks.fitting import unfitted_contract

__all__ = ["Encoded", "Encoder", "Task", "unfitted_contract"]
