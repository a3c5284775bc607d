"""Ray Serve's own errors in our form: an ASGI middleware around its proxies and its replicas' servers.

The application's errors are JSON. Whatever else arrives with an error's status was written by Ray Serve: that there is no
application yet, no replica, no time left. Its text is for developers of Ray and is left out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from cluster.errors import RequestError
from serve.asgi.cors import CorsPolicy
from serve.asgi.exchange import JSON, Message, Receive, Send, error_reply

_App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
_UNAVAILABLE = RequestError(503, "unavailable", "no replica runs at the moment; send the request again")
_TIMEOUT = RequestError(504, "timeout", "no answer within the time limit; send fewer inputs or try again")
# Ray Serve's statuses. The application answers every path, so a path without one means that the application is not there.
_ERRORS = {404: _UNAVAILABLE, 408: _TIMEOUT, 503: _UNAVAILABLE, 504: _TIMEOUT}
_NO_PATH = RequestError(400, "invalid_http", "the request line has no path that starts with a slash")
_INTERNAL = RequestError(500, "internal", "the server failed; look into the logs of Ray Serve")


class RayErrors:
    """Wraps an ASGI application. Pages of `origins` may read the errors."""

    def __init__(self, app: _App, origins: Sequence[str] = ()) -> None:
        self._app, self._cors = app, CorsPolicy(origins)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_replaced = False

        async def send_json(message: Message) -> None:
            nonlocal is_replaced
            if message["type"] == "http.response.start" and _is_rays(message):
                is_replaced = True
                await self._send_error(scope, message, send)
            elif not is_replaced:
                await send(message)

        await self._app(scope, receive, send_json)

    async def _send_error(self, scope: MutableMapping[str, Any], start: Message, send: Send) -> None:
        error = _ERRORS.get(start["status"], _INTERNAL)
        if not scope["path"].startswith("/"):
            error = _NO_PATH
        reply = error_reply(error, scope["path"])
        ids = [(name, value) for name, value in start["headers"] if name.lower() == b"x-request-id"]
        origin = next((value for name, value in scope["headers"] if name == b"origin"), b"")
        headers = [
            (b"content-type", reply.content_type.encode()),
            (b"content-length", str(len(reply.body)).encode()),
            *reply.headers,
            *ids,
            *self._cors.headers(origin),
        ]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})


def _is_rays(start: Message) -> bool:
    """Return whether a response that starts with this message is an error of Ray Serve's own."""
    if start["status"] < 400:
        return False
    kinds = [value for name, value in start["headers"] if name.lower() == b"content-type"]
    return kinds != [JSON.encode()]
