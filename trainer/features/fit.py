"""Fit the columns and their profile in one pass of Ray Data over the training rows.

Each block is summarized where it is stored; the driver merges the summaries one at a time as they arrive. This is the
only module of the package that uses Ray.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from cluster.errors import DataError, user_error_in
from trainer.features.cells import TableLike
from trainer.features.fitted import FittedFeatures, fit_columns
from trainer.features.profile import FeaturesProfile, build_profile
from trainer.features.summary import (
    ColumnSummary,
    merge_summaries,
    summaries_from_arrow,
    summaries_to_arrow,
    summarize_rows,
)
from trainer.spec.features import FeatureSpec

if TYPE_CHECKING:
    import ray.data


class FitResult(NamedTuple):
    """The fitted columns and the profile of the rows they were fitted from."""

    fitted: FittedFeatures
    profile: FeaturesProfile


def fit_features(dataset: ray.data.Dataset, columns: Mapping[str, FeatureSpec]) -> FitResult:
    """Return fitted columns and profile of all rows of `dataset`. The order of rows and their blocks do not matter.

    Raises `DataError` for a missing column, for cells that cannot be used, and if there are no rows.
    """
    return fit_from_summary(columns, summarize_dataset(dataset, columns))


def fit_tables(tables: Iterable[TableLike], columns: Mapping[str, FeatureSpec]) -> FitResult:
    """Return the result of `fit_features` for rows in memory, without Ray."""
    return fit_from_summary(columns, _merge_all(summarize_rows(table, columns) for table in tables))


def fit_from_summary(columns: Mapping[str, FeatureSpec], summaries: Mapping[str, ColumnSummary]) -> FitResult:
    """Return fitted columns and profile from summaries of the columns."""
    return FitResult(fit_columns(columns, summaries), build_profile(columns, summaries))


def summarize_dataset(dataset: ray.data.Dataset, columns: Mapping[str, FeatureSpec]) -> dict[str, ColumnSummary]:
    """Return the summary of each column, in one pass."""
    import ray.exceptions

    known = dataset.schema(fetch_if_missing=False)
    if known is not None and set(columns) <= set(known.names):
        dataset = dataset.select_columns(list(columns))  # so only these columns of Parquet files are read
    parts = dataset.map_batches(_SummarizeBlock(columns), batch_size=None, batch_format="pyarrow", zero_copy_batch=True)
    try:
        return _merge_all(
            part
            for table in parts.iter_batches(batch_size=None, batch_format="pyarrow")
            for part in summaries_from_arrow(table)
        )
    except ray.exceptions.RayTaskError as error:
        raise user_error_in(error) or error from None


class _SummarizeBlock:
    """Turns a block of rows into its summary.

    A generator, because Ray Data loses the cause of an error raised by a plain function.
    """

    def __init__(self, columns: Mapping[str, FeatureSpec]) -> None:
        self.columns = dict(columns)

    def __call__(self, rows: pa.Table) -> Iterator[pa.Table]:
        if len(rows):
            yield summaries_to_arrow(summarize_rows(rows, self.columns))


def _merge_all(parts: Iterable[Mapping[str, ColumnSummary]]) -> dict[str, ColumnSummary]:
    total: dict[str, ColumnSummary] | None = None
    for part in parts:
        total = dict(part) if total is None else merge_summaries(total, part)
    if total is None:
        raise DataError("there are no rows to fit columns from", "give a file with rows in it")
    return total
