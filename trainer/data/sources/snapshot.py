"""Store rows from a database or the hub as an Arrow file whose name is a digest of its content."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from cluster.errors import DataError
from cluster.files import file_sha256, storage_error, sync_file


def write_snapshot(batches: Iterable[pa.RecordBatch], schema: pa.Schema, folder: Path, kind: str) -> Path:
    """Write `batches` to a file in `folder` and return the file; the same rows give the same file.

    Raises `ResourceError` if the folder cannot be written; errors that `batches` raises pass through.
    """
    beside = folder / f".{kind}.{uuid.uuid4().hex[:8]}"
    try:
        with _storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            sink = pa.OSFile(str(beside), "wb")
        with sink, pa.ipc.new_file(sink, schema) as writer:
            for batch in batches:
                with _storage_errors(folder):
                    writer.write_batch(batch)
        with _storage_errors(folder):
            sync_file(beside)
            final = folder / f"{kind}-{file_sha256(beside)[:32]}.arrow"
            beside.replace(final)  # another run may have written it: same name, same content
            sync_file(folder)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
    return final


def require_snapshot_folder(snapshots: Path | None, source: str) -> Path:
    """Return the folder of snapshots; raise `DataError` if there is none to store the rows of `source` in."""
    if snapshots is None:
        raise DataError(
            f"{source} can only be read for a run, which stores a copy of its rows", "save the rows to a file first"
        )
    return snapshots


@contextlib.contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    """Turn an `OSError` in the block into a `ResourceError` that names the folder."""
    try:
        yield
    except OSError as error:
        raise storage_error(folder, error) from error
