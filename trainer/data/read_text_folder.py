"""Rows of a folder of texts: one file a row, its class the folder's name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from cluster.errors import DataError
from trainer.data import source_folder, source_remote
from trainer.data.read_rows import BLOCK_ROWS, Reasons, to_block
from trainer.data.source_open import open_binary


def read(folder: str, columns: dict[str, str], loose: frozenset[str]) -> Iterator[pa.Table]:
    """Yield the rows in the order of their files' names, with a further column `path`.

    A folder has no columns of its own, so the names in `columns` do not matter. Raises `DataError` for a role other than
    text and label.
    """
    other = next((role for role in columns if role not in ("text", "label")), None)
    if other:
        raise DataError(
            f"{folder} is a folder of texts: it has a text and a label, but nothing for the {other}",
            "put the rows into a csv, jsonl or parquet file with such a column",
        )
    found = source_folder.texts(folder)
    for start in range(0, len(found), BLOCK_ROWS):
        files = found[start : start + BLOCK_ROWS]
        reasons: Reasons = {}
        texts = [_text(file.path, at, reasons) for at, file in enumerate(files)]
        cells: dict[str, list[Any]] = {"text": texts, "label": [file.label for file in files]}
        block = to_block(
            range(start + 1, start + len(files) + 1), {role: cells[role] for role in columns}, reasons, loose
        )
        yield block.append_column("path", pa.array([_shown(file.path) for file in files], pa.string()))


def _text(path: str, at: int, reasons: Reasons) -> str:
    with open_binary(path) as stream:
        raw = stream.read()
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
