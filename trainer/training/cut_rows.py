"""Long rows of a language model as many short sequences, for training only."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from trainer.data.prepared import PreparedRows


class CutRows:
    """The rows of a part cut into sequences of up to `n_tokens` predicted tokens each.

    Each sequence but a row's first begins with the token before it, so that every token is predicted once.
    """

    def __init__(self, rows: PreparedRows, n_tokens: int) -> None:
        self._rows, self._n_tokens = rows, n_tokens
        lengths = rows.lengths.astype(np.int64)
        counts = np.maximum(1, -(-(lengths - 1) // n_tokens))
        self.row_numbers = np.repeat(np.arange(len(rows)), counts)
        """The row of each sequence, int64, shape (sequences,)."""
        firsts = np.repeat(np.cumsum(counts) - counts, counts)
        self._starts = (np.arange(len(self.row_numbers)) - firsts) * n_tokens
        self.lengths = np.minimum(n_tokens + 1, lengths[self.row_numbers] - self._starts).astype(np.int32)
        """Tokens of each sequence."""

    def __len__(self) -> int:
        return len(self.row_numbers)

    @cached_property
    def targets(self) -> np.ndarray:
        """The targets of the sequences' rows."""
        return self._rows.targets[self.row_numbers]

    def inputs(self, sequence: int) -> np.ndarray:
        """Return the tokens of one sequence."""
        start = self._starts[sequence]
        return self._rows.inputs(self.row_numbers[sequence])[start : start + self._n_tokens + 1]
