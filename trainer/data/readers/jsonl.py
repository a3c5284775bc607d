"""Rows of a file with one JSON object a line; a row's number is its line's."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pyarrow as pa

from trainer.data.readers.blocks import BLOCK_ROWS, BLOCK_SIZE, SHOWN_CHARS, Reasons, check_columns, to_block

_SPACES = " \t\r\n"


class _Twice(dict[str, Any]):
    """An object that holds a key twice: which value was meant cannot be known."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Twice(found)


_take_apart = json.JSONDecoder(object_pairs_hook=_object).raw_decode


def read_jsonl(
    stream: io.BufferedReader, path: str, columns: dict[str, str], loose: frozenset[str]
) -> Iterator[pa.Table]:
    """Yield the rows. Raises `DataError` for a column that no row of the first block has."""
    a_row_has_all = False
    keys: dict[str, None] = {}
    for block in _cut(stream):
        numbers: list[int] = []
        objects: list[dict[str, Any]] = []
        reasons: Reasons = {}
        for number, line in block:
            found, reason = _parse(line)
            if reason:
                reasons[len(objects)] = reason
                if found is None:
                    shown = line.decode("utf-8", errors="replace").strip()[:SHOWN_CHARS]
                    found = {next(iter(columns.values())): shown}
            numbers.append(number)
            objects.append(found or {})
        if not a_row_has_all:
            whole = (found for at, found in enumerate(objects) if at not in reasons)
            a_row_has_all = any(all(column in found for column in columns.values()) for found in whole)
        if not a_row_has_all:
            keys.update(dict.fromkeys(key for at, found in enumerate(objects) if at not in reasons for key in found))
            if keys:
                check_columns(columns, list(keys), path)
        yield to_block(
            numbers,
            {role: [found.get(column) for found in objects] for role, column in columns.items()},
            reasons,
            loose,
        )


def _cut(stream: io.BufferedReader) -> Iterator[list[tuple[int, bytes]]]:
    """Yield the lines of each block with their numbers, without empty ones."""
    block: list[tuple[int, bytes]] = []
    size = 0
    first = next(stream, b"").removeprefix(b"\xef\xbb\xbf")  # some editors mark a file's first line
    for number, line in enumerate(chain([first], stream), start=1):
        if line.strip():
            block.append((number, line))
            size += len(line)
            if size >= BLOCK_SIZE or len(block) == BLOCK_ROWS:
                yield block
                block, size = [], 0
    if block:
        yield block


def _parse(line: bytes) -> tuple[dict[str, Any] | None, str | None]:
    try:
        text = line.decode("utf-8").strip(_SPACES)
        found, end = _take_apart(text)
    except UnicodeDecodeError:
        return None, "invalid UTF-8"
    except (ValueError, RecursionError):
        return None, "not JSON"
    if end != len(text):
        return None, "not JSON"
    if not isinstance(found, dict):
        return None, "not a JSON object"
    return found, "a key twice" if type(found) is _Twice else None
