"""Read the rows of a folder of texts: each file is a row, and its subfolder names its class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from trainer.data.readers.blocks import BLOCK_ROWS, BLOCK_SIZE, Reasons, to_block
from trainer.data.readers.text_stream import decode_text
from trainer.data.sources.remote import without_options
from trainer.data.sources.row_folder import FolderItem, check_folder_roles, list_folder_items
from trainer.data.sources.streams import open_binary


def read_text_folder(
    folder: str, columns: dict[str, str], loose: frozenset[str], encoding: str | None = None
) -> Iterator[pa.Table]:
    """Yield the rows, sorted by path, with an extra column `path`.

    A folder has no columns of its own, so the names in `columns` do not matter. Raises `DataError` for a role other
    than text and label.
    """
    check_folder_roles(folder, columns, "text")
    n_rows = 0
    for files, contents in _cut_blocks(list_folder_items(folder, "text")):
        reasons: Reasons = {}
        texts = [_decode(content, index, reasons, encoding) for index, content in enumerate(contents)]
        cells: dict[str, list[Any]] = {"text": texts, "label": [file.label for file in files]}
        numbers = range(n_rows + 1, n_rows + len(files) + 1)
        block = to_block(numbers, {role: cells[role] for role in columns}, reasons, loose)
        yield block.append_column("path", pa.array([without_options(file.path) for file in files], pa.string()))
        n_rows += len(files)


def _cut_blocks(items: list[FolderItem]) -> Iterator[tuple[list[FolderItem], list[bytes]]]:
    """Yield the files of each block and their contents."""
    files: list[FolderItem] = []
    contents: list[bytes] = []
    size = 0
    for file in items:
        with open_binary(file.path) as stream:
            contents.append(stream.read())
        files.append(file)
        size += len(contents[-1])
        if size >= BLOCK_SIZE or len(files) == BLOCK_ROWS:
            yield files, contents
            files, contents, size = [], [], 0
    if files:
        yield files, contents


def _decode(content: bytes, index: int, reasons: Reasons, encoding: str | None) -> str:
    text, reason = decode_text(content, encoding)
    if reason or not text:
        reasons[index] = reason or "empty text"
    return text
