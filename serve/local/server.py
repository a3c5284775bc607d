"""The serving process of an endpoint without Ray: one replica under uvicorn, on a socket that its parent has bound.

`serve.local.endpoint` starts it with `cluster.python_child` and understands its messages:
- `{"ready": true}`: the models are verified and the socket listens;
- `{"error": {"kind": ..., "problem": ..., "fix": ...}}`: it cannot serve, and another attempt would fail too;
- `{"say": "..."}`: a line for the user.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from types import FrameType
from typing import Any

import uvicorn

from cluster.errors import UserError, first_line
from cluster.python_child import Channel
from serve.asgi.app import HttpApp
from serve.asgi.uvicorn_patch import patch_uvicorn
from serve.haproxy import port_error
from serve.model.settings import ReplicaSettings
from serve.replica import Replica

_log = logging.getLogger("raymill.serve")
# Connections that may wait until the event loop accepts them. The kernel's own limit applies, too.
_BACKLOG = 4096
# How long an idle connection stays open; the same as Ray Serve's default.
_KEEP_ALIVE_S = 90
_HEALTH_EVERY_S = 2.0
# At the end: how often to look whether all connections are closed, how long the last answers may take to leave, and how
# long uvicorn waits for tasks that are left after that.
_LOOK_EVERY_S, _FLUSH_S, _UVICORN_S = 0.02, 2.0, 1


def run_server(argument: dict[str, Any], channel: Channel) -> None:
    """Serve until the parent sends `{"stop": true}`, or until SIGTERM, then answer the requests in flight.

    `argument` has the replica's `settings` and the `socket`'s file descriptor.
    """
    channel.on_message = lambda message: os._exit(0)  # nothing is in flight before the models are loaded
    listening = socket.socket(fileno=argument["socket"])
    settings = ReplicaSettings.model_validate(argument["settings"])
    try:
        replica = Replica(
            settings,
            str(os.getpid()),
            sends_request_id=True,
            report=lambda name, text: channel.send({"say": text}),
        )
        _listen(listening)
    except Exception as error:
        channel.send({"error": _describe(error)})
        raise
    patch_uvicorn(settings.client_timeout_s, replica.metrics.count_rejected)
    config = uvicorn.Config(
        replica.app,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_UVICORN_S,
        backlog=_BACKLOG,
        lifespan="off",
        access_log=False,
        log_level=None,
        log_config=None,
    )
    server = _Server(config, replica.app, settings.drain_s)
    channel.on_message = lambda message: setattr(server, "should_exit", True)
    threading.Thread(target=_watch_health, args=[replica], daemon=True, name="raymill-health").start()
    channel.send({"ready": True})
    server.run(sockets=[listening])
    replica.close()


class _Server(uvicorn.Server):
    """A server that answers what it has accepted before it ends. SIGTERM and SIGINT end it, as the parent's message does."""

    def __init__(self, config: uvicorn.Config, app: HttpApp, drain_s: float) -> None:
        super().__init__(config)
        self._app, self._drain_s = app, drain_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new connections, and answer the requests in flight: with 503 those that take longer than `drain_s`."""
        self._app.drain()
        for _ in range(2):
            await asyncio.sleep(0)  # the loop accepts the connections that the kernel holds; closing would reset them
        for server in self.servers:
            server.close()
        for each in sockets or []:
            each.close()
        if not await self._finish_connections(self._drain_s):
            self._app.give_up()
            await self._finish_connections(_FLUSH_S)
        await super().shutdown(sockets)

    async def _finish_connections(self, within_s: float) -> bool:
        """Return true once all connections have ended, or false after `within_s`."""
        deadline = time.monotonic() + within_s
        while True:
            # A connection that was accepted last may be added late.
            await asyncio.sleep(_LOOK_EVERY_S)
            for connection in self.server_state.connections:
                connection.finish()  # type: ignore[union-attr]
            if not self.server_state.connections or time.monotonic() >= deadline:
                return not self.server_state.connections


def _listen(listening: socket.socket) -> None:
    try:
        listening.listen(_BACKLOG)
    except OSError as error:  # another program has bound the address too, and listens since then
        raise port_error(*listening.getsockname()[:2]) from error


def _describe(error: Exception) -> dict[str, str]:
    if isinstance(error, UserError):
        return {"kind": type(error).__name__, "problem": error.problem, "fix": error.fix}
    return {"kind": "", "problem": f"{type(error).__name__}: {first_line(error)}", "fix": ""}


def _watch_health(replica: Replica) -> None:
    """End this process if a batcher has stopped. The parent then starts another process."""
    while True:
        time.sleep(_HEALTH_EVERY_S)
        try:
            replica.check_health()
        except RuntimeError as error:
            _log.error("%s; this process ends, and another one is started", error)
            os._exit(1)
