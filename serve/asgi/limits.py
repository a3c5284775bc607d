"""Limits of a request's head that every endpoint has: the request line and the headers."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.errors import RequestError

#: Maximum size of all headers together, counted as they are sent, and of the path with its query, in bytes.
MAX_HEADER_BYTES = 32768
#: Maximum number of headers.
MAX_HEADERS = 256
#: What a server's own parser accepts, so that it needs bounded memory. Up to it, the application refuses a request.
MAX_PARSED_BYTES, MAX_PARSED_HEADERS = 2 * MAX_HEADER_BYTES, 2 * MAX_HEADERS
# `: ` and the end of the line.
_LINE_BYTES = 4


def check_head(headers: Sequence[tuple[bytes, bytes]], target_bytes: int) -> None:
    """Raise `RequestError` 431 for too many or too large headers, and 414 for a path that is too long."""
    if target_bytes > MAX_HEADER_BYTES:
        raise RequestError(414, "path_too_long", f"the path and its query are over {MAX_HEADER_BYTES} bytes")
    size = sum(len(name) + len(value) + _LINE_BYTES for name, value in headers)
    if len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        raise headers_too_large()


def headers_too_large() -> RequestError:
    """Return the error for headers that are over the limits."""
    return RequestError(
        431,
        "headers_too_large",
        f"the headers are over {MAX_HEADER_BYTES} bytes or over {MAX_HEADERS} in number; send fewer, for example no cookies",
    )
