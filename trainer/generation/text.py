"""The text of an answer while its tokens arrive: no half of a character, nothing that may become a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_INCOMPLETE = "\ufffd"


class TokenText:
    """Turns tokens into text one at a time.

    The texts of all calls together are the text of all tokens, as the tokenizer decodes them.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._start = 0  # tokens before it no longer change what later ones decode to
        self._read = 0  # tokens whose text was returned

    def add(self, token_id: int) -> str:
        """Return the text that this token completes; empty within a character of several tokens."""
        self._ids.append(token_id)
        text = self._pending()
        if not text or text.endswith(_INCOMPLETE):
            return ""
        self._start, self._read = self._read, len(self._ids)
        return text

    def finish(self) -> str:
        """Return the text of the tokens that did not complete a character."""
        text = self._pending()
        self._start = self._read = len(self._ids)
        return text

    def _pending(self) -> str:
        before = self._tokenizer.decode(self._ids[self._start : self._read])
        return self._tokenizer.decode(self._ids[self._start :])[len(before) :]


class StopStrings:
    """Cuts a stream of text at the first stop string, and holds back what may be the start of one."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = [string for string in strings if string]
        self._pending = ""
        self.is_complete = False
        """Whether a stop string has come. No text follows it."""

    def add(self, text: str) -> str:
        """Return the text that is sure to come before any stop string."""
        if not self._strings:
            return text
        self._pending += text
        starts = [start for start in map(self._pending.find, self._strings) if start >= 0]
        if starts:
            self.is_complete = True
            text, self._pending = self._pending[: min(starts)], ""
            return text
        cut = len(self._pending) - self._longest_start()
        text, self._pending = self._pending[:cut], self._pending[cut:]
        return text

    def finish(self) -> str:
        """Return the text that was held back: the answer ended without a stop string."""
        text, self._pending = self._pending, ""
        return text

    def _longest_start(self) -> int:
        """Return the length of the longest end of the text with which a stop string begins."""
        for string_start in range(max(0, len(self._pending) - max(map(len, self._strings)) + 1), len(self._pending)):
            end = self._pending[string_start:]
            if any(string.startswith(end) for string in self._strings):
                return len(end)
        return 0
