"""Drafts by prompt lookup: what followed the last tokens when they came before, in the prompt or in the answer."""

from __future__ import annotations

from collections.abc import Sequence

#: Lengths of the ends that are looked up, the longest first.
_LENGTHS = (4, 3, 2)


class PromptLookup:
    """Proposes the next tokens of one request."""

    def __init__(self) -> None:
        self._ends: dict[
            tuple[int, ...], int
        ] = {}  # the last tokens -> the position after them, at their last occurrence
        self._n_indexed = 0
        self._rejected = 0
        self._skip = 0

    def draft(self, tokens: Sequence[int], n_most: int) -> list[int]:
        """Return up to `n_most` tokens that may follow `tokens`, which have only grown since the last call."""
        self._index(tokens)
        if self._skip:
            self._skip -= 1
            return []
        for length in _LENGTHS:
            position = self._ends.get(tuple(tokens[-length:]))
            if position is not None:
                return list(tokens[position : position + n_most])
        return []

    def note(self, n_drafted: int, n_accepted: int) -> None:
        """Note how a draft fared: after several bad ones, the next steps go without."""
        if n_drafted:
            self._rejected = 0 if n_accepted else self._rejected + 1
            self._skip = min(2**self._rejected, 32) if self._rejected > 1 else 0

    def _index(self, tokens: Sequence[int]) -> None:
        # The end itself is not indexed: it would find itself.
        for end in range(max(self._n_indexed, 1), len(tokens)):
            for length in _LENGTHS:
                if end >= length:
                    self._ends[tuple(tokens[end - length : end])] = end
        self._n_indexed = len(tokens)
