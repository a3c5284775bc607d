"""Write each response's head and body to the socket in one write. Holds all private names of uvicorn that serving uses.

By default uvicorn writes the head first and the body later. If a replica is killed between the two writes, the proxy
has half a response and cannot retry the request on another replica. Each write also wakes the proxy. Ray Serve starts
uvicorn itself and has no option for the protocol class. So this module replaces the class that `http="auto"` stands
for, `uvicorn.protocols.http.auto.AutoHTTPProtocol`, in this process.
"""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn.protocols.http.auto as auto

_UvicornProtocol: Any = auto.AutoHTTPProtocol


class _BufferedTransport:
    """A transport that joins all writes in one iteration of the event loop into one write."""

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
    """Make uvicorn servers that start later in this process write each response in one write."""
    auto.AutoHTTPProtocol = _OneWriteProtocol
