"""TODO docstring."""

from __future__ import annotations

TRAIN, VALIDATION, TEST = 0, 1, 2


PARTS = ("train", "validation", "test")
