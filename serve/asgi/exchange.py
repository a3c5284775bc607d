"""One HTTP request and its answer, as ASGI has them, with the ids that go through all services a request passes."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple

import orjson

from cluster.errors import RequestError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON, TEXT, HTML = "application/json", "text/plain; charset=utf-8", "text/html; charset=utf-8"
# W3C trace context: version, trace, parent, flags.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


class Reply(NamedTuple):
    """An answer."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Exchange:
    """A request. `request_id` and `trace` are taken from its headers or made; `span` is ours in that trace."""

    __slots__ = (
        "body", "headers", "job", "key", "method", "model", "parent", "path", "query", "reason", "receive", "request_id",
        "sampled", "span", "started", "trace",
    )  # fmt: skip

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive) -> None:
        self.started = time.perf_counter()
        self.receive = receive
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope.get("query_string", b"")
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        given = self.headers.get(b"x-request-id", b"").decode("latin-1")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        found = _TRACEPARENT.fullmatch(self.headers.get(b"traceparent", b"").decode("latin-1"))
        self.trace, self.parent, flags = found.groups() if found else (secrets.token_hex(16), "", "00")
        self.sampled = bool(int(flags, 16) & 1) if found else True
        self.span = secrets.token_hex(8)
        self.key = ""
        self.reason = "ok"
        self.body = b""
        self.model: Any = None
        self.job: Any = None

    def header(self, name: bytes) -> str:
        """Return a header's value, "" where it is not there."""
        return self.headers.get(name, b"").decode("latin-1")

    async def read(self, max_bytes: int) -> bytes:
        """Return the body, or refuse it as soon as it is known to be too large."""
        declared = self.headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > max_bytes:
            raise _too_large(max_bytes)
        body = b""
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise RequestError(400, "cut_short", "the client went away before its body was there")
            body += message.get("body", b"")
            if len(body) > max_bytes:
                raise _too_large(max_bytes)
            if not message.get("more_body"):
                self.body = body
                return body

    async def answer(self, send: Send, reply: Reply) -> None:
        """Send an answer, with the trace's ids and where the time went; Ray Serve puts the request's id beside them."""
        headers = [
            (b"content-type", reply.content_type.encode("latin-1")),
            (b"content-length", str(len(reply.body)).encode()),
            (b"traceparent", f"00-{self.trace}-{self.span}-{'01' if self.sampled else '00'}".encode()),
            *reply.headers,
        ]
        if self.job is not None and reply.status == 200:
            headers.append((b"server-timing", _server_timing(self.timing_ms())))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    def timing_ms(self) -> dict[str, float]:
        """Return where the time went, in milliseconds."""
        job = self.job
        parts = {"queue": job.queue_s, "tokenize": job.preparing_s, "inference": job.computing_s}
        parts["total"] = time.perf_counter() - self.started
        return {name: round(1000 * seconds, 3) for name, seconds in parts.items()}


def json_reply(value: Any, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Reply:
    """Return a JSON answer."""
    return Reply(status, orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS), JSON, headers)


def refusal(error: RequestError, path: str, retry_after_s: int = 1) -> Reply:
    """Return what a client is told that asked for what cannot be given; a text where the Open Inference Protocol has one."""
    extra = tuple((name.encode(), value.encode()) for name, value in error.headers)
    if error.status in (429, 503):
        extra += ((b"retry-after", str(retry_after_s).encode()),)
    if error.status == 401:
        extra += ((b"www-authenticate", b"Bearer"),)
    told = str(error) if path.startswith("/v2") else {"code": error.code, "message": str(error)}
    return json_reply({"error": told}, error.status, extra)


def _too_large(max_bytes: int) -> RequestError:
    return RequestError(413, "body_too_large", f"the body is over {max_bytes} bytes; send fewer inputs at a time")


def _server_timing(timing_ms: dict[str, float]) -> bytes:
    return ", ".join(f"{name};dur={value:g}" for name, value in timing_ms.items()).encode()
