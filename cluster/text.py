"""Small questions about text that several packages ask."""

from __future__ import annotations

import re
import time
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
# Unassigned characters (Cn) are not among them: they may be newer than this Python, as the emoji of next year.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zs", "Zl", "Zp", "Mn", "Mc", "Me"})


def is_unicode(text: str) -> bool:
    """Whether `text` can be written as UTF-8: it holds no half of a surrogate pair (JSON and bad bytes can make one)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def is_blank(text: str) -> bool:
    """Whether nothing in `text` can be seen: white space, control and zero-width characters, accents without a letter."""
    if _LETTER_OR_DIGIT.search(text):  # nearly every text, at its first character
        return False
    return all(unicodedata.category(character) in _UNSEEN for character in text)


def blank_values(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return which values of an Arrow column of strings show nothing, by the rule of `is_blank`; null is none of them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    # Unicode tables differ in age; only what Arrow's know as a letter or digit is settled without asking ours.
    doubtful = column.filter(pc.invert(pc.match_substring_regex(column, r"[\pL\pN]")))
    unseen = [value for value in pc.unique(doubtful).to_pylist() if is_blank(value)]
    return pc.is_in(column, value_set=pa.array(unseen, column.type))


def utc_now() -> str:
    """Return the time now in UTC to the second, in ISO 8601: `2026-03-01T12:00:00Z`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def json_kind(value: object) -> str:
    """Return what a JSON value is, in words."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
