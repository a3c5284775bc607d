"""Encoders: from cleaned raw values to model inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from cluster.errors import DataError

# The largest offset of an Arrow list column (int32).
_MAX_NUMBERS = 2**31 - 1

#: Raw values by role, all lists equally long: the form of requests and of rows to predict.
Columns = Mapping[str, Sequence[Any]]


class Encoded(NamedTuple):
    """Model inputs of some rows."""

    inputs: list[np.ndarray]
    """One 1-D array per row. The array of a row with a reason is not used."""
    reasons: list[str | None] | None = None
    """For each row, why it cannot be used, or None if it is good. None instead of the list if all rows are good."""
    unseen: Mapping[str, int] = MappingProxyType({})
    """Column -> good rows with a value that the model takes for "other" or "missing" and no training row had."""


class Encoder(ABC):
    """Turns cleaned raw values into model inputs. Training rows and requests use the same encoder."""

    # ---- Must be written -------------------------------------------------------------------------------------------

    @abstractmethod
    def __call__(self, columns: Columns) -> Encoded:
        """Return the model inputs of a few rows, such as those of a request."""

    # ---- May be overridden -----------------------------------------------------------------------------------------

    #: Arrow type of the numbers in an input.
    number_type: pa.DataType = pa.int32()

    def length(self, row: Sequence[Any]) -> int:
        """Return the length of one row's input before truncation; `row` has one value per role, in the roles' order.

        Called only if the task's `max_length` is not None.
        """
        raise NotImplementedError(f"{type(self).__name__} does not truncate inputs")

    def count_unseen(self, rows: pa.Table) -> dict[str, int]:
        """Return `Encoded.unseen` of a block of rows (one column per role)."""
        return {}

    def encode_request_block(self, rows: pa.Table) -> tuple[pa.ListArray, list[str | None] | None]:
        """Return what `encode_block` does, for rows to predict."""
        return self.encode_block(rows)

    def encode_block(self, rows: pa.Table) -> tuple[pa.ListArray, list[str | None] | None]:
        """Return the inputs of a block of rows (one column per role) as a list column, and reasons as in `Encoded`.

        Raises `DataError` if the inputs have more numbers than a list column can hold.
        """
        encoded = self({name: rows[name].to_pylist() for name in rows.column_names})
        inputs = encoded.inputs
        offsets = list_offsets(inputs)
        joined = np.concatenate(inputs) if inputs else np.empty(0)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(joined).cast(self.number_type)), encoded.reasons


def list_offsets(inputs: Sequence[Any]) -> np.ndarray:
    """Return the offset of each input in their concatenation, int32, shape (B + 1,). Raises `DataError` on overflow."""
    ends = np.cumsum([0, *map(len, inputs)], dtype=np.int64)
    if ends[-1] > _MAX_NUMBERS:
        raise DataError(
            f"the inputs of a block of {len(inputs):,} rows have {ends[-1]:,} numbers in total; "
            f"the limit is {_MAX_NUMBERS:,}",
            "make the inputs smaller; for images, set a smaller `data.image.size`",
        )
    return ends.astype(np.int32)
