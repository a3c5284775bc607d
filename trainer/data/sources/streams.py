"""A file of raw rows as a stream of bytes: local or remote, unpacked on the way."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa

from cluster.errors import DataError
from trainer.data.sources import remote as source_remote

#: Endings that are unpacked while reading.
COMPRESSIONS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd", ".lz4": "lz4"}
_BUFFER_BYTES = 1 << 20


@contextmanager
def open_binary(path: str) -> Iterator[io.BufferedReader]:
    """Yield the unpacked content of a local path or a remote address. Raises `OSError` and `DataError`.

    Reading on may raise what `damage` knows when the file is damaged.
    """
    remote = source_remote.is_remote(path)
    opened: Any = source_remote.open_stream(path) if remote else Path(path).open("rb")  # noqa: SIM115
    with opened as raw, io.BufferedReader(cast(Any, _unpacked(raw, ending_of(path))), _BUFFER_BYTES) as stream:
        yield stream


@contextmanager
def open_at_any_place(path: str) -> Iterator[pa.NativeFile]:
    """Yield a local or remote file that can be read from any place; a local one is mapped, not read."""
    with source_remote.open_file(path) if source_remote.is_remote(path) else pa.memory_map(path) as file:
        yield file


def ending_of(path: str) -> str:
    """Return the last ending of a path or address, in lower case."""
    return Path(source_remote.without_options(path)).suffix.lower()


def damage(path: str, error: BaseException) -> DataError | None:
    """Return the error to show when `error` came from unpacking `path`, else None."""
    kind = COMPRESSIONS.get(ending_of(path))
    broken = isinstance(error, (EOFError, zlib.error, lzma.LZMAError)) or (
        isinstance(error, OSError) and error.errno is None and "AWS Error" not in str(error)
    )
    if kind is None or not broken:
        return None
    first = (str(error).splitlines() or ["it ends too early"])[0]
    return DataError(f"{path} is no whole {kind} file: {first}", "pack or copy it again, or correct its ending")


def _unpacked(raw: IO[bytes], ending: str) -> Any:
    if ending == ".gz":
        return gzip.GzipFile(fileobj=raw)
    if ending == ".bz2":
        return bz2.BZ2File(raw)
    if ending == ".xz":
        return lzma.LZMAFile(raw)
    if ending in COMPRESSIONS:
        return _Raw(pa.CompressedInputStream(raw, COMPRESSIONS[ending]))
    return _Raw(raw)


class _Raw(io.RawIOBase):
    """What `io.BufferedReader` needs of a stream; pyarrow's streams lack some of it, and read one buffer at a time."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._stream.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)
