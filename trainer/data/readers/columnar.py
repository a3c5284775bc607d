"""Read the rows of a Parquet or Arrow file, whose columns already have a type."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.errors import DataError
from trainer.data.arrow import BINARY_BLOCK_ROWS, BYTES, holds_bytes
from trainer.data.readers.binary import check_binary_type, read_bytes_column, referenced_paths
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
from trainer.data.readers.read_options import ReadOptions

#: The first bytes of an Arrow file; an Arrow stream has others.
ARROW_FILE = b"ARROW1"
# Rows of a Parquet file to decode at a time, without and with bytes: few, because rows may be long.
_BATCH_ROWS, _BINARY_BATCH_ROWS = 4096, 64


def read_parquet(
    source: pa.NativeFile,
    path: str,
    columns: dict[str, str],
    loose: frozenset[str],
    binary: frozenset[str],
    *,
    as_paths: bool = False,
) -> Iterator[pa.Table]:
    """Yield the rows of a Parquet file. Raises `DataError` for a missing column or a column of a wrong type.

    With `as_paths`, a {bytes, path} value without bytes is yielded as its path, and the file at the path is not read.
    """
    with pq.ParquetFile(source) as file:
        schema = file.schema_arrow
        check_columns(columns, schema.names, path)
        names = list(dict.fromkeys(columns.values()))
        batches = file.iter_batches(batch_size=_BINARY_BATCH_ROWS if binary else _BATCH_ROWS, columns=names)
        yield from _read_batches(batches, schema, path, ReadOptions(columns, loose, binary), as_paths)


def read_arrow(
    source: pa.NativeFile,
    path: str,
    columns: dict[str, str],
    loose: frozenset[str],
    binary: frozenset[str],
    *,
    as_paths: bool = False,
) -> Iterator[pa.Table]:
    """Yield the rows of an Arrow file or stream; see `read_parquet`."""
    start = source.read(len(ARROW_FILE))
    source.seek(0)
    options = ReadOptions(columns, loose, binary)
    if start == ARROW_FILE:
        with pa.ipc.open_file(source) as file:
            check_columns(columns, file.schema.names, path)
            batches = (file.get_batch(index) for index in range(file.num_record_batches))
            yield from _read_batches(batches, file.schema, path, options, as_paths)
    else:
        with pa.ipc.open_stream(source) as stream:
            check_columns(columns, stream.schema.names, path)
            yield from _read_batches(stream, stream.schema, path, options, as_paths)


def _read_batches(
    batches: Any, schema: pa.Schema, path: str, options: ReadOptions, as_paths: bool
) -> Iterator[pa.Table]:
    """Yield the rows of record batches in blocks."""
    names_by_column = class_names(schema.metadata)
    _check_types(schema, path, options, names_by_column)
    has_bytes = any(holds_bytes(schema.field(options.columns[role]).type) for role in options.binary)
    max_rows = BINARY_BLOCK_ROWS if has_bytes else BLOCK_ROWS
    n_rows = 0
    for table in _cut_blocks(batches, list(dict.fromkeys(options.columns.values())), max_rows):
        reasons: Reasons = {}
        values_by_role = {}
        for role, column in options.columns.items():
            values = table.column(column)
            if role in options.binary and holds_bytes(values.type):
                paths = referenced_paths(values) if as_paths else None
                values_by_role[role] = read_bytes_column(values, path, reasons) if paths is None else paths
                continue
            if column in names_by_column and pa.types.is_integer(values.type):
                values = _name_classes(values, names_by_column[column], role, reasons)
            values_by_role[role] = _to_text(values, reasons)
        yield finish_block(range(n_rows + 1, n_rows + len(table) + 1), values_by_role, reasons, options.loose)
        n_rows += len(table)


def _check_types(schema: pa.Schema, path: str, options: ReadOptions, names_by_column: dict[str, list[str]]) -> None:
    """Raise `DataError` for a column whose type does not fit its role."""
    for role, column in options.columns.items():
        kind = schema.field(column).type
        is_loose = role in options.loose
        if role in options.binary:
            check_binary_type(kind, role, column, path)
        elif not _fits(kind, role, is_loose) and not (column in names_by_column and pa.types.is_integer(kind)):
            is_number = pa.types.is_floating(kind) or pa.types.is_decimal(kind)
            hint = "; to predict numbers, set `task: text-regression` or `task: tabular-regression`"
            raise DataError(
                f"{path}: column '{column}'{role_phrase(role)} holds {kind}, not {'one value' if is_loose else 'text'}",
                f"name another column. {column_fix(role)}{hint if is_number and role == 'label' else ''}",
            )


def _cut_blocks(batches: Any, names: list[str], max_rows: int) -> Iterator[pa.Table]:
    """Yield the rows in blocks. Only the rows decide where a block ends, not the file's batches and row groups."""
    waiting: list[pa.Table] = []
    rows = size = 0  # of the waiting tables
    for batch in batches:
        table = pa.table({name: batch.column(name) for name in names})
        ends = np.cumsum(sum(_value_sizes(column) for column in batch.select(names).columns))
        start = 0
        while start < len(table):
            size_before = int(ends[start - 1]) if start else 0
            full = int(np.searchsorted(ends, size_before + BLOCK_SIZE - size)) + 1
            end = min(start + max_rows - rows, full)
            waiting.append(table.slice(start, end - start))
            if end > len(table):
                rows, size = rows + len(table) - start, size + int(ends[-1]) - size_before
                break
            yield pa.concat_tables(waiting)
            waiting, rows, size, start = [], 0, 0, end
    if waiting:
        yield pa.concat_tables(waiting)


