"""The HTTP side of a replica: an ASGI application of plain functions, a table of paths, and one format for all errors.

It uses no web framework: on two cores, FastAPI's routing alone costs as much as a tenth of MiniLM's forward pass. Does
not import Ray.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from cluster.errors import RequestError, classify_error
from serve.asgi.access_log import AccessLog
from serve.asgi.auth import ApiKeyAuth, RateLimited
from serve.asgi.cors import CorsPolicy
from serve.asgi.exchange import CLOSE, HTML, TEXT, Exchange, Receive, Reply, Send, StreamReply, error_reply, json_reply
from serve.asgi.paths import path_to_root
from serve.asgi.predictions import Predictions
from serve.asgi.service import Handler, Intake, Route, Service, shutting_down
from serve.asgi.tracing import TraceExporter
from serve.model.served_model import ServedModel

_log = logging.getLogger("raymill.serve")
# Paths that need no API key: health probes send none, and the page at / has a field for it.
_OPEN_PATHS = {"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/"}
_METRICS = "text/plain; version=0.0.4; charset=utf-8"
_CLIENT_GONE = 499


class HttpApp:
    """The ASGI application for the models of one replica; /predict uses the first of `models`."""

    def __init__(
        self,
        models: Sequence[ServedModel] = (),
        *,
        services: Sequence[Callable[[Intake], Service]] = (),
        auth: ApiKeyAuth,
        timeout_s: float,
        metrics_page: Callable[[], Awaitable[str]],
        access_log: AccessLog | None = None,
        traces: TraceExporter | None = None,
        count_rejected: Callable[[int, str], None] = lambda status, reason: None,
        sends_request_id: bool = False,
        client_timeout_s: float = 30.0,
        cors_origins: Sequence[str] = (),
    ) -> None:
        """`services` make the paths of models of other kinds. `metrics_page` returns the page for /metrics. `count_rejected` is called with the status and the error code
        of requests that fail before they reach a model. With `sends_request_id`, answers have the header x-request-id;
        Ray Serve adds it itself. A client must send its body within `client_timeout_s`. Pages of `cors_origins` may send
        requests from a browser."""
        self.intake = Intake(client_timeout_s)
        self.services: list[Service] = [make(self.intake) for make in services]
        if models:
            self.services.insert(0, Predictions(models, self.intake, timeout_s))
        self._auth, self._metrics_page = auth, metrics_page
        self._access_log, self._traces, self._count_rejected = access_log, traces, count_rejected
        self._sends_request_id = sends_request_id
        self._cors = CorsPolicy(cors_origins)
        #: How many requests are being answered now.
        self.n_active = 0
        self._routes = {
            "/healthz": Route("GET", self._healthz),
            "/readyz": Route("GET", self._readyz),
            "/metrics": Route("GET", self._metrics),
            "/docs": Route("GET", self._docs),
            "/openapi.json": Route("GET", self._openapi),
            "/": Route("GET", self._try),
            "/v2/health/live": Route("GET", self._v2_live),
            "/v2/health/ready": Route("GET", self._v2_ready),
        }

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive)
        reply: Reply | StreamReply | None = None
        self.n_active += 1
        try:
            reply = await self._respond(exchange)
            more_headers = self._cors.headers(exchange.headers.get(b"origin", b""))
            if self.intake.draining_since is not None:
                more_headers += CLOSE
            await exchange.answer(send, reply, more_headers, with_id=self._sends_request_id)
        except asyncio.CancelledError:
            exchange.reason = "client_gone"
            raise
        finally:
            self.n_active -= 1
            self._record(exchange, reply.status if reply else _CLIENT_GONE)

    async def _respond(self, exchange: Exchange) -> Reply | StreamReply:
        try:
            exchange.check_headers()
            if exchange.method == "OPTIONS":
                return self._options(exchange)
            if exchange.path not in _OPEN_PATHS:
                exchange.key = self._auth.authenticate(exchange.headers)
            return await self._find_handler(exchange)(exchange)
        except RequestError as error:
            exchange.reason = error.code
            retry_after_s = error.retry_after_s if isinstance(error, RateLimited) else 1
            if error.code == "overloaded":
                retry_after_s = exchange.model.retry_after_s
            return error_reply(error, exchange.path, retry_after_s)
        except Exception as error:
            exchange.reason = classify_error(error).label
            _log.exception("request %s failed", exchange.request_id)
            message = f"the server failed; look for request {exchange.request_id} in its log"
            return error_reply(RequestError(500, "internal", message), exchange.path)

    def _find_handler(self, exchange: Exchange) -> Handler:
        """Return the handler of a request. Raises `RequestError` 404 for an unknown path, 405 for a wrong method."""
        route = self._find_route(exchange.path)
        method = "GET" if exchange.method == "HEAD" else exchange.method
        if method != route.method:
            message = f"Method Not Allowed; {exchange.path[:80]} accepts {route.method}; see /docs"
            raise RequestError(405, "method_not_allowed", message, (("allow", _allowed_methods(route)),))
        return route.handler

    def _find_route(self, path: str) -> Route:
        if route := self._routes.get(path):
            return route
        for service in self.services:
            if route := service.find_route(path):
                return route
        raise RequestError(404, "not_found", "Not Found; see /docs")

    def _options(self, exchange: Exchange) -> Reply:
        """Answer an OPTIONS request, which needs no key: a browser's preflight, or a question for the methods of a path."""
        allowed = _allowed_methods(self._find_route(exchange.path))
        headers: tuple[tuple[bytes, bytes], ...] = ((b"allow", allowed.encode()),)
        if exchange.headers.get(b"access-control-request-method"):
            requested = exchange.headers.get(b"access-control-request-headers", b"")
            headers += self._cors.preflight(exchange.headers.get(b"origin", b""), requested, allowed)
        return Reply(204, b"", TEXT, headers)

    # -- the end

    def drain(self) -> None:
        """Answer the requests that are there, and refuse new ones with 503; the readiness paths say so at once."""
        self.intake.draining_since = self.intake.draining_since or time.monotonic()

    def give_up(self) -> None:
        """Answer all requests that still wait for a model with 503."""
        for service in self.services:
            service.give_up(shutting_down())

    def _record(self, exchange: Exchange, status: int) -> None:
        """Count a finished request, and write it to the access log and to the traces if they are turned on."""
        seconds = time.perf_counter() - exchange.started
        if exchange.model is not None:
            exchange.model.metrics.count_request(status, exchange.reason, seconds)
        elif status >= 400:
            self._count_rejected(status, exchange.reason)
        if self._access_log is not None:
            self._access_log.write(exchange, status, seconds)
        if self._traces is not None and exchange.model is not None:
            self._traces.write(exchange, status, seconds)

    # -- the other pages

    async def _healthz(self, exchange: Exchange) -> Reply:
        return json_reply({"status": "ok"})

    async def _readyz(self, exchange: Exchange) -> Reply:
        self._check_ready()
        models = [model for service in self.services for model in service.models.values()]
        first = models[0]
        status = {"status": "ready", "model": first.identity, "golden_rows": first.golden_rows}
        return json_reply({**status, "models": [model.identity for model in models]})

    async def _metrics(self, exchange: Exchange) -> Reply:
        return Reply(200, (await self._metrics_page()).encode(), _METRICS)

    async def _docs(self, exchange: Exchange) -> Reply:
        page = self.services[0].docs_page(self._schema(), path_to_root(exchange.sent_path))
        return Reply(200, page.encode(), HTML)

    async def _openapi(self, exchange: Exchange) -> Reply:
        return json_reply(self._schema())

    def _schema(self) -> dict[str, Any]:
        """Return the schema of all services; the first one's names the endpoint."""
        schema, *others = [service.schema() for service in self.services]
        for other in others:
            schema["paths"] = {**other["paths"], **schema["paths"]}
            schema["components"]["schemas"] = {**other["components"]["schemas"], **schema["components"]["schemas"]}
        return schema

    async def _try(self, exchange: Exchange) -> Reply:
        page = self.services[0].try_page(path_to_root(exchange.sent_path))
        return Reply(200, page.encode(), HTML)

    async def _v2_ready(self, exchange: Exchange) -> Reply:
        self._check_ready()
        return Reply(200, b"", TEXT)

    def _check_ready(self) -> None:
        if self.intake.draining_since is not None:
            raise shutting_down()

    async def _v2_live(self, exchange: Exchange) -> Reply:
        return Reply(200, b"", TEXT)


def _allowed_methods(route: Route) -> str:
    return "GET, HEAD, OPTIONS" if route.method == "GET" else f"OPTIONS, {route.method}"


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
