"""Read the rows of a Parquet or Arrow file, whose columns already have a type."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

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
    nested_text,
    not_one_value,
    note_reason,
    role_phrase,
    takes_any_type,
)
from trainer.data.readers.read_options import ReadOptions
from trainer.values.columns import one_array, spell_column
from trainer.values.spelling import NOT_UTF8

#: The first bytes of an Arrow file; an Arrow stream has others.
ARROW_FILE = b"ARROW1"
# Rows of a Parquet file to decode at a time, without and with bytes: few, because rows may be long.
_BATCH_ROWS, _BINARY_BATCH_ROWS = 4096, 64


def read_parquet(
    source: pa.NativeFile, path: str, options: ReadOptions, *, as_paths: bool = False
) -> Iterator[pa.Table]:
    """Yield the rows of a Parquet file. Raises `DataError` for a missing column or a column of a wrong type.

    With `as_paths`, a {bytes, path} value without bytes is yielded as its path, and the file at the path is not read.
    """
    with pq.ParquetFile(source) as file:
        schema = file.schema_arrow
        check_columns(options.columns, schema.names, path)
        names = list(dict.fromkeys(options.columns.values()))
        batches = file.iter_batches(batch_size=_BINARY_BATCH_ROWS if options.binary else _BATCH_ROWS, columns=names)
        yield from _read_batches(batches, schema, path, options, as_paths)


def read_arrow(source: pa.NativeFile, path: str, options: ReadOptions, *, as_paths: bool = False) -> Iterator[pa.Table]:
    """Yield the rows of an Arrow file or stream; see `read_parquet`."""
    start = source.read(len(ARROW_FILE))
    source.seek(0)
    if start == ARROW_FILE:
        with pa.ipc.open_file(source) as file:
            check_columns(options.columns, file.schema.names, path)
            batches = (file.get_batch(index) for index in range(file.num_record_batches))
            yield from _read_batches(batches, file.schema, path, options, as_paths)
    else:
        with pa.ipc.open_stream(source) as stream:
            check_columns(options.columns, stream.schema.names, path)
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
            if role in options.nested and pa.types.is_nested(values.type):
                texts = [nested_text(value) for value in values.to_pylist()]
                values_by_role[role] = pa.chunked_array([pa.array(texts, pa.string())])
                continue
            names = names_by_column.get(column, [])
            cells = _Cells(role, role in options.loose, names, options.decimal_signs.get(role, "."))
            values_by_role[role] = _to_text(values, cells, reasons)
        yield finish_block(range(n_rows + 1, n_rows + len(table) + 1), values_by_role, reasons, options.loose)
        n_rows += len(table)


def _check_types(schema: pa.Schema, path: str, options: ReadOptions, names_by_column: dict[str, list[str]]) -> None:
    """Raise `DataError` for a column whose type does not fit its role."""
    for role, column in options.columns.items():
        kind = schema.field(column).type
        is_loose = role in options.loose
        if role in options.binary:
            check_binary_type(kind, role, column, path)
        elif role in options.nested and pa.types.is_nested(kind):
            continue
        elif not _fits(kind, role, is_loose):
            needed = "one value" if takes_any_type(role, is_loose) else "text"
            raise DataError(
                f"{path}: column '{column}'{role_phrase(role)} holds {kind}, not {needed}",
                f"name another column. {column_fix(role)}",
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
    if pa.types.is_struct(kind):
        fields = [_value_sizes(field) for field in values.flatten()]
        return sum(fields, start=np.zeros(len(values), np.int64))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _list_sizes(values)
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


def _list_sizes(values: pa.Array) -> np.ndarray:
    """Return the size in bytes of the items of each list, int64."""
    sizes = _value_sizes(pc.list_flatten(values))
    ends: np.ndarray = np.concatenate([[0], np.cumsum(sizes)])
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy()
    last = np.cumsum(lengths)
    list_sizes: np.ndarray = ends.take(last) - ends.take(last - lengths)
    return list_sizes


def _fits(kind: pa.DataType, role: str, loose: bool) -> bool:
    """Whether a column of this type holds values for the role."""
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if isinstance(kind, pa.ExtensionType):
        kind = kind.storage_type
    if _is_list(kind):
        return accepts_list(role, loose)
    if types.is_nested(kind) or types.is_duration(kind) or types.is_interval(kind):
        return False
    is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return is_text or holds_bytes(kind) or types.is_null(kind) or takes_any_type(role, loose)


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    is_view = types.is_list_view(kind) or types.is_large_list_view(kind)
    return is_view or types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


class _Cells(NamedTuple):
    """What is known about the cells of a column."""

    role: str
    is_loose: bool
    class_names: list[str]
    """Names of the classes whose numbers the column holds; empty if it holds other values."""
    decimal_sign: str
    """Sign that numbers with decimals get."""


def _to_text(values: pa.ChunkedArray, cells: _Cells, reasons: Reasons) -> pa.ChunkedArray:
    """Return the values as text, in the spelling that the readers of other formats give."""
    try:
        values.validate(full=True)  # writers other than Arrow may store bytes that are not UTF-8
    except pa.ArrowInvalid:
        return _replace_bad_utf8(values, reasons)
    kind = values.type
    if pa.types.is_dictionary(kind) and _is_list(kind.value_type):
        values = values.cast(kind.value_type)
    if _is_list(values.type):
        return _lists_to_text(values, cells, reasons)
    if cells.class_names and pa.types.is_integer(kind):
        values = _name_classes(values, cells.class_names, cells.role, reasons)
    spelled = spell_column(values, cells.decimal_sign)
    for row, other in spelled.not_texts.items():
        is_bytes = other == NOT_UTF8
        reasons.setdefault(row, "invalid UTF-8" if is_bytes else not_one_value(cells.role, cells.is_loose, other))
    return pa.chunked_array([spelled.texts])


def _lists_to_text(values: pa.ChunkedArray, cells: _Cells, reasons: Reasons) -> pa.ChunkedArray:
    """Return lists as JSON, like the lists of a jsonl file."""
    lists = one_array(values)
    row_of_item = pc.list_parent_indices(lists).to_pylist()
    items = pa.chunked_array([pc.list_flatten(lists)])
    item_reasons: Reasons = {}
    single = cells._replace(is_loose=True)
    texts = _to_text(items, single, item_reasons) if not pa.types.is_nested(items.type) else items
    if pa.types.is_nested(items.type):
        item_reasons = dict.fromkeys(range(len(items)), not_one_value(cells.role, cells.is_loose, "nested lists"))
    by_row: list[list[Any] | None] = [[] if is_list else None for is_list in lists.is_valid().to_pylist()]
    for row, text in zip(row_of_item, texts.to_pylist(), strict=True):
        cell = by_row[row]
        if cell is not None:
            cell.append(text)
    for item, reason in item_reasons.items():
        reasons.setdefault(row_of_item[item], reason)
    written = [None if cell is None else json.dumps(cell, ensure_ascii=False, default=str) for cell in by_row]
    return pa.chunked_array([pa.array(written, pa.string())])


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
    """Return the class names of each column, from the metadata that Hugging Face `datasets` writes into a schema.

    A column holds classes by their numbers, or lists of them.
    """
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        named = {column: _label_feature(feature) for column, feature in features.items()}
        return {column: [str(name) for name in feature["names"]] for column, feature in named.items() if feature}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _label_feature(feature: Any) -> dict[str, Any]:
    """Return the description of the classes that a column holds, or {}."""
    if isinstance(feature, list) and len(feature) == 1:  # a list, as older releases describe it
        return _label_feature(feature[0])
    if not isinstance(feature, dict):
        return {}
    if feature.get("_type") in ("Sequence", "List", "LargeList"):
        return _label_feature(feature.get("feature"))
    return feature if feature.get("_type") == "ClassLabel" and feature.get("names") else {}
