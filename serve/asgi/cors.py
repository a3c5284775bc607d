"""Cross-origin requests: which web pages of other origins may use an endpoint from a browser.

A browser asks first with a preflight, an OPTIONS request without a key. Keys travel in headers and not in cookies, so
answers never allow credentials.
"""

from __future__ import annotations

from collections.abc import Sequence

from cluster.errors import RequestError

Headers = tuple[tuple[bytes, bytes], ...]

# Headers of answers that scripts may read, and how long a browser may remember a preflight, in seconds.
_EXPOSED = b"x-request-id, traceparent, server-timing, retry-after"
_MAX_AGE = b"600"
# Headers that requests may have, if the browser does not list those that it wants to send.
_HEADERS = b"authorization, content-type, content-encoding, x-api-key, x-request-id, traceparent"


class CorsPolicy:
    """The allowed origins of an endpoint. `*` stands for all; without any, browsers allow none."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(origins)
        self._any = "*" in self._origins

    def headers(self, origin: bytes) -> Headers:
        """Return the headers to add to every answer to a page of `origin`, errors included."""
        if not self._origins or not origin:
            return ()
        if self._any:
            return ((b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", _EXPOSED))
        vary = ((b"vary", b"origin"),)
        if not self._allows(origin):
            return vary
        return ((b"access-control-allow-origin", origin), (b"access-control-expose-headers", _EXPOSED), *vary)

    def preflight(self, origin: bytes, requested: bytes, methods: str) -> Headers:
        """Return the headers that allow a page of `origin` to send requests with the `requested` headers.

        Raises `RequestError` 403 if the origin is not allowed.
        """
        if not self._allows(origin):
            raise RequestError(
                403,
                "origin_not_allowed",
                f"pages of {origin[:80].decode('latin-1')!a} may not use this endpoint; list it in serve.cors_origins",
            )
        return (
            (b"access-control-allow-methods", methods.encode()),
            (b"access-control-allow-headers", requested or _HEADERS),
            (b"access-control-max-age", _MAX_AGE),
        )

    def _allows(self, origin: bytes) -> bool:
        return self._any or origin.decode("latin-1").lower() in self._origins
