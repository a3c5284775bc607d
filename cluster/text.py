"""Small text functions that several packages share."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
# Unassigned characters (Cn) are left out: they may be newer than this Python, for example next year's emoji.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Zs", "Zl", "Zp", "Mn", "Mc", "Me"})


def is_unicode(text: str) -> bool:
    """Return whether `text` can be encoded as UTF-8. Text from JSON or invalid bytes may hold half a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def is_blank(text: str) -> bool:
    """Return whether `text` has no visible character.

    White space, control characters, zero-width characters, and accents without a letter are not visible.
    """
    if _LETTER_OR_DIGIT.search(text):  # fast: it is the first character of nearly every text
        return False
    return all(unicodedata.category(character) in _INVISIBLE for character in text)


def blank_mask(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a boolean mask of the blank values in an Arrow column of strings. Null is not blank. See `is_blank`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    # Arrow's Unicode tables may be older or newer than Python's. So Arrow only sorts out texts with a letter or digit,
    # and Python decides on the others.
    doubtful = column.filter(pc.invert(pc.match_substring_regex(column, r"[\pL\pN]")))
    blank = [value for value in pc.unique(doubtful).to_pylist() if is_blank(value)]
    return pc.is_in(column, value_set=pa.array(blank, column.type))


def utc_now() -> str:
    """Return the current time in UTC, to the second, in ISO 8601: `2026-03-01T12:00:00Z`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def json_kind(value: object) -> str:
    """Return the type of a JSON value in words, for example "an object"."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def list_some(names: Sequence[str], most: int) -> str:
    """Return the first `most` names on one line, and how many there are besides: `a, b and 12 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def format_seconds(seconds: float) -> str:
    """Return a duration for people: `4.2 s`, `3 min 20 s`, `5 h 07 min` or `2 d 3 h`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def format_bytes(size: float) -> str:
    """Return a size for people, in units of 1000: `512 B`, `1.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.5 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
