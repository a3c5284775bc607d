"""The lines of a jsonl file, or the items of one array of objects, as a file of JSON often holds them.

A file whose first sign is `[` is an array. Its items are read one after the other, so that a large file is never whole
in memory.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from itertools import chain

from cluster.errors import DataError
from trainer.data.readers.blocks import MAX_VALUE_BYTES
from trainer.data.readers.text_stream import TextStream

_CHUNK_CHARS = 1 << 20
_BETWEEN = re.compile(r"[\s,]*")
_LINE_END = re.compile(rb"\r\n?|\n")
_SHOWN_CHARS = 80


def json_items(text: TextStream, path: str) -> Iterator[bytes]:
    """Yield the lines of the file, or the text of each item if the file is an array.

    Raises `DataError` for a file that is one object over several lines, and for an array that is not complete.
    """
    start = text.head.lstrip()
    if start.startswith(b"[") and not _is_line_of_its_own(start):
        yield from _array_items(io.TextIOWrapper(text.stream, encoding="utf-8", errors="surrogateescape"), path)
        return
    first = start.splitlines()[0].strip() if start else b""
    if first == b"{":
        raise DataError(
            f"{path} is one JSON object over several lines: it begins with {start[:_SHOWN_CHARS].decode(errors='replace')!r}",
            "write an array of objects, [{...}, {...}], or one object per line",
        )
    if b"\r" in text.head and b"\n" not in text.head:  # a raw carriage return is never inside a JSON value
        yield from _split_lines(text.stream)
    else:
        yield from text.stream


def _is_line_of_its_own(start: bytes) -> bool:
    """Whether the first line is an array and other lines follow it: then each line is a value, and no row."""
    line, _, rest = start.partition(b"\n")
    if not rest.strip():
        return False
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _split_lines(stream: io.BufferedReader) -> Iterator[bytes]:
    waiting = b""
    for chunk in chain(iter(lambda: stream.read(_CHUNK_CHARS), b""), [b"\n"]):
        *lines, waiting = _LINE_END.split(waiting + chunk)
        yield from lines


def _array_items(text: io.TextIOWrapper, path: str) -> Iterator[bytes]:
    decode = json.JSONDecoder().raw_decode
    buffer, position, n_items, chars = text.read(_CHUNK_CHARS), 0, 0, _CHUNK_CHARS
    position = buffer.index("[") + 1
    while True:
        between = _BETWEEN.match(buffer, position)
        position = between.end() if between else position
        try:
            if buffer[position : position + 1] == "]":
                break
            _, end = decode(buffer, position)
            is_whole = end < len(buffer)  # a number may go on
        except (ValueError, RecursionError):
            is_whole, end = False, position
        if is_whole:
            n_items += 1
            yield buffer[position:end].encode("utf-8", errors="surrogateescape")
            position = end
            continue
        more = text.read(chars) if len(buffer) - position < MAX_VALUE_BYTES else ""
        if not more:
            shown = buffer[position : position + _SHOWN_CHARS].encode("utf-8", "replace").decode()
            raise DataError(
                f"{path} is an array that is not complete JSON: item {n_items + 1} reads {shown!r}",
                "repair the file, or write one object per line",
            )
        buffer, position = buffer[position:] + more, 0
        chars *= 2  # an item that does not fit is not read again and again
    rest = buffer[position + 1 :].strip() or text.read(_SHOWN_CHARS).strip()
    if rest:
        raise DataError(
            f"{path} goes on after the array that it begins with: {rest[:_SHOWN_CHARS]!r}",
            "write one array of objects, or one object per line",
        )
