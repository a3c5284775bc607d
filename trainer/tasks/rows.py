"""The view of prepared rows that a task's profile and report use."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class RowsView(Protocol):
    """The rows of one part (train, validation or test). `trainer.data.prepared.PreparedRows` implements it."""

    @property
    def targets(self) -> np.ndarray:
        """The encoded targets, shape (rows,) or (rows, C), as `Target.array` returns them."""

    @property
    def lengths(self) -> np.ndarray:
        """The number of values in each input, int32 of shape (rows,)."""

    def __len__(self) -> int: ...

    def inputs(self, row: int) -> np.ndarray:
        """Return the model input of one row, 1-D."""

    def matrix(self) -> np.ndarray:
        """Return all inputs, which must have equal lengths, as float32 of shape (rows, values)."""

    def raw(self, role: str, first: int | None = None) -> list[Any]:
        """Return the raw values of one role for all rows, or for the first `first` rows."""

    def char_lengths(self, role: str) -> np.ndarray:
        """Return the lengths of one role's raw values in characters, int64 of shape (rows,)."""