def _value_sizes(values: pa.Array) -> np.ndarray:
    """Return the size in bytes of each text or binary value, int64; 0 for other values, which are small."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        values.validate()
        indices = pc.fill_null(values.indices, -1).to_numpy(zero_copy_only=False)
        return np.append(_value_sizes(values.dictionary), 0)[indices]
    if pa.types.is_struct(kind) and holds_bytes(kind):
        return _value_sizes(pc.struct_field(values, BYTES))
    is_view = pa.types.is_string_view(kind) or pa.types.is_binary_view(kind)
    if not (is_view or pa.types.is_string(kind) or pa.types.is_large_string(kind) or holds_bytes(kind)):
        return np.zeros(len(values), np.int64)
    values.validate()  # so that no length is read beyond its buffer
    if is_view:  # pyarrow has no length function for views: a view has 16 bytes, the first 4 of them its length
        views = np.frombuffer(values.buffers()[1], np.int32).reshape(-1, 4)
        lengths = np.where(values.is_valid(), views[values.offset :][: len(values), 0], 0)
    else:
        lengths = pc.fill_null(pc.binary_length(values), 0).to_numpy()
    return np.maximum(lengths, 0, dtype=np.int64)  # lengths in a damaged file may be negative


def _fits(kind: pa.DataType, role: str, loose: bool) -> bool:
    """Whether a column of this type holds values for the role."""
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind):
        return True
    if types.is_integer(kind) or types.is_boolean(kind):
        return loose or role == "label"
    if _is_list(kind):
        return accepts_list(role, loose)
    return loose and (
        types.is_floating(kind)
        or types.is_decimal(kind)
        or types.is_date(kind)
        or types.is_timestamp(kind)
        or types.is_time(kind)
    )


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _to_text(values: pa.ChunkedArray, reasons: Reasons) -> pa.ChunkedArray:
    """Return the values as text, in the spelling that the readers of other formats give."""
    try:
        values.validate(full=True)  # writers other than Arrow may store bytes that are not UTF-8
    except pa.ArrowInvalid:
        return _replace_bad_utf8(values, reasons)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_timestamp(values.type):
        return _to_iso_time(values)
    if _is_list(values.type):  # as JSON, like the lists of a jsonl file
        lists = [None if value is None else json.dumps(value, default=str) for value in values.to_pylist()]
        return pa.chunked_array([pa.array(lists, pa.string())])
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    return values.cast(pa.string())


def _to_iso_time(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return times as 2026-03-01T12:00:00; with a time zone, in UTC and with a Z at the end."""
    if values.type.tz:
        values = values.cast(pa.timestamp(values.type.unit, "UTC"))
    texts = pc.replace_substring(values.cast(pa.string()), " ", "T", max_replacements=1)
    return pc.replace_substring_regex(texts, r"\.0+(Z?)$", r"\1")


def _replace_bad_utf8(values: pa.ChunkedArray, reasons: Reasons) -> pa.ChunkedArray:
    """Return the texts with bad bytes replaced, and note a reason for their rows.

    Raises `ArrowInvalid` if the column is damaged in another way.
    """
    raw_values = []
    for chunk in values.chunks:
        if pa.types.is_dictionary(chunk.type):
            words = chunk.dictionary.cast(pa.binary())
            words.validate(full=True)
            chunk = pa.DictionaryArray.from_arrays(chunk.indices, words).dictionary_decode()
        chunk = chunk.cast(pa.binary())
        chunk.validate(full=True)
        raw_values += chunk.to_pylist()
    texts = []
    for row, raw in enumerate(raw_values):
        text = None if raw is None else raw.decode("utf-8", errors="replace")
        if text is not None and text.encode() != raw:
            reasons.setdefault(row, "invalid UTF-8")
        texts.append(text)
    return pa.chunked_array([pa.array(texts, pa.string())])


def _name_classes(ids: pa.ChunkedArray, names: list[str], role: str, reasons: Reasons) -> pa.ChunkedArray:
    """Return the class name of each id. The Hugging Face `datasets` library marks a row without a label by -1."""
    ids = ids.cast(pa.int64())
    is_known = pc.and_(pc.greater_equal(ids, 0), pc.less(ids, len(names)))
    is_unknown = pc.fill_null(pc.or_(pc.greater_equal(ids, len(names)), pc.less(ids, -1)), False)
    note_reason(reasons, pc.indices_nonzero(is_unknown).to_pylist(), f"{role} is not a known class")
    return pc.take(pa.array(names, pa.string()), pc.if_else(is_known, ids, pa.scalar(None, pa.int64())))


def class_names(metadata: dict[bytes, bytes] | None) -> dict[str, list[str]]:
    """Return the class names of each column, from the metadata that Hugging Face `datasets` writes into a schema."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
