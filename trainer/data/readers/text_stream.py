"""Text of a file as UTF-8, whatever its encoding: every reader of text reads it through here.

A byte order mark says the encoding for certain, and so do the first characters of UTF-16 and UTF-32, which hold a NUL
each. Otherwise the encoding is the one that the spec names, or UTF-8. No other encoding can be told from bytes: they
are bad rows, and the message shows the first of them.
"""

from __future__ import annotations

import codecs
import io
from typing import Any, NamedTuple, cast

from cluster.errors import DataError

#: Bytes at the start of a file that are looked at.
HEAD_BYTES = 1 << 16

_MARKS = (  # the marks of UTF-32 begin with those of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# What the first four characters look like without a mark: 0 for a NUL.
_PATTERNS = {"utf-32-le": b"\1\0\0\0", "utf-32-be": b"\0\0\0\1", "utf-16-le": b"\1\0", "utf-16-be": b"\0\1"}
_WITHOUT_MARK = {"utf-16": "utf-16-le", "utf-32": "utf-32-le", "utf-8-sig": "utf-8"}
_UTF8 = "utf-8"
_CHUNK_BYTES = 1 << 18
_ERRORS = "raymill.invalid"
# Stands for bytes that are no text in the file's encoding; its own bytes are no UTF-8.
_INVALID = "\ud800"

# The first bytes of files that are no text -> what they are, and what to do.
_OTHER_KINDS = (
    (b"\x1f\x8b", "a gzip file", "give it the extension .gz after its own, or decompress it"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "give it the extension .zst after its own, or decompress it"),
    (b"BZh", "a bzip2 file", "give it the extension .bz2 after its own, or decompress it"),
    (b"\xfd7zXZ\0", "an xz file", "give it the extension .xz after its own, or decompress it"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "unpack it, or save the sheet as .csv (UTF-8)"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook", "save the sheet as .csv (UTF-8)"),
    (b"PAR1", "a Parquet file", "give it the extension .parquet"),
    (b"ARROW1", "an Arrow file", "give it the extension .arrow"),
    (b"SQLite format 3", "an SQLite database", "name its rows by a query: `{url: sqlite:////PATH, query: SELECT ...}`"),
    (b"%PDF", "a PDF", "name a file of rows"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "fetch the file with `git lfs pull`"),
)
_HTML = (b"<!doctype html", b"<html")


class Encoding(NamedTuple):
    """The encoding of a file, and the length of its byte order mark."""

    name: str
    mark_bytes: int = 0


class TextStream(NamedTuple):
    """A file's text as UTF-8 bytes, without a byte order mark."""

    stream: io.BufferedReader
    head: bytes
    """The first bytes of `stream`, up to about `HEAD_BYTES`; they are also still in `stream`."""
    encoding: str
    """The encoding of the file itself."""


def open_text(stream: io.BufferedReader, path: str, encoding: str | None = None) -> TextStream:
    """Return the text of a stream of bytes. `encoding` is the one that the spec names.

    Bytes that are no text in the encoding give bytes that are no UTF-8, so readers find them in every encoding. Raises
    `DataError` for a file that begins like another kind of file.
    """
    head = stream.read(HEAD_BYTES)
    _check_is_text(head, path)
    own = detect_encoding(head, encoding)
    text: Any = _Rejoined(head[own.mark_bytes :], stream)
    if own.name != _UTF8:
        text = _Rejoined(b"", _Utf8(text, own.name))
        head = text.read_head(HEAD_BYTES)
    else:
        head = head[own.mark_bytes :]
    return TextStream(io.BufferedReader(cast(Any, text), _CHUNK_BYTES), head, own.name)


def decode_text(content: bytes, encoding: str | None = None) -> tuple[str, str | None]:
    """Return the text of a whole file, and the reason why it cannot be used, or None."""
    own = detect_encoding(content, encoding)
    content = content[own.mark_bytes :]
    try:
        return content.decode(own.name), None
    except UnicodeDecodeError:
        return content.decode(own.name, errors="replace"), invalid_reason(own.name)


def detect_encoding(head: bytes, encoding: str | None = None) -> Encoding:
    """Return the encoding of a file that begins with `head`; `encoding` is the one that the spec names."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return Encoding(name, len(mark))
    if encoding is not None:
        return Encoding(_WITHOUT_MARK.get(encoding, encoding))
    shape = bytes(min(byte, 1) for byte in head[:8])
    for name, pattern in _PATTERNS.items():
        if len(shape) == 8 and shape == pattern * (8 // len(pattern)):
            return Encoding(name)
    return Encoding(_UTF8)


def invalid_reason(encoding: str) -> str:
    """Return the reason for a row that is no text in its encoding."""
    return f"invalid {encoding.upper() if encoding.startswith('utf') else encoding}"


def _check_is_text(head: bytes, path: str) -> None:
    start = head.lstrip()[:64].lower()
    kinds = [*_OTHER_KINDS, *((sign, "a page of HTML", "download the file itself") for sign in _HTML)]
    for sign, kind, fix in kinds:
        if head.startswith(sign) or (sign in _HTML and start.startswith(sign)):
            raise DataError(f"{path} is {kind}: it begins with {head[:24]!r}", fix)


def _mark_invalid(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return _INVALID, error.end


class _Rejoined(io.RawIOBase):
    """A stream with bytes before it that were already read from it."""

    def __init__(self, head: bytes, stream: Any) -> None:
        self._head, self._stream = head, stream

    def readable(self) -> bool:
        return True

    def read_head(self, size: int) -> bytes:
        """Return about the first `size` bytes; they stay in the stream."""
        while len(self._head) < size and (more := self._stream.read(size)):
            self._head += more
        return self._head

    def readinto(self, buffer: Any) -> int:
        content = self._head[: len(buffer)] or self._stream.read(len(buffer))
        self._head = self._head[len(buffer) :]
        if len(content) > len(buffer):
            self._head = content[len(buffer) :]
            content = content[: len(buffer)]
        buffer[: len(content)] = content
        return len(content)


class _Utf8:
    """The text of a stream in another encoding, as UTF-8."""

    def __init__(self, stream: io.RawIOBase, encoding: str) -> None:
        codecs.register_error(_ERRORS, _mark_invalid)
        self._stream = io.BufferedReader(cast(Any, stream), _CHUNK_BYTES)
        self._decoder = codecs.getincrementaldecoder(encoding)(_ERRORS)
        self._is_done = False

    def read(self, _: int) -> bytes:
        """Return the next piece of text, of any size; empty at the end."""
        while not self._is_done:
            raw = self._stream.read(_CHUNK_BYTES)
            self._is_done = not raw
            text = self._decoder.decode(raw, final=not raw)
            if text:
                return text.encode("utf-8", errors="surrogatepass")
        return b""
