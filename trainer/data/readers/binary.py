"""Columns of bytes in Parquet and Arrow files: plain bytes, or {bytes, path} structs.

The Hugging Face `datasets` library stores images as {bytes, path}.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError
from trainer.data.arrow import BYTES, PATH, holds_bytes
from trainer.data.readers.blocks import MAX_VALUE_BYTES, TOO_LARGE, Reasons, column_fix, note_reason
from trainer.data.readers.file_cells import read_file, resolve_cell


def check_binary_type(kind: pa.DataType, role: str, column: str, path: str) -> None:
    """Raise `DataError` for a column that holds neither bytes nor paths."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if not (is_text or pa.types.is_null(kind) or holds_bytes(kind)):
        raise DataError(
            f"{path}: column '{column}' for the {role} holds {kind}, neither bytes nor paths",
            f"name another column. {column_fix(role)}",
        )


def referenced_paths(values: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Return the path of each {bytes, path} value without bytes (string, null for others); None for plain bytes."""
    if not pa.types.is_struct(values.type) or values.type.get_field_index(PATH) < 0:
        return None
    paths = pc.struct_field(values, PATH).cast(pa.string())
    return pc.if_else(pc.is_null(pc.struct_field(values, BYTES)), paths, pa.scalar(None, pa.string()))


def read_bytes_column(values: pa.ChunkedArray, file: str, reasons: Reasons) -> pa.ChunkedArray:
    """Return the values as bytes (large_binary).

    A {bytes, path} value without bytes is read from its path, relative to the folder of `file`.
    """
    paths = referenced_paths(values)
    if pa.types.is_struct(values.type):
        values = pc.struct_field(values, BYTES)
    values.validate(full=True)
    raw = values.cast(pa.large_binary())
    if paths is not None and raw.null_count:
        contents = raw.to_pylist()
        for row, path in enumerate(paths.to_pylist()):
            if path is not None:
                contents[row], reason = read_file(resolve_cell(path, file))
                note_reason(reasons, [row] if reason else [], reason or "")
        raw = pa.chunked_array([pa.array(contents, pa.large_binary())])
    too_large = pc.fill_null(pc.greater(pc.binary_length(raw), MAX_VALUE_BYTES), False)
    note_reason(reasons, pc.indices_nonzero(too_large).to_pylist(), TOO_LARGE)
    return raw
