"""Rows of a folder of texts: one file a row, its class the folder's name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from trainer.data.readers.blocks import BLOCK_ROWS, BLOCK_SIZE, Reasons, to_block
from trainer.data.sources import remote as source_remote
from trainer.data.sources import row_folder as source_folder
from trainer.data.sources.streams import open_binary


def read_text_folder(folder: str, columns: dict[str, str], loose: frozenset[str]) -> Iterator[pa.Table]:
    """Yield the rows in the order of their files' names, with a further column `path`.

    A folder has no columns of its own, so the names in `columns` do not matter. Raises `DataError` for a role other than
    text and label.
    """
    source_folder.check_folder_roles(folder, columns, "text")
    done = 0
    for files, raws in _cut(source_folder.list_folder_items(folder, "text")):
        reasons: Reasons = {}
        texts = [_text(raw, at, reasons) for at, raw in enumerate(raws)]
        cells: dict[str, list[Any]] = {"text": texts, "label": [file.label for file in files]}
        numbers = range(done + 1, done + len(files) + 1)
        block = to_block(numbers, {role: cells[role] for role in columns}, reasons, loose)
        yield block.append_column("path", pa.array([_shown(file.path) for file in files], pa.string()))
        done += len(files)


def _cut(found: list[source_folder.FolderItem]) -> Iterator[tuple[list[source_folder.FolderItem], list[bytes]]]:
    """Yield the files of each block and what they hold."""
    files: list[source_folder.FolderItem] = []
    raws: list[bytes] = []
    size = 0
    for file in found:
        with open_binary(file.path) as stream:
            raws.append(stream.read())
        files.append(file)
        size += len(raws[-1])
        if size >= BLOCK_SIZE or len(files) == BLOCK_ROWS:
            yield files, raws
            files, raws, size = [], [], 0
    if files:
        yield files, raws


def _text(raw: bytes, at: int, reasons: Reasons) -> str:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        reasons[at] = "invalid UTF-8"
        return raw.decode("utf-8", errors="replace")
    if not text:
        reasons[at] = "empty text"
    return text


def _shown(path: str) -> str:
    return source_remote.without_options(path)
