"""The one spelling of words: labels, tags, categories, groups, yes and no."""

from __future__ import annotations

import re
import unicodedata

from trainer.values.moments import parse_moment, shorten_moment
from trainer.values.numbers import plain_number

# As pandas, R and spreadsheets write them; JSON has the lower-case ones.
_BOOLEANS = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}
_LIKE_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:")
_TIME_OF_DAY = re.compile(r"([0-9]{2}:[0-9]{2}:[0-9]{2})\.([0-9]+)")


def canonical_text(text: str) -> str:
    """Return a text in Unicode NFC: é is one character, not an e with an accent. Nothing else changes."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def canonical_word(text: str) -> str:
    """Return the one spelling of a label, tag, category or group.

    It is in Unicode NFC, without white space at its ends. A number that a program wrote as a float is in plain digits:
    3.0 is 3. True is true. A point in time is in UTC, and without a time if that is midnight. Other words stay as they
    are: 007, 3.10 and 1e5 are no other numbers.
    """
    word = canonical_text(text).strip()
    if word in _BOOLEANS:
        return _BOOLEANS[word]
    if not word or not (word[0].isdigit() or word[0] == "-"):
        return word
    number = plain_number(word)
    if number is not None:
        return number
    if _LIKE_TIME.match(word):
        moment = parse_moment(word)
        return word if moment is None else shorten_moment(moment)
    time = _TIME_OF_DAY.fullmatch(word)
    return f"{time[1]}.{time[2].rstrip('0')}".rstrip(".") if time else word
