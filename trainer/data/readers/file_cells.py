"""Rows with a value that is a file of its own: the bytes of the files that cells name."""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from cluster.errors import DataError
from cluster.files import file_sha256
from trainer.data.arrow import BINARY_BLOCK_ROWS
from trainer.data.readers.blocks import BLOCK_SIZE, MAX_VALUE_BYTES, TOO_LARGE
from trainer.data.sources import remote as source_remote
from trainer.data.sources.streams import open_binary

# A file of an object store takes some 30 ms to open, whatever its size.
_REMOTE_AT_ONCE = 16


class FileContent(NamedTuple):
    """What a file holds, or why it cannot be used."""

    raw: bytes | None
    reason: str | None = None


def resolve_cell(cell: str, file: str) -> str:
    """Return the path or address that a cell of `file` names; a relative one is relative to the file's folder."""
    if source_remote.is_remote(cell):
        return cell
    if not source_remote.is_remote(file):
        return str(Path(file).parent / cell)
    plain = source_remote.without_options(file)
    scheme, _, path = plain.partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(posixpath.dirname(path), cell))}{file.removeprefix(plain)}"


def read_file(path: str) -> FileContent:
    """Return the bytes of a local file or a remote one."""
    shown = f"'{source_remote.without_options(path)}'"
    try:
        if not source_remote.is_remote(path):
            kind = Path(path).stat().st_mode
            if not stat.S_ISREG(kind):  # a pipe would never end
                return FileContent(None, f"{shown} is {'a folder' if stat.S_ISDIR(kind) else 'no plain file'}")
        with open_binary(path) as stream:
            raw = stream.read(MAX_VALUE_BYTES + 1)
    except FileNotFoundError:
        return FileContent(None, f"no file {shown}")
    except DataError as error:
        return FileContent(None, f"{shown} cannot be read: {error.problem.rpartition(': ')[2]}")
    except (OSError, ValueError, EOFError) as error:
        return FileContent(None, f"{shown} cannot be read: {getattr(error, 'strerror', None) or type(error).__name__}")
    return FileContent(None, TOO_LARGE) if len(raw) > MAX_VALUE_BYTES else FileContent(raw)


def file_stamp(path: str) -> str:
    """Return what tells one content of a file from another: a local one's SHA-256; empty for what cannot be read."""
    try:
        if source_remote.is_remote(path):
            return source_remote.remote_stamp(path)
        return file_sha256(Path(path)) if Path(path).is_file() else ""
    except (OSError, DataError):
        return ""


def load_files(blocks: Iterable[pa.Table], file: str, binary: frozenset[str]) -> Iterator[pa.Table]:
    """Yield the blocks of `file` with what the files hold instead of the paths of a `binary` role, cut anew.

    A block ends with the row that brings it to `BLOCK_SIZE` bytes, or is its `BINARY_ROWS`th. Its further column `path`
    is where the bytes came from. Blocks that hold bytes already stay.
    """
    for block in blocks:
        role = next((role for role in binary if pa.types.is_string(block[role].type)), None)
        if role is None:
            yield block
            continue
        paths = [resolve_cell(cell, file) if cell else None for cell in block[role].to_pylist()]
        for start, read in _cut(paths, block["reason"].to_pylist()):
            part = block.slice(start, len(read))
            shown = [path and source_remote.without_options(path) for path in paths[start : start + len(read)]]
            for name, values in (
                (role, pa.array([each.raw for each in read], pa.large_binary())),
                ("reason", pa.array([each.reason for each in read], pa.string())),
            ):
                part = part.set_column(part.schema.get_field_index(name), name, values)
            yield part.append_column("path", pa.array(shown, pa.string()))


def _cut(paths: list[str | None], reasons: list[str | None]) -> Iterator[tuple[int, list[FileContent]]]:
    """Yield (place of the first row, contents) of each block."""
    start, size = 0, 0
    waiting: list[FileContent] = []
    for found in _contents(paths, reasons):
        waiting.append(found)
        size += len(found.raw or b"")
        if size >= BLOCK_SIZE or len(waiting) == BINARY_BLOCK_ROWS:
            yield start, waiting
            start, size, waiting = start + len(waiting), 0, []
    if waiting:
        yield start, waiting


def _contents(paths: list[str | None], reasons: list[str | None]) -> Iterator[FileContent]:
    """Yield what each row holds, in order; rows with a reason already are not looked at."""

    def one(row: tuple[str | None, str | None]) -> FileContent:
        path, reason = row
        if reason is not None:
            return FileContent(None, reason)
        return read_file(path) if path else FileContent(b"")  # an empty cell, as an empty file

    rows = iter(zip(paths, reasons, strict=True))
    if not any(path and source_remote.is_remote(path) for path in paths):
        yield from map(one, rows)
        return
    with ThreadPoolExecutor(_REMOTE_AT_ONCE) as pool:
        while some := list(islice(rows, 2 * _REMOTE_AT_ONCE)):
            yield from pool.map(one, some)
