"""Special tokens in the texts of users: they stay text, and never become the control tokens of a template.

Such a token in a message is put between two private characters before the conversation is rendered. What is between them
afterwards is tokenized as plain text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_START, _END = "\ue000", "\ue001"
_MARKED = re.compile(f"{_START}([^{_START}{_END}]*){_END}|[{_START}{_END}]")


class ControlTokens:
    """The special tokens of a tokenizer."""

    def __init__(self, tokens: Iterable[str]) -> None:
        longest_first = sorted((token for token in tokens if token), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        # One look for each first character is much faster than the pattern, and most texts have none.
        self._first = {token[0] for token in longest_first} | {_START, _END}

    def are_in(self, value: Any) -> bool:
        """Return whether a text, or any text in a list or an object, holds a special token."""
        if isinstance(value, str):
            return any(first in value for first in self._first) and (
                self._pattern.search(value) is not None or _START in value or _END in value
            )
        if isinstance(value, Mapping):
            return any(self.are_in(item) for item in value.values())
        return isinstance(value, list) and any(self.are_in(item) for item in value)

    def mark(self, value: Any) -> Any:
        """Return a value with the special tokens in its texts marked; marks that it holds itself are removed."""
        if isinstance(value, str):
            text = value.replace(_START, "").replace(_END, "")
            return self._pattern.sub(f"{_START}\\g<0>{_END}", text)
        if isinstance(value, Mapping):
            return {key: self.mark(item) for key, item in value.items()}
        return [self.mark(item) for item in value] if isinstance(value, list) else value


def split_marked(text: str) -> list[tuple[str, bool]]:
    """Return the parts of a rendered text, each with whether it is a user's and stays text."""
    if _START not in text and _END not in text:
        return [(text, False)]
    parts = _MARKED.split(text)  # text, marked text or None for a single mark, text ...
    return [(part, bool(number % 2)) for number, part in enumerate(parts) if part]
