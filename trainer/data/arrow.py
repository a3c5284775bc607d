"""Read and write Arrow files, and check whether a column holds bytes."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from cluster.files import storage_error

#: Fields of the struct {bytes, path}, in which the Hugging Face `datasets` library stores images.
BYTES, PATH = "bytes", "path"
#: Maximum number of rows in a block with bytes (images). Fewer than for text: decoded images are much larger than
#: their files.
BINARY_BLOCK_ROWS = 256


def write_ipc(table: pa.Table, path: Path) -> None:
    """Write an Arrow file of one record batch, to be memory-mapped. Raises `ResourceError` if the disk is full."""
    try:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
    except OSError as error:
        raise storage_error(path, error) from error


def read_ipc(path: Path) -> pa.Table:
    """Read an Arrow file into memory. It is not memory-mapped: its pages would count as this process's memory."""
    with pa.OSFile(str(path), "rb") as source:
        return pa.ipc.open_file(source).read_all()


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether a column of this type holds bytes: plain, or in a {bytes, path} struct."""
    if pa.types.is_struct(kind):
        field = kind.get_field_index(BYTES)
        return field >= 0 and holds_bytes(kind.field(field).type)
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )
