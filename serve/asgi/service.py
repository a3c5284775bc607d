"""What a kind of models adds to the HTTP side of a replica: its paths, and how their requests are read."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol

from cluster.errors import RequestError
from serve.asgi.exchange import Exchange, Reply, StreamReply

# While an endpoint stops: how long requests are still computed that were on their way when it began.
_GRACE_S = 0.5

Handler = Callable[[Exchange], Awaitable["Reply | StreamReply"]]


class Route(NamedTuple):
    """The method and the handler of a path."""

    method: str
    handler: Handler


class ModelInfo(Protocol):
    """What all models have that a replica serves."""

    max_body_bytes: int
    golden_rows: int

    @property
    def identity(self) -> dict[str, Any]:
        """Name, version, fingerprint, checkpoint and engine."""


class Intake:
    """Whether a replica still takes requests, and how long a client may take to send one."""

    def __init__(self, client_timeout_s: float) -> None:
        self._client_timeout_s = client_timeout_s
        self.draining_since: float | None = None

    async def read(self, exchange: Exchange, model: ModelInfo) -> bytes:
        """Return the body of a request to a model. Raises `RequestError` 503 if the replica takes no more requests."""
        exchange.model = model
        if self.draining_since is not None and time.monotonic() > self.draining_since + _GRACE_S:
            raise shutting_down()
        return await exchange.read(model.max_body_bytes, self._client_timeout_s)


class Service(Protocol):
    """The paths of one kind of models."""

    @property
    def models(self) -> Mapping[str, ModelInfo]:
        """The models by name; they may change while the replica runs."""

    def find_route(self, path: str) -> Route | None:
        """Return the route of a path, or None if it belongs to another service. Raises `RequestError`."""

    def give_up(self, error: RequestError) -> None:
        """Answer all requests that still wait for a model with `error`."""

    def schema(self) -> dict[str, Any]:
        """Return the OpenAPI schema of the paths."""

    def docs_page(self, schema: dict[str, Any], root: str) -> str:
        """Return the HTML of /docs for a whole endpoint with this schema; `root` is the relative address of `/`."""

    def try_page(self, root: str) -> str:
        """Return the HTML of `/`."""


def shutting_down() -> RequestError:
    """Return the error of a request that an endpoint does not take because it stops."""
    return RequestError(503, "shutting_down", "this endpoint is being stopped; send the request again, or elsewhere")


async def immediate(reply: Reply) -> Reply:
    """Return a reply that is known already, as a handler does."""
    return reply
