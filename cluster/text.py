"""Small questions about text that several packages ask."""

from __future__ import annotations


def is_unicode(text: str) -> bool:
    """Whether `text` can be written as UTF-8: it holds no half of a surrogate pair (JSON and bad bytes can make one)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
