"""Columns in the names of folders, as Hive, Spark and others write them: `label=x/part-0.parquet`."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote

#: The name that Hive writes for a missing value.
_MISSING = "__HIVE_DEFAULT_PARTITION__"


def read_partition(folders: Iterable[str]) -> dict[str, str | None]:
    """Return column -> value for the names of folders that are `COLUMN=VALUE`; {} if none is.

    Names and values are percent-encoded. A missing value is None.
    """
    partition: dict[str, str | None] = {}
    for name in folders:
        column, equals, value = name.partition("=")
        if column and equals:
            partition[unquote(column)] = None if value == _MISSING else unquote(value)
    return partition
