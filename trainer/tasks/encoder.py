"""TODO docstring."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from cluster.errors import DataError

# What the offsets of an Arrow list column, int32, can say.
_MOST_NUMBERS = 2**31 - 1


#: Raw values by role, all lists equally long: how requests and rows to be scored travel.
Columns = Mapping[str, Sequence[Any]]


class Encoded(NamedTuple):
    """Model inputs of some rows."""

    inputs: list[np.ndarray]
    """One 1-D array for each row; it means nothing where there is a reason."""
    reasons: list[str | None] | None = None
    """For each row why it cannot be used, or None; None altogether where all can."""


class Encoder(ABC):
    """Cleaned raw values to model inputs: the same function for training rows and requests."""

    #: Arrow type of one number of an input.
    number: pa.DataType = pa.int32()

    @abstractmethod
    def __call__(self, columns: Columns) -> Encoded:
        """Return the model inputs of a few rows, as a request has them."""

    def length(self, row: Sequence[Any]) -> int:
        """Return how many numbers the input of a row (its values by role, in order) has before it is cut."""
        raise NotImplementedError(f"{type(self).__name__} cuts nothing")

    def block(self, rows: pa.Table) -> tuple[pa.ListArray, list[str | None] | None]:
        """Return the same for a whole block of rows (a column for each role), as a list column, and the reasons.

        Raises `DataError` for inputs of more numbers than a list column can hold.
        """
        found = self({name: rows[name].to_pylist() for name in rows.column_names})
        inputs = found.inputs
        offsets = offsets_of(inputs)
        joined = np.concatenate(inputs) if inputs else np.empty(0)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(joined).cast(self.number)), found.reasons


def offsets_of(inputs: Sequence[Any]) -> np.ndarray:
    """Return where each input begins in all of them joined, int32, shape (B + 1,). Raises `DataError` beyond int32."""
    ends = np.cumsum([0, *map(len, inputs)], dtype=np.int64)
    if ends[-1] > _MOST_NUMBERS:
        raise DataError(
            f"the inputs of {len(inputs):,} rows that are made at a time have {ends[-1]:,} numbers, over {_MOST_NUMBERS:,}",
            "make the inputs smaller: of images by a smaller data.image.size",
        )
    return ends.astype(np.int32)
