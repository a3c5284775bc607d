"""Say why rows of a file cannot be read, with the first bytes or cells that show it."""

from __future__ import annotations

import codecs
import contextlib
import re
from pathlib import Path
from typing import NamedTuple

from cluster.errors import DataError
from trainer.data.sources.source_file import file_format_of
from trainer.data.sources.streams import open_binary

_CHUNK_BYTES = 1 << 20
_AROUND_BYTES = 24
# Encodings of Western and Central European exports. Others cannot be told from a few bytes.
_LIKELY = "cp1252"
_INVALID = re.compile(r"invalid (\S+)")


class InvalidBytes(NamedTuple):
    """The first bytes of a file that are no text in its encoding."""

    offset: int
    """Bytes before them, from 0."""
    line: int
    """Line that holds them, from 1."""
    around: bytes
    """They and their neighbors."""

    def __str__(self) -> str:
        text = f"line {self.line}, byte {self.offset}, in {self.around!r}"
        with contextlib.suppress(UnicodeDecodeError):
            text += f", which in {_LIKELY} reads {self.around.decode(_LIKELY)!r}"
        return text


def invalid_text_error(path: str, encoding: str) -> DataError | None:
    """Return the error for a file that is not in `encoding`, with the first bytes that show it; None if all bytes fit."""
    first = find_invalid_bytes(path, encoding)
    if first is None:
        return None
    name = encoding.upper() if encoding.startswith("utf") else encoding
    problem = f"{path} is not {name}: {first}"
    return DataError(problem, "save the file as UTF-8, or set `data.format: {encoding: cp1252}` or what it is in")


def explain_reason(reason: str, path: str) -> str:
    """Return what to add to a message about rows with `reason`; empty if the file shows no more than the reason."""
    match = _INVALID.fullmatch(reason)
    if match is None or file_format_of(Path(path)) in ("parquet", "arrow"):
        return ""
    with contextlib.suppress(OSError, DataError, LookupError):
        first = find_invalid_bytes(path, codecs.lookup(match[1]).name)
        return f": {first}" if first else ""
    return ""


def find_invalid_bytes(path: str, encoding: str) -> InvalidBytes | None:
    """Return the first bytes of a file that are no text in `encoding`, or None."""
    decoder = codecs.getincrementaldecoder(encoding)()
    offset, line, tail = 0, 1, b""
    with open_binary(path) as stream:
        while True:
            chunk = stream.read(_CHUNK_BYTES)
            pending = decoder.getstate()[0]
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                first = offset - len(pending) + error.start
                line += chunk[: max(0, first - offset)].count(b"\n")
                return InvalidBytes(first, line, _cut(tail + chunk, first - offset + len(tail)))
            if not chunk:
                return None
            offset, line, tail = offset + len(chunk), line + chunk.count(b"\n"), chunk[-_AROUND_BYTES:]


def _cut(raw: bytes, index: int) -> bytes:
    """Return the bytes around `index` on the same line."""
    start = max(0, index - _AROUND_BYTES, raw.rfind(b"\n", 0, index) + 1)
    end = raw.find(b"\n", index)
    return raw[start : min(index + _AROUND_BYTES, end if end >= 0 else len(raw))].rstrip(b"\r")
