"""Unpack a request body that its client has compressed, up to a limit of bytes.

The header `content-encoding` names the codings in the order in which the client applied them. Each one is undone in turn,
and none may unpack to more than the limit: the output is read in one bounded piece, so a small body that would unpack to
gigabytes costs no more memory than the largest body that is allowed.
"""

from __future__ import annotations

import zlib

from cluster.errors import RequestError

#: Codings that a request may use, as the header `accept-encoding` of an answer lists them.
ACCEPTED = ("gzip", "deflate", "br", "zstd")
_ALIASES = {"x-gzip": "gzip", "": "identity"}
# The name of pyarrow's codec, for codings that the standard library does not read.
_ARROW_CODECS = {"br": "brotli", "zstd": "zstd"}
# Nobody compresses a body more often than this in good faith.
_MAX_CODINGS = 3
# zlib's window sizes: with gzip's header, with zlib's header, and without a header.
_GZIP, _ZLIB, _RAW = 31, 15, -15


def list_codings(header: str) -> list[str]:
    """Return the codings that a header names, without `identity`.

    Raises `RequestError` 415, with the accepted codings, for one that is unknown, and for more than three.
    """
    names = [name.strip().lower() for name in header.split(",")]
    codings = [_ALIASES.get(name, name) for name in names]
    codings = [coding for coding in codings if coding != "identity"]
    unknown = [coding for coding in codings if coding not in ACCEPTED]
    if unknown:
        raise _unsupported(f"content-encoding is {unknown[0][:40]!a}, which is unknown here")
    if len(codings) > _MAX_CODINGS:
        raise _unsupported(f"content-encoding names {len(codings)} codings, more than {_MAX_CODINGS}")
    return codings


def unpack(body: bytes, codings: list[str], max_bytes: int) -> bytes:
    """Return the body without its codings; see `list_codings`.

    Raises `RequestError` 400 if it is damaged, and 413 if it unpacks to more than `max_bytes`.
    """
    for coding in reversed(codings):
        if not body:
            break
        try:
            body = _unpack_once(body, coding, max_bytes + 1)
        except (zlib.error, EOFError, OSError) as error:
            reason = str(error) or "it is damaged"
            raise RequestError(400, "invalid_encoding", f"the body is not valid {coding}: {reason[:200]}") from None
        if len(body) > max_bytes:
            raise RequestError(
                413, "body_too_large", f"the body unpacks to over {max_bytes} bytes; send fewer inputs at a time"
            )
    return body


def _unpack_once(body: bytes, coding: str, max_length: int) -> bytes:
    """Return the first `max_length` bytes of what a body unpacks to. Raises an error of the library if it is damaged."""
    if coding in _ARROW_CODECS:
        import pyarrow as pa

        with pa.input_stream(pa.BufferReader(body), compression=_ARROW_CODECS[coding]) as stream:
            unpacked: bytes = stream.read(max_length)
            return unpacked
    if coding == "gzip":
        return _inflate_members(body, max_length)
    # Most clients send a zlib stream, as the standard says; some send one without zlib's header.
    has_header = len(body) > 1 and body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    content, rest = _inflate(body, _ZLIB if has_header else _RAW, max_length)
    if rest and len(content) < max_length:
        raise EOFError(f"{len(rest)} bytes follow its end")
    return content


def _inflate_members(body: bytes, max_length: int) -> bytes:
    """Return the content of a gzip file, which may consist of several members, and end with zero bytes."""
    parts: list[bytes] = []
    length = 0
    while length < max_length and (body.strip(b"\0") or not parts):
        part, body = _inflate(body, _GZIP, max_length - length)
        parts.append(part)
        length += len(part)
    return b"".join(parts)


def _inflate(body: bytes, window: int, max_length: int) -> tuple[bytes, bytes]:
    """Return at most `max_length` bytes of a stream's content, and the bytes behind its end."""
    decompressor = zlib.decompressobj(window)
    content = decompressor.decompress(body, max_length)
    if not decompressor.eof and len(content) < max_length:
        raise EOFError("it is cut short")
    return content, decompressor.unused_data


def _unsupported(problem: str) -> RequestError:
    accepted = ", ".join(ACCEPTED)
    return RequestError(
        415, "unknown_encoding", f"{problem}; send one of {accepted}, or none", (("accept-encoding", accepted),)
    )
