"""TODO docstring."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from cluster.files import storage_error


def write_ipc(table: pa.Table, path: Path) -> None:
    """Write an Arrow file that can be memory-mapped, as one record batch. Raises `ResourceError` where there is no room."""
    try:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
    except OSError as error:
        raise storage_error(path, error) from error


def read_ipc(path: Path) -> pa.Table:
    """Read an Arrow file into memory (not mapped: the pages would count as this process's)."""
    with pa.OSFile(str(path), "rb") as source:
        return pa.ipc.open_file(source).read_all()


BYTES, PATH = "bytes", "path"


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether a column of this type holds bytes."""
    if pa.types.is_struct(kind):
        place = kind.get_field_index(BYTES)
        return place >= 0 and holds_bytes(kind.field(place).type)
    is_kind = pa.types
    return bool(
        is_kind.is_binary(kind)
        or is_kind.is_large_binary(kind)
        or is_kind.is_binary_view(kind)
        or is_kind.is_fixed_size_binary(kind)
    )


#: Rows with bytes (images) are fewer a block: what is made of them is much larger than their files.
BINARY_BLOCK_ROWS = 256
