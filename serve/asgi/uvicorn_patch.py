"""Answers leave a replica whole, as far as a socket takes them at once: the head and the body in one write.

uvicorn writes the head as soon as it is there. A replica that is killed between the two writes leaves a proxy with half an
answer, which nobody may ask for again elsewhere; and each write wakes the proxy. Ray Serve starts uvicorn itself and does not
let its protocol be chosen, so the name that uvicorn's `http="auto"` stands for is replaced, in this process alone.
"""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn.protocols.http.auto as auto

_Plain: Any = auto.AutoHTTPProtocol


class _Gathered:
    """A transport that writes once for all that was written in one turn of the event loop."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        held, self._held = self._held, []
        if held and not self._transport.is_closing():
            self._transport.write(b"".join(held))


class _Protocol(_Plain):
    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(_Gathered(transport, asyncio.get_running_loop()))


def answer_in_one_write() -> None:
    """Have the uvicorn of this process write each answer at once; before its server starts."""
    auto.AutoHTTPProtocol = _Protocol
