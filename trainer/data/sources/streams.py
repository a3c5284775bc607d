"""Open a file of raw rows, local or remote, as a stream of decompressed bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa

from cluster.errors import DataError
from trainer.data.sources.remote import is_remote, open_remote_file, open_remote_stream, without_options

#: File extension -> compression. Files with these extensions are decompressed while they are read.
COMPRESSIONS = {
    ".gz": "gzip", ".gzip": "gzip", ".bgz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd", ".zstd": "zstd",
    ".lz4": "lz4", ".zip": "zip",
}  # fmt: skip
_BUFFER_BYTES = 1 << 20


@contextmanager
def open_binary(path: str) -> Iterator[io.BufferedReader]:
    """Yield the decompressed content of a local path or a remote address. Raises `OSError` and `DataError`.

    If the file is damaged, reading from the stream raises an error that `damage_error` explains.
    """
    ending = path_ending(path)
    open_remote = open_remote_file if ending == ".zip" else open_remote_stream  # the list of files is at the end
    opened: Any = open_remote(path) if is_remote(path) else Path(path).open("rb")  # noqa: SIM115
    with opened as raw, io.BufferedReader(cast(Any, _decompress(raw, ending, path)), _BUFFER_BYTES) as stream:
        yield stream


def zip_member(path: str) -> str:
    """Return the name of the one file in a zip archive. Raises `DataError` if it holds none, or several."""
    opened: Any = open_remote_file(path) if is_remote(path) else Path(path).open("rb")  # noqa: SIM115
    with opened as raw, _open_zip(raw, path) as archive:
        return _only_member(archive, path)


@contextmanager
def open_random_access(path: str) -> Iterator[pa.NativeFile]:
    """Yield a local or remote file that can be read from any offset; a local file is memory-mapped."""
    with open_remote_file(path) if is_remote(path) else pa.memory_map(path) as file:
        yield file


def path_ending(path: str) -> str:
    """Return the last file extension of a path or address in lower case, for example ".gz"."""
    return Path(without_options(path)).suffix.lower()


def damage_error(path: str, error: BaseException) -> DataError | None:
    """Return the error to show if `error` came from decompressing `path`, else None."""
    compression = COMPRESSIONS.get(path_ending(path))
    is_damage = isinstance(error, (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)) or (
        isinstance(error, OSError) and error.errno is None and "AWS Error" not in str(error)
    )
    if compression is None or not is_damage:
        return None
    lines = str(error).splitlines() or ["it ends too early"]
    return DataError(
        f"{path} is not a complete {compression} file: {lines[0]}",
        "compress or copy the file again, or give it the extension of its real format",
    )


def _decompress(raw: IO[bytes], ending: str, path: str) -> Any:
    if ending == ".zip":
        archive = _open_zip(raw, path)
        try:
            return archive.open(_only_member(archive, path))
        except (RuntimeError, NotImplementedError) as error:  # a password, or a method that Python lacks
            raise DataError(f"{path} cannot be unpacked: {error}", "unpack it, and name the file in it") from error
    if COMPRESSIONS.get(ending) == "gzip":
        return gzip.GzipFile(fileobj=raw)
    if ending == ".bz2":
        return bz2.BZ2File(raw)
    if ending == ".xz":
        return lzma.LZMAFile(raw)
    if ending in COMPRESSIONS:
        return _RawStream(pa.CompressedInputStream(raw, COMPRESSIONS[ending]))
    return _RawStream(raw)


def _open_zip(raw: Any, path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(raw)
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is not a complete zip file: {error}", "compress or copy the file again") from error


def _only_member(archive: zipfile.ZipFile, path: str) -> str:
    """Return the name of the one file in an archive; those that macOS adds do not count."""
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    names = [name for name in names if not name.rpartition("/")[2].startswith(".")]
    if len(names) != 1:
        shown = f": {', '.join(names[:3])}" if names else ""
        raise DataError(
            f"{path} is an archive of {len(names)} files{shown}", "unpack it, and name the files in it, or their folder"
        )
    return names[0]


class _RawStream(io.RawIOBase):
    """A raw stream for `io.BufferedReader`, which needs methods that pyarrow's streams lack."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._stream.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)
