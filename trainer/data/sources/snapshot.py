"""Rows from elsewhere, kept as one Arrow file that is named by its content."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from cluster.errors import DataError
from cluster.files import no_room, sha256, sync_file


def write(batches: Iterable[pa.RecordBatch], schema: pa.Schema, folder: Path, kind: str) -> Path:
    """Write `batches` to `folder` and return the file; the same rows give the same file.

    Raises `ResourceError` if the folder cannot be written; what `batches` raises goes through.
    """
    beside = folder / f".{kind}.{uuid.uuid4().hex[:8]}"
    try:
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            sink = pa.OSFile(str(beside), "wb")
        with sink, pa.ipc.new_file(sink, schema) as writer:
            for batch in batches:
                with _writing(folder):
                    writer.write_batch(batch)
        with _writing(folder):
            sync_file(beside)
            final = folder / f"{kind}-{sha256(beside)[:32]}.arrow"
            beside.replace(final)  # another run may have written it: same name, same content
            sync_file(folder)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
    return final


def folder_for(snapshots: Path | None, what: str) -> Path:
    """Return the folder of snapshots; raises `DataError` where there is none to keep the rows of `what` in."""
    if snapshots is None:
        raise DataError(
            f"{what} can only be read for a run, which keeps a copy of its rows", "save the rows to a file first"
        )
    return snapshots


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise no_room(folder, error) from error
