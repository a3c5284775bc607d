"""The part of the data (train, validation, test) that the name of a file or a folder says."""

from __future__ import annotations

import re

_PART_OF_WORD = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "heldout", "holdout"), "test"),
}
_WORDS = re.compile(r"[^\W_]+")


def words_of_name(name: str) -> list[str]:
    """Return the words of a name in lower case."""
    return _WORDS.findall(name.lower())


def part_of_name(name: str) -> str | None:
    """Return the part that a file's name says, for example "test" for claims_test.csv, or None."""
    return next((_PART_OF_WORD[word] for word in words_of_name(name) if word in _PART_OF_WORD), None)


def family_of_name(name: str) -> tuple[str, ...]:
    """Return what the files of one data set share in their names: the words but the part's, and the extension."""
    words = words_of_name(name)
    return tuple(word for word in words if word not in _PART_OF_WORD and word != "of" and not word.isdecimal())
