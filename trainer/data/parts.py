"""The three parts of the data, by number and by name."""

from __future__ import annotations

TRAIN, VALIDATION, TEST = 0, 1, 2
#: The names of the parts; a part's number is its index here.
PARTS = ("train", "validation", "test")
