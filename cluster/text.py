"""Small questions about text that several packages ask."""

from __future__ import annotations

import re
import unicodedata

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
