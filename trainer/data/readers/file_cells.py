"""Load the files that cells name, for columns that hold paths instead of values, for example paths of images."""

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
from trainer.data.sources.remote import is_remote, remote_stamp, without_options
from trainer.data.sources.streams import open_binary

# Number of remote files opened at the same time: an object store takes about 30 ms to open a file of any size.
_REMOTE_THREADS = 16


class FileContent(NamedTuple):
    """The bytes of a file, or the reason why it cannot be used."""

    raw: bytes | None
    reason: str | None = None


def resolve_cell(cell: str, file: str) -> str:
    """Return the path or address that a cell of `file` names; a relative one is relative to the file's folder."""
    if is_remote(cell):
        return cell
    if not is_remote(file):
        return str(Path(file).parent / cell)
    plain = without_options(file)
    scheme, _, path = plain.partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(posixpath.dirname(path), cell))}{file.removeprefix(plain)}"


def read_file(path: str) -> FileContent:
    """Return the bytes of a local or remote file."""
    shown = f"'{without_options(path)}'"
    try:
        if not is_remote(path):
            mode = Path(path).stat().st_mode
            if not stat.S_ISREG(mode):  # reading a pipe would never end
                return FileContent(None, f"{shown} is {'a folder' if stat.S_ISDIR(mode) else 'not a regular file'}")
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
    """Return a text that changes when the file's content changes; empty if the file cannot be read.

    It is the SHA-256 of a local file, and `remote_stamp` of a remote one.
    """
    try:
        if is_remote(path):
            return remote_stamp(path)
        return file_sha256(Path(path)) if Path(path).is_file() else ""
    except (OSError, DataError):
        return ""


def load_files(blocks: Iterable[pa.Table], file: str, binary: frozenset[str]) -> Iterator[pa.Table]:
    """Yield the blocks of `file`, with the paths of a `binary` role replaced by the content of the files.

    Blocks are cut again: a block ends with its `BINARY_BLOCK_ROWS`th row, or with the row that brings it to
    `BLOCK_SIZE` bytes. An extra column `path` holds the paths. Blocks that already hold bytes are yielded unchanged.
    """
    for block in blocks:
        role = next((role for role in binary if pa.types.is_string(block[role].type)), None)
        if role is None:
            yield block
            continue
        paths = [resolve_cell(cell, file) if cell else None for cell in block[role].to_pylist()]
        for start, contents in _cut_blocks(paths, block["reason"].to_pylist()):
            part = block.slice(start, len(contents))
            shown = [path and without_options(path) for path in paths[start : start + len(contents)]]
            for name, values in (
                (role, pa.array([content.raw for content in contents], pa.large_binary())),
                ("reason", pa.array([content.reason for content in contents], pa.string())),
            ):
                part = part.set_column(part.schema.get_field_index(name), name, values)
            yield part.append_column("path", pa.array(shown, pa.string()))


def _cut_blocks(paths: list[str | None], reasons: list[str | None]) -> Iterator[tuple[int, list[FileContent]]]:
    """Yield (index of the first row, contents) of each block."""
    start, size = 0, 0
    contents: list[FileContent] = []
    for content in _read_files(paths, reasons):
        contents.append(content)
        size += len(content.raw or b"")
        if size >= BLOCK_SIZE or len(contents) == BINARY_BLOCK_ROWS:
            yield start, contents
            start, size, contents = start + len(contents), 0, []
    if contents:
        yield start, contents


def _read_files(paths: list[str | None], reasons: list[str | None]) -> Iterator[FileContent]:
    """Yield the content of each row's file, in order. Files of rows that already have a reason are not read."""

    def read_row(row: tuple[str | None, str | None]) -> FileContent:
        path, reason = row
        if reason is not None:
            return FileContent(None, reason)
        return read_file(path) if path else FileContent(b"")  # an empty cell counts as an empty file

    rows = iter(zip(paths, reasons, strict=True))
    if not any(path and is_remote(path) for path in paths):
        yield from map(read_row, rows)
        return
    with ThreadPoolExecutor(_REMOTE_THREADS) as pool:
        while batch := list(islice(rows, 2 * _REMOTE_THREADS)):
            yield from pool.map(read_row, batch)
