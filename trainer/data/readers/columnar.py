"""Rows of a parquet or Arrow file: columns that have a type already."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.errors import DataError
from trainer.data import arrow
from trainer.data.arrow import BINARY_BLOCK_ROWS
from trainer.data.readers import binary as binary_reader
from trainer.data.readers.blocks import (
    BLOCK_ROWS,
    BLOCK_SIZE,
    Reasons,
    accepts_list,
    check_columns,
    column_fix,
    finish_block,
    note_reason,
    role_phrase,
)

pass


_ARROW_FILE = b"ARROW1"


# Rows of a parquet file to decode at a time: few, as they may be long.
_AT_ONCE, _BINARY_AT_ONCE = 4096, 64


def read_parquet(
    source: pa.NativeFile,
    path: str,
    columns: dict[str, str],
    loose: frozenset[str],
    binary: frozenset[str],
    *,
    as_paths: bool = False,
) -> Iterator[pa.Table]:
    """Yield the rows of a parquet file. Raises `DataError` for a missing column or one of a wrong type.

    `as_paths`: of {bytes, path} the path where there are no bytes, and nothing is read from it.
    """
    with pq.ParquetFile(source) as file:
        schema = file.schema_arrow
        check_columns(columns, schema.names, path)
        names = list(dict.fromkeys(columns.values()))
        batches = file.iter_batches(batch_size=_BINARY_AT_ONCE if binary else _AT_ONCE, columns=names)
        yield from _blocks(batches, schema, path, columns, loose, binary, as_paths)


def read_arrow(
    source: pa.NativeFile,
    path: str,
    columns: dict[str, str],
    loose: frozenset[str],
    binary: frozenset[str],
    *,
    as_paths: bool = False,
) -> Iterator[pa.Table]:
    """Yield the rows of an Arrow file or stream, as `read_parquet` does."""
    start = source.read(len(_ARROW_FILE))
    source.seek(0)
    if start == _ARROW_FILE:
        with pa.ipc.open_file(source) as file:
            check_columns(columns, file.schema.names, path)
            batches = (file.get_batch(place) for place in range(file.num_record_batches))
            yield from _blocks(batches, file.schema, path, columns, loose, binary, as_paths)
    else:
        with pa.ipc.open_stream(source) as stream:
            check_columns(columns, stream.schema.names, path)
            yield from _blocks(stream, stream.schema, path, columns, loose, binary, as_paths)


def _blocks(
    batches: Any,
    schema: pa.Schema,
    path: str,
    columns: dict[str, str],
    loose: frozenset[str],
    binary: frozenset[str],
    as_paths: bool,
) -> Iterator[pa.Table]:
    names = class_names(schema.metadata)
    for role, column in columns.items():
        kind = schema.field(column).type
        if role in binary:
            binary_reader.check_binary_type(kind, role, column, path)
            continue
        if not _fits(kind, role, role in loose) and not (column in names and pa.types.is_integer(kind)):
            is_number = pa.types.is_floating(kind) or pa.types.is_decimal(kind)
            hint = (
                "; numbers are predicted by text-regression and tabular-regression"
                if is_number and role == "label"
                else ""
            )
            raise DataError(
                f"{path}: column '{column}'{role_phrase(role)} holds {kind}, not {'one value' if role in loose else 'text'}",
                f"name another column. {column_fix(role)}{hint}",
            )
    done = 0
    most = (
        BINARY_BLOCK_ROWS if any(arrow.holds_bytes(schema.field(columns[role]).type) for role in binary) else BLOCK_ROWS
    )
    for table in _of_one_size(batches, list(dict.fromkeys(columns.values())), most):
        reasons: Reasons = {}
        texts = {}
        for role, column in columns.items():
            values = table.column(column)
            if role in binary and arrow.holds_bytes(values.type):
                named = binary_reader.referenced_paths(values) if as_paths else None
                texts[role] = binary_reader.read_bytes_column(values, path, reasons) if named is None else named
                continue
            if column in names and pa.types.is_integer(values.type):
                values = _named(values, names[column], role, reasons)
            texts[role] = _as_text(values, reasons)
        yield finish_block(range(done + 1, done + len(table) + 1), texts, reasons, loose)
        done += len(table)


def _of_one_size(batches: Any, names: list[str], most_rows: int) -> Iterator[pa.Table]:
    """Cut anew: a file's own batches and row groups are of any size."""
    waiting: list[pa.Table] = []
    rows = size = 0  # of those that wait
    for batch in batches:
        table = pa.table({name: batch.column(name) for name in names})
        ends = np.cumsum(sum(_sizes(column) for column in batch.select(names).columns))
        start = 0
        while start < len(table):
            done = int(ends[start - 1]) if start else 0
            full = int(np.searchsorted(ends, done + BLOCK_SIZE - size)) + 1
            end = min(start + most_rows - rows, full)
            waiting.append(table.slice(start, end - start))
            if end > len(table):
                rows, size = rows + len(table) - start, size + int(ends[-1]) - done
                break
            yield pa.concat_tables(waiting)
            waiting, rows, size, start = [], 0, 0, end
    if waiting:
        yield pa.concat_tables(waiting)


