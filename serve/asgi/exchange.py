"""One HTTP request and its response as ASGI messages, with the ids that identify the request across services."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from typing import Any, NamedTuple

import orjson

from cluster.errors import RequestError
from serve.asgi.error_forms import error_body
from serve.asgi.limits import check_head
from serve.asgi.paths import normalize_path
from serve.model.content_encoding import list_codings, unpack

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON, TEXT, HTML = "application/json", "text/plain; charset=utf-8", "text/html; charset=utf-8"
EVENTS = "text/event-stream; charset=utf-8"
# Proxies between may not collect a stream's events: nginx obeys the last header.
_UNBUFFERED = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
# The traceparent header of W3C trace context: version-trace-parent-flags.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
# Headers that mean something else if a request has them twice with different values.
_SINGLE = frozenset(
    [b"authorization", b"content-length", b"content-type", b"inference-header-content-length", b"origin", b"x-api-key"]
)
# Bytes that a body's client must send in a second, on top of the time that every request has.
_MIN_BYTES_PER_S = 65536
CLOSE = ((b"connection", b"close"),)
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


class Reply(NamedTuple):
    """A response."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class StreamReply(NamedTuple):
    """A response whose body is sent piece by piece while it is made."""

    pieces: AsyncIterator[bytes]
    close: Callable[[], None]
    """Called at the end, whether or not all pieces were sent."""
    status: int = 200
    content_type: str = EVENTS
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Exchange:
    """A request and the state of its answer.

    `path` is in the form of `normalize_path`, and `sent_path` as it came. `request_id` and `trace` come from the
    request's headers, or are new. `span` is this server's span in that trace.
    """

    __slots__ = (
        "all_headers", "body", "headers", "job", "key", "method", "model", "parent", "path", "query", "reason", "receive",
        "request_id", "sampled", "sent_path", "span", "started", "trace", "user",
    )  # fmt: skip

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive) -> None:
        self.started = time.perf_counter()
        self.receive = receive
        self.method: str = scope["method"]
        self.sent_path: str = scope["path"]
        self.path = normalize_path(self.sent_path)
        self.query: bytes = scope.get("query_string", b"")
        self.all_headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        self.headers: dict[bytes, bytes] = dict(self.all_headers)
        request_id = self.header(b"x-request-id")
        self.request_id = request_id if _REQUEST_ID.fullmatch(request_id) else secrets.token_hex(16)
        parent = _TRACEPARENT.fullmatch(self.header(b"traceparent"))
        self.trace, self.parent, flags = parent.groups() if parent else (secrets.token_hex(16), "", "00")
        self.sampled = bool(int(flags, 16) & 1) if parent else True
        self.span = secrets.token_hex(8)
        self.key = self.user = ""
        self.reason = "ok"
        self.body = b""
        self.model: Any = None
        self.job: Any = None

    def header(self, name: bytes) -> str:
        """Return the value of a header, or "" if it is missing."""
        return self.headers.get(name, b"").decode("latin-1")

    def check_headers(self) -> None:
        """Raise `RequestError` for headers that are too large, and for one that is there twice with different values."""
        if not self.path.startswith("/"):  # for example `OPTIONS *`
            raise RequestError(400, "invalid_http", f"{self.path[:40]!a} is no path; it has to start with a slash")
        check_head(self.all_headers, len(self.sent_path) + len(self.query))
        if len(self.headers) < len(self.all_headers):
            for name, value in self.all_headers:
                if name in _SINGLE and self.headers[name] != value:
                    raise RequestError(
                        400,
                        "repeated_header",
                        f"the header {name.decode()} occurs twice with different values; send one",
                    )

    async def read(self, max_bytes: int, within_s: float) -> bytes:
        """Return the body, unpacked if its client compressed it.

        Raises `RequestError` if it is cut short, slower than `within_s` and a second for each 64 KiB, damaged, or as
        soon as it is known to be larger than `max_bytes`.
        """
        # Several headers of this name mean the same as one with all their values.
        encodings = [value for name, value in self.all_headers if name == b"content-encoding"]
        codings = list_codings(b",".join(encodings).decode("latin-1"))
        declared = self.headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > max_bytes:
            raise _too_large(max_bytes)
        body = await self._receive_body(max_bytes, within_s)
        if codings:
            body = await asyncio.to_thread(unpack, body, codings, max_bytes)
        self.body = body
        return body

    async def _receive_body(self, max_bytes: int, within_s: float) -> bytes:
        body, deadline = b"", time.perf_counter() + within_s
        while True:
            message = await self._receive(deadline + len(body) / _MIN_BYTES_PER_S - time.perf_counter())
            if message["type"] == "http.disconnect":
                raise RequestError(400, "cut_short", "the client disconnected before its whole body arrived")
            body += message.get("body", b"")
            if len(body) > max_bytes:
                raise _too_large(max_bytes)
            if not message.get("more_body"):
                return body

    async def _receive(self, within_s: float) -> Message:
        """Return the next message. Raises `RequestError` 408 after `within_s`. `asyncio.wait_for` would start a task."""
        task, is_late = asyncio.current_task(), False

        def expire() -> None:
            nonlocal is_late
            is_late = True
            if task is not None:
                task.cancel()

        timer = asyncio.get_running_loop().call_later(max(0.0, within_s), expire)
        try:
            return await self.receive()
        except asyncio.CancelledError:
            if not is_late:
                raise
            if task is not None and hasattr(task, "uncancel"):  # since Python 3.11
                task.uncancel()
            raise RequestError(
                408, "slow_request", "the body did not arrive in time; see serve.client_timeout_s"
            ) from None
        finally:
            timer.cancel()

    async def answer(
        self,
        send: Send,
        reply: Reply | StreamReply,
        more_headers: tuple[tuple[bytes, bytes], ...] = (),
        *,
        with_id: bool = False,
    ) -> None:
        """Send a response, with headers for the trace's ids and each stage's time, and with the request id on demand.

        Ray Serve adds the request id itself.
        """
        headers = [
            (b"content-type", reply.content_type.encode("latin-1")),
            (b"traceparent", f"00-{self.trace}-{self.span}-{'01' if self.sampled else '00'}".encode()),
            *reply.headers,
            *more_headers,
        ]
        if with_id:
            headers.append((b"x-request-id", self.request_id.encode()))
        if isinstance(reply, StreamReply):
            await self._send_pieces(send, reply, [*headers, *_UNBUFFERED])
            return
        headers.insert(1, (b"content-length", str(len(reply.body)).encode()))
        if self.job is not None and reply.status == 200:
            headers.append((b"server-timing", _server_timing(self.timing_ms())))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def _send_pieces(self, send: Send, reply: StreamReply, headers: list[tuple[bytes, bytes]]) -> None:
        try:
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            async for piece in reply.pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            reply.close()

    def timing_ms(self) -> dict[str, float]:
        """Return the time of each stage and the total, in milliseconds."""
        job = self.job
        stages = {"queue": job.queue_s, "preprocess": job.preparing_s, "inference": job.computing_s}
        stages["total"] = time.perf_counter() - self.started
        return {name: round(1000 * seconds, 3) for name, seconds in stages.items()}


def json_reply(value: Any, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Reply:
    """Return a JSON response."""
    return Reply(status, orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS), JSON, headers)


def error_reply(error: RequestError, path: str, retry_after_s: int = 1) -> Reply:
    """Return the response for an error, in the form that clients of the path expect."""
    extra = tuple((name.encode(), value.encode()) for name, value in error.headers)
    if error.status in (408, 431):
        extra += CLOSE
    if error.status in (429, 503):
        extra += ((b"retry-after", str(retry_after_s).encode()),)
    if error.status == 401:
        extra += ((b"www-authenticate", b"Bearer"),)
    return json_reply(error_body(error, path), error.status, extra)


def _too_large(max_bytes: int) -> RequestError:
    return RequestError(413, "body_too_large", f"the body is over {max_bytes} bytes; send fewer inputs at a time")


def _server_timing(timing_ms: dict[str, float]) -> bytes:
    return ", ".join(f"{name};dur={value:g}" for name, value in timing_ms.items()).encode()
