"""Read the rows of a file with one JSON object per line, or with one array of objects.

A row's number is its line number, or that of the item in the array.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from trainer.data.readers.blocks import BLOCK_ROWS, BLOCK_SIZE, SHOWN_CHARS, Reasons, check_columns, to_block
from trainer.data.readers.json_items import json_items
from trainer.data.readers.read_options import ReadOptions
from trainer.data.readers.text_stream import TextStream

_SPACES = " \t\r\n"


class _DuplicateKeys(dict[str, Any]):
    """A JSON object that holds a key twice, so that the value of the key is ambiguous."""


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    return unique if len(unique) == len(pairs) else _DuplicateKeys(unique)


_decode = json.JSONDecoder(object_pairs_hook=_make_object).raw_decode


def read_jsonl(text: TextStream, path: str, options: ReadOptions) -> Iterator[pa.Table]:
    """Yield the rows. Raises `DataError` for a column that no row of the first block has."""
    columns, loose = options.columns, options.loose
    columns_seen = False
    keys: dict[str, None] = {}
    for lines in _cut_blocks(json_items(text, path)):
        reasons: Reasons = {}
        objects = [parse_row(line, index, columns, reasons) for index, (_, line) in enumerate(lines)]
        if not columns_seen:
            usable = [row for index, row in enumerate(objects) if index not in reasons]
            columns_seen = any(all(column in row for column in columns.values()) for row in usable)
            if not columns_seen:
                keys.update(dict.fromkeys(key for row in usable for key in row))
                if keys:
                    check_columns(columns, list(keys), path)
        cells = {role: [row.get(column) for row in objects] for role, column in columns.items()}
        numbers = [number for number, _ in lines]
        yield to_block(numbers, cells, reasons, loose, options.decimal_signs, options.nested)


def _cut_blocks(items: Iterator[bytes]) -> Iterator[list[tuple[int, bytes]]]:
    """Yield the lines of each block with their line numbers; empty lines are skipped."""
    block: list[tuple[int, bytes]] = []
    size = 0
    for number, line in enumerate(items, start=1):
        if line.strip():
            block.append((number, line))
            size += len(line)
            if size >= BLOCK_SIZE or len(block) == BLOCK_ROWS:
                yield block
                block, size = [], 0
    if block:
        yield block


def parse_row(line: bytes, index: int, columns: dict[str, str], reasons: Reasons) -> dict[str, Any]:
    """Return the object on a line. For a bad line, note the reason and return an object that shows its start."""
    row, reason = _parse_line(line)
    if reason:
        reasons[index] = reason
    if row is None:
        excerpt = line.decode("utf-8", errors="replace").strip()[:SHOWN_CHARS]
        return {next(iter(columns.values())): excerpt}
    return row


def _parse_line(line: bytes) -> tuple[dict[str, Any] | None, str | None]:
    """Return (object or None, reason or None)."""
    try:
        text = line.decode("utf-8").strip(_SPACES)
        value, end = _decode(text)
    except UnicodeDecodeError:
        return None, "invalid UTF-8"
    except (ValueError, RecursionError):
        return None, "not JSON"
    if end != len(text):
        return None, "not JSON"
    if not isinstance(value, dict):
        return None, "not a JSON object"
    return value, "a key twice" if type(value) is _DuplicateKeys else None