def _sizes(values: pa.Array) -> np.ndarray:
    """Return how many bytes the text, or the bytes, of each row have; 0 for other values, which are small."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        values.validate()
        return np.append(_sizes(values.dictionary), 0)[pc.fill_null(values.indices, -1).to_numpy(zero_copy_only=False)]
    if pa.types.is_struct(kind) and arrow.holds_bytes(kind):
        return _sizes(pc.struct_field(values, arrow.BYTES))
    is_view = pa.types.is_string_view(kind) or pa.types.is_binary_view(kind)
    is_long = is_view or pa.types.is_string(kind) or pa.types.is_large_string(kind) or arrow.holds_bytes(kind)
    if not is_long:
        return np.zeros(len(values), np.int64)
    values.validate()  # that no length is read beyond its buffer
    if is_view:  # 16 bytes each, the length first; pyarrow has no function for it
        views = np.frombuffer(values.buffers()[1], np.int32).reshape(-1, 4)
        lengths = np.where(values.is_valid(), views[values.offset :][: len(values), 0], 0)
    else:
        lengths = pc.fill_null(pc.binary_length(values), 0).to_numpy()
    return np.maximum(lengths, 0, dtype=np.int64)  # a damaged file may have any


def _fits(kind: pa.DataType, role: str, loose: bool) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_kind = pa.types
    if (
        is_kind.is_string(kind)
        or is_kind.is_large_string(kind)
        or is_kind.is_string_view(kind)
        or is_kind.is_null(kind)
    ):
        return True
    if is_kind.is_integer(kind) or is_kind.is_boolean(kind):
        return loose or role == "label"
    if _is_list(kind):
        return accepts_list(role, loose)
    return loose and (
        is_kind.is_floating(kind)
        or is_kind.is_decimal(kind)
        or is_kind.is_date(kind)
        or is_kind.is_timestamp(kind)
        or is_kind.is_time(kind)
    )


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _as_text(values: pa.ChunkedArray, reasons: Reasons) -> pa.ChunkedArray:
    try:
        values.validate(full=True)  # other writers than Arrow may have put bytes there that are not UTF-8
    except pa.ArrowInvalid:
        return _readable(values, reasons)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_timestamp(values.type):
        return _iso(values)
    if _is_list(values.type):  # as JSON, which the rows of a jsonl file have too
        lists = [None if value is None else json.dumps(value, default=str) for value in values.to_pylist()]
        return pa.chunked_array([pa.array(lists, pa.string())])
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    return values.cast(pa.string())


def _iso(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """As 2026-03-01T12:00:00; with a time zone, in UTC and with a Z at the end."""
    if values.type.tz:
        values = values.cast(pa.timestamp(values.type.unit, "UTC"))
    texts = pc.replace_substring(values.cast(pa.string()), " ", "T", max_replacements=1)
    return pc.replace_substring_regex(texts, r"\.0+(Z?)$", r"\1")


def _readable(values: pa.ChunkedArray, reasons: Reasons) -> pa.ChunkedArray:
    """Note the rows whose bytes are no UTF-8. Raises `ArrowInvalid` if it is something else that is wrong."""
    chunks = []
    for chunk in values.chunks:
        if pa.types.is_dictionary(chunk.type):
            words = chunk.dictionary.cast(pa.binary())
            words.validate(full=True)
            chunk = pa.DictionaryArray.from_arrays(chunk.indices, words).dictionary_decode()
        chunk = chunk.cast(pa.binary())
        chunk.validate(full=True)
        chunks += chunk.to_pylist()
    texts = []
    for place, raw in enumerate(chunks):
        text = None if raw is None else raw.decode("utf-8", errors="replace")
        if text is not None and text.encode() != raw:
            reasons.setdefault(place, "invalid UTF-8")
        texts.append(text)
    return pa.chunked_array([pa.array(texts, pa.string())])


def _named(ids: pa.ChunkedArray, names: list[str], role: str, reasons: Reasons) -> pa.ChunkedArray:
    """Return the classes' names; by the convention of `datasets`, -1 is a row without a label."""
    ids = ids.cast(pa.int64())
    known = pc.and_(pc.greater_equal(ids, 0), pc.less(ids, len(names)))
    beyond = pc.indices_nonzero(pc.fill_null(pc.or_(pc.greater_equal(ids, len(names)), pc.less(ids, -1)), False))
    note_reason(reasons, beyond.to_pylist(), f"{role} is no known class")
    return pc.take(pa.array(names, pa.string()), pc.if_else(known, ids, pa.scalar(None, pa.int64())))


def class_names(metadata: dict[bytes, bytes] | None) -> dict[str, list[str]]:
    """Return the classes' names by column, from the metadata `datasets` puts into an Arrow schema."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
