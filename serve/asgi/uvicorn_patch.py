"""The HTTP side of a connection: uvicorn's protocol with limits, timeouts and our own errors. Holds its private names.

uvicorn leaves a few things open that an endpoint must not leave to its clients:

- what is not HTTP gets our JSON, with the parser's reason;
- a head may not be endless, and it must arrive in time; a client that takes nothing of its answer is disconnected;
- after an answer to an unfinished request, the rest is read for a moment: closing at once would reset the connection,
  and the client would lose the answer;
- an endpoint that stops finishes its connections: see `Connection.finish`;
- the head and the body of an answer leave in one write. uvicorn writes the head first and the body later. If a replica is
  killed between the two writes, the proxy has half a response and cannot retry the request on another replica. Each write
  also wakes the proxy.

Ray Serve starts uvicorn itself and has no option for the protocol class. So this module replaces the class that
`http="auto"` stands for, `uvicorn.protocols.http.auto.AutoHTTPProtocol`, in this process.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import httptools
import uvicorn.protocols.http.auto as auto
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from cluster.errors import RequestError
from serve.asgi.exchange import error_reply
from serve.asgi.limits import MAX_PARSED_BYTES, MAX_PARSED_HEADERS, headers_too_large

# How long the rest of a refused request is read and thrown away before its connection is closed.
_LINGER_S = 2.0
# How long a connection without a request stays open when the endpoint stops: a request may be on its way.
_FINISH_S = 0.5
# The first bytes of a TLS handshake.
_TLS = b"\x16\x03"
_base: Any = HttpToolsProtocol


class _Transport:
    """A transport that joins all writes in one iteration of the event loop into one write, and closes softly."""

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        self._transport, self._connection = transport, connection
        self._loop = asyncio.get_running_loop()
        self._buffer: list[bytes] = []
        self._is_closing = False
        # The size of the unsent answer when it was last looked at.
        self._unsent = 0

    def write(self, data: bytes) -> None:
        if self._is_closing:
            return
        if not self._buffer:
            self._loop.call_soon(self._flush)
        self._buffer.append(data)

    def close(self) -> None:
        """Send what is written, and close the connection. If a request is still arriving, read on for a moment."""
        if self._is_closing:
            return
        self._is_closing = True
        self._flush()
        if self._connection.is_receiving and not self._transport.is_closing():
            self._transport.write_eof()
            self._loop.call_later(_LINGER_S, self._transport.close)
        else:
            self._transport.close()

    def is_closing(self) -> bool:
        return self._is_closing or self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        buffer, self._buffer = self._buffer, []
        if buffer and not self._transport.is_closing():
            self._transport.write(b"".join(buffer))
            if not self._unsent:
                self._watch()

    def _watch(self) -> None:
        """Disconnect a client that has taken nothing of its answer since the last look."""
        size = self._transport.get_write_buffer_size()
        if size and size == self._unsent:
            self._transport.abort()
        elif size:
            self._loop.call_later(self._connection.client_timeout_s, self._watch)
        self._unsent = size


class Connection(_base):
    """A connection of a client. `patch_uvicorn` makes subclasses with other settings."""

    client_timeout_s = 30.0
    count_rejected: Callable[[int, str], None] = staticmethod(lambda status, reason: None)

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._is_in_head, self._head_bytes = False, 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._is_finishing = False
        self._data = b""

    # -- what uvicorn and its parser call

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(_Transport(transport, self))
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return  # the rest of a request that is answered
        self._data = data
        super().data_received(data)
        self._data = b""
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_PARSED_BYTES or len(self.headers) > MAX_PARSED_HEADERS:
                self._refuse(headers_too_large())
        elif self._is_idle and self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self._expect_head()  # for example, a client that sends empty lines

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head, self._head_bytes = True, 0
        self._expect_head()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._cancel_head_timer()
        super().on_headers_complete()
        # What follows a request for another protocol, which it does not get, cannot be parsed as HTTP any more.
        if self._is_finishing or self.parser.should_upgrade():
            self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.is_receiving and not self.transport.is_closing():
            self._expect_head()  # the rest of this request first, for as long as a head may take

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP. uvicorn calls this while it handles the parser's error."""
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            self.cycle.keep_alive = False  # a request before it waits for its answer; the connection ends with that
            return
        error = sys.exc_info()[1]
        reason = "its request line has no path" if isinstance(error, httptools.HttpParserCallbackError) else str(error)
        problem = f"this is not valid HTTP: {reason[:200]}"
        if self._data.startswith(_TLS):
            problem = "this is HTTPS, but this port speaks HTTP; write http://, or put a proxy with TLS in front"
        self._refuse(RequestError(400, "invalid_http", problem))

    def _should_upgrade_to_ws(self) -> bool:
        return False

    # -- limits

    @property
    def is_receiving(self) -> bool:
        """Whether a request is only partly there."""
        return self._is_in_head or (self.cycle is not None and self.cycle.more_body)

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.client_timeout_s, self._on_late_head)

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_late_head(self) -> None:
        self._head_timer = None
        if self._is_in_head and self._is_idle:
            self._refuse(
                RequestError(408, "slow_request", "the headers did not arrive in time; see serve.client_timeout_s")
            )
        elif self._is_idle:
            self.transport.close()

    def _refuse(self, error: RequestError) -> None:
        """Answer a request that never reaches the application, and close the connection."""
        if self.transport.is_closing():
            return
        if self._is_idle:
            self.count_rejected(error.status, error.code)
        elif self.cycle.response_started:
            self.transport.close()
            return
        else:  # the application waits for the rest of the body, and counts the request
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        reply = error_reply(error, "")
        headers = [
            *self.server_state.default_headers,
            (b"content-type", reply.content_type.encode()),
            (b"content-length", str(len(reply.body)).encode()),
            *[header for header in reply.headers if header[0] != b"connection"],
            (b"connection", b"close"),
        ]
        head = b"".join(b"%s: %s\r\n" % header for header in headers)
        self._is_in_head = True  # whatever else arrives belongs to this request
        self.transport.write(STATUS_LINE[error.status] + head + b"\r\n" + reply.body)
        self.transport.close()

    # -- the end of the endpoint

    def finish(self) -> None:
        """Close the connection after its current request, or after half a second if there is none."""
        if self._is_finishing:
            return
        self._is_finishing = True
        if not self._is_idle:
            self.cycle.keep_alive = False
        elif not self._is_in_head:
            self.loop.call_later(_FINISH_S, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if self._is_idle and not self._is_in_head:
            self.transport.close()


def patch_uvicorn(
    client_timeout_s: float = 30.0, count_rejected: Callable[[int, str], None] = lambda status, reason: None
) -> None:
    """Make uvicorn servers that start later in this process use `Connection`.

    A client must send a request's head within `client_timeout_s`. `count_rejected` is called with the status and the
    code of each request that is refused before the application sees it.
    """
    settings = {"client_timeout_s": client_timeout_s, "count_rejected": staticmethod(count_rejected)}
    auto.AutoHTTPProtocol = type("Connection", (Connection,), settings)


def is_patched() -> bool:
    """Return whether `patch_uvicorn` was called in this process."""
    return issubclass(auto.AutoHTTPProtocol, Connection)
