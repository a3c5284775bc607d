"""The serving process of an endpoint without Ray: one replica under uvicorn, on a socket that its parent has bound.

`serve.local.endpoint` starts it with `cluster.python_child` and understands its messages:
- `{"ready": true}`: the models are verified and the socket listens;
- `{"error": {"kind": ..., "problem": ..., "fix": ...}}`: it cannot serve, and another attempt would fail too;
- `{"say": "..."}`: a line for the user.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from typing import Any

import uvicorn

from cluster.errors import UserError, first_line
from cluster.python_child import Channel
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


def run_server(argument: dict[str, Any], channel: Channel) -> None:
    """Serve until the parent sends `{"stop": true}`, then answer the requests in flight.

    `argument` has the replica's `settings`, the `socket`'s file descriptor, and `graceful_s`, the time for the requests
    in flight at the end.
    """
    channel.on_message = lambda message: os._exit(0)  # nothing is in flight before the models are loaded
    listening = socket.socket(fileno=argument["socket"])
    try:
        replica = Replica(
            ReplicaSettings.model_validate(argument["settings"]),
            str(os.getpid()),
            sends_request_id=True,
            report=lambda name, text: channel.send({"say": text}),
        )
        _listen(listening)
    except Exception as error:
        channel.send({"error": _describe(error)})
        raise
    patch_uvicorn()
    server = uvicorn.Server(
        uvicorn.Config(
            replica.app,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=round(argument["graceful_s"]),
            backlog=_BACKLOG,
            lifespan="off",
            access_log=False,
            log_level=None,
            log_config=None,
        )
    )
    channel.on_message = lambda message: setattr(server, "should_exit", True)
    threading.Thread(target=_watch_health, args=[replica], daemon=True, name="raymill-health").start()
    channel.send({"ready": True})
    server.run(sockets=[listening])
    replica.close()


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
