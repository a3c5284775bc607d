"""Remove the texts and profiles of a PNG that Pillow refuses to read: they are not pixels.

Editors and generators store prompts, histories and profiles of megabytes beside the pixels. Pillow limits what they may
unpack to, and takes an image with more for damaged. Short ones stay: some hold the orientation.
"""

from __future__ import annotations

import struct
import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PROFILE = b"iCCP"
# Pillow reads 1 MB of one compressed text or profile, and 64 MB of all texts.
_MAX_UNPACKED, _MAX_TEXT = 1 << 20, 32 << 20


def without_long_texts(raw: bytes) -> bytes:
    """Return the bytes of a PNG without texts and profiles that are too long; other bytes are returned unchanged."""
    if not raw.startswith(_SIGNATURE):
        return raw
    pieces, start, position, n_text = [], 0, len(_SIGNATURE), 0
    while position + 12 <= len(raw):
        (length,) = struct.unpack_from(">I", raw, position)
        kind, end = raw[position + 4 : position + 8], position + 12 + length
        if end > len(raw):
            break
        if kind in _TEXTS or kind == _PROFILE:
            content = raw[position + 8 : end - 4]
            n_text += length if kind in _TEXTS else 0
            if _is_long(kind, content) or n_text > _MAX_TEXT:
                pieces.append(raw[start:position])
                start = end
        position = end
    return b"".join([*pieces, raw[start:]]) if pieces else raw


def _is_long(kind: bytes, content: bytes) -> bool:
    """Whether a chunk unpacks to more than Pillow reads."""
    rest = content.partition(b"\0")[2]  # after the keyword
    if kind == b"iTXt":
        if not rest.startswith(b"\1"):
            return False
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]  # after the language and the translated keyword
    elif kind == b"tEXt":
        return False
    else:
        rest = rest[1:]
    decompressor = zlib.decompressobj()
    try:
        return len(decompressor.decompress(rest, _MAX_UNPACKED)) >= _MAX_UNPACKED
    except zlib.error:
        return False
