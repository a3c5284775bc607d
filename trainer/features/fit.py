"""One pass of Ray Data over the training rows to fitted columns and their profile: the only place here that knows Ray.

Each block becomes a small summary where it lies; the driver merges summaries as they come, one at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from cluster.errors import DataError, user_error_in
from trainer.features import fitted, profile, summary
from trainer.features.cells import Rows
from trainer.features.fitted import Fitted
from trainer.features.profile import Profile
from trainer.features.summary import Summary
from trainer.spec.features import AnyColumn

if TYPE_CHECKING:
    import ray.data


class Fit(NamedTuple):
    """What one pass gives."""

    fitted: Fitted
    profile: Profile


def fit(dataset: ray.data.Dataset, columns: Mapping[str, AnyColumn]) -> Fit:
    """Return fitted columns and profile of all rows of `dataset`: the same for any order of rows and cut into blocks.

    Raises `DataError` for a missing column, for cells that cannot be used and for no rows at all.
    """
    return from_summary(columns, summarise(dataset, columns))


def fit_tables(tables: Iterable[Rows], columns: Mapping[str, AnyColumn]) -> Fit:
    """Return the same as `fit` for rows that are at hand, without Ray."""
    return from_summary(columns, _merged(summary.of(table, columns) for table in tables))


def from_summary(columns: Mapping[str, AnyColumn], found: Mapping[str, Summary]) -> Fit:
    """Return what was fitted from a summary, however it was made."""
    return Fit(fitted.from_summary(columns, found), profile.from_summary(columns, found))


def summarise(dataset: ray.data.Dataset, columns: Mapping[str, AnyColumn]) -> dict[str, Summary]:
    """Return the summary of each column, in one pass."""
    import ray.exceptions

    known = dataset.schema(fetch_if_missing=False)
    if known is not None and set(columns) <= set(known.names):
        dataset = dataset.select_columns(list(columns))  # Parquet files are then read for these columns only
    parts = dataset.map_batches(_SummariseBlock(columns), batch_size=None, batch_format="pyarrow", zero_copy_batch=True)
    try:
        return _merged(
            part
            for table in parts.iter_batches(batch_size=None, batch_format="pyarrow")
            for part in summary.from_arrow(table)
        )
    except ray.exceptions.RayTaskError as error:
        raise user_error_in(error) or error from None


class _SummariseBlock:
    """A block of rows to its summary. A generator: Ray Data wraps what a plain call raises and loses the cause."""

    def __init__(self, columns: Mapping[str, AnyColumn]) -> None:
        self.columns = dict(columns)

    def __call__(self, rows: pa.Table) -> Iterator[pa.Table]:
        if len(rows):
            yield summary.to_arrow(summary.of(rows, self.columns))


def _merged(parts: Iterable[Mapping[str, Summary]]) -> dict[str, Summary]:
    whole: dict[str, Summary] | None = None
    for part in parts:
        whole = dict(part) if whole is None else summary.merge(whole, part)
    if whole is None:
        raise DataError("there are no rows to fit columns from", "give a file with rows in it")
    return whole
