"""Write each response's head and body to the socket in one write. Holds all private names of uvicorn that serving uses.

uvicorn writes the head as soon as it is ready. If a replica is killed between the two writes, a proxy holds half a
response, and nothing may retry it elsewhere; each write also wakes the proxy. Ray Serve starts uvicorn itself and does
not let its protocol be chosen. So this replaces `uvicorn.protocols.http.auto.AutoHTTPProtocol`, the class that
`http="auto"` means, in this process.
"""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn.protocols.http.auto as auto

_UvicornProtocol: Any = auto.AutoHTTPProtocol


class _BufferedTransport:
    """A transport that joins all writes of one turn of the event loop into one."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._buffer: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._buffer:
            self._loop.call_soon(self._flush)
        self._buffer.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        buffer, self._buffer = self._buffer, []
        if buffer and not self._transport.is_closing():
            self._transport.write(b"".join(buffer))


class _OneWriteProtocol(_UvicornProtocol):
    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(_BufferedTransport(transport, asyncio.get_running_loop()))


def patch_uvicorn() -> None:
    """Make uvicorn servers that start later in this process write each response at once."""
    auto.AutoHTTPProtocol = _OneWriteProtocol
