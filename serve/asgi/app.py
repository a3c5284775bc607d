"""The HTTP side of a replica: an ASGI application of plain functions, a table of paths, and one form for all refusals.

No framework stands between a request and its batch: on two cores FastAPI's routing alone costs as much as a tenth of
MiniLM's forward pass. Nothing here knows Ray.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from cluster.errors import RequestError, nearest, outcome
from serve.asgi import open_inference
from serve.asgi.access_log import AccessLog
from serve.asgi.auth import Guard
from serve.asgi.docs_page import docs_page
from serve.asgi.exchange import HTML, TEXT, Exchange, Receive, Reply, Send, json_reply, refusal
from serve.asgi.openapi import openapi
from serve.asgi.tracing import Traces
from serve.asgi.try_page import try_page
from serve.model.batcher import Job
from serve.model.served_model import Served

_log = logging.getLogger("raymill.serve")
# Open to everybody: what looks after the process has no key, and the page to try it by hand has a field for one.
_OPEN = {"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/"}
# Bodies over this are read as JSON beside the event loop, so that other requests go on meanwhile.
_LARGE_BYTES = 1 << 16
_METRICS = "text/plain; version=0.0.4; charset=utf-8"

Handler = Callable[[Exchange], Awaitable[Reply]]


class Route(NamedTuple):
    """What answers one path."""

    method: str
    handler: Handler


class HttpApp:
    """Answers for the models of one replica; the first is the one that /predict means."""

    def __init__(
        self,
        models: Sequence[Served],
        *,
        guard: Guard,
        timeout_s: float,
        metrics_page: Callable[[], Awaitable[str]],
        access_log: AccessLog | None = None,
        traces: Traces | None = None,
        count_refused: Callable[[int, str], None] = lambda status, reason: None,
    ) -> None:
        """`count_refused` hears of requests that came to no model."""
        self.models: dict[str, Served] = {str(served.model["name"]): served for served in models}
        self._first = models[0]
        self._guard, self._timeout_s, self._metrics_page = guard, timeout_s, metrics_page
        self._access_log, self._traces, self._count_refused = access_log, traces, count_refused
        self._loop: asyncio.AbstractEventLoop | None = None
        self._routes = {
            "/predict": Route("POST", self._predict_first),
            "/healthz": Route("GET", self._healthz),
            "/readyz": Route("GET", self._readyz),
            "/metrics": Route("GET", self._metrics),
            "/docs": Route("GET", self._docs),
            "/openapi.json": Route("GET", self._openapi),
            "/": Route("GET", self._try),
            "/v2": Route("GET", self._v2_server),
            "/v2/health/live": Route("GET", self._v2_live),
            "/v2/health/ready": Route("GET", self._v2_live),
        }

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        self._loop = self._loop or asyncio.get_running_loop()
        exchange = Exchange(scope, receive)
        reply: Reply | None = None
        try:
            reply = await self._answered(exchange)
            await exchange.answer(send, reply)
        except asyncio.CancelledError:
            exchange.reason = "client_gone"
            raise
        finally:
            self._note(exchange, reply.status if reply else 499)

    async def _answered(self, exchange: Exchange) -> Reply:
        try:
            if exchange.path not in _OPEN:
                exchange.key = self._guard.admit(exchange.headers)
            return await self._handler(exchange)(exchange)
        except RequestError as error:
            exchange.reason = error.code
            wait_s = getattr(error, "retry_after_s", 1)
            if error.code == "overloaded":
                wait_s = exchange.model.batcher.retry_after_s
            return refusal(error, exchange.path, wait_s)
        except Exception as error:
            exchange.reason = outcome(error).label
            _log.exception("request %s failed", exchange.request_id)
            told = RequestError(500, "internal", f"the server failed; its log says how ({exchange.request_id})")
            return refusal(told, exchange.path)

    def _handler(self, exchange: Exchange) -> Handler:
        """Return what answers a request. Raises `RequestError` 404 or 405."""
        path = exchange.path
        route = self._routes.get(path) or self._of_model(path)
        if route is None:
            raise RequestError(404, "not_found", "Not Found; see /docs")
        method = "GET" if exchange.method == "HEAD" else exchange.method
        if method != route.method:
            told = f"Method Not Allowed; {path[:80]} takes {route.method}; see /docs"
            allowed = "GET, HEAD" if route.method == "GET" else route.method
            raise RequestError(405, "method_not_allowed", told, (("allow", allowed),))
        return route.handler

    def _of_model(self, path: str) -> Route | None:
        """Return the route of a path that names a model: /models/NAME/predict, /v2/models/NAME[/versions/N][/infer|ready]."""
        parts = path.strip("/").split("/")
        is_v2 = parts[:2] == ["v2", "models"]
        if not is_v2 and (parts[0] != "models" or len(parts) != 3 or parts[2] != "predict"):
            return None
        name, rest = (parts[2], parts[3:]) if is_v2 and len(parts) > 2 else (parts[1], [])
        if name not in self.models:
            raise RequestError(
                404, "unknown_model", f"there is no model {name[:80]!a} here; {nearest(name[:80], self.models)}"
            )
        served = self.models[name]
        if not is_v2:
            return Route("POST", lambda exchange: self._predict(exchange, served))
        if rest[:1] == ["versions"] and len(rest) > 1:
            if rest[1] != str(served.model["version"]):
                have = served.model["version"]
                raise RequestError(404, "unknown_version", f"{name} is served in version {have}, not {rest[1][:20]!a}")
            rest = rest[2:]
        found: dict[tuple[str, ...], Route] = {
            (): Route("GET", lambda exchange: _now(json_reply(open_inference.metadata(served)))),
            ("ready",): Route("GET", lambda exchange: _now(json_reply({"name": name, "ready": True}))),
            ("infer",): Route("POST", lambda exchange: self._infer(exchange, served)),
        }
        return found.get(tuple(rest))

    # -- predictions

    async def _predict_first(self, exchange: Exchange) -> Reply:
        served = self._first
        if exchange.query:
            name = parse_qs(exchange.query.decode("latin-1")).get("model", [""])[0]
            if name and name not in self.models:
                raise RequestError(
                    404, "unknown_model", f"there is no model {name[:80]!a} here; {nearest(name, self.models)}"
                )
            served = self.models.get(name, served)
        return await self._predict(exchange, served)

    async def _predict(self, exchange: Exchange, served: Served) -> Reply:
        exchange.model = served
        body = await exchange.read(served.settings.max_body_bytes)
        content_type = exchange.header(b"content-type")
        if len(body) > _LARGE_BYTES:
            rows = await asyncio.to_thread(lambda: served.rows_of(served.read(body, content_type)))
        else:
            rows = served.rows_of(served.read(body, content_type))
        job = await self._computed(exchange, served, rows)
        return json_reply({"predictions": job.answers, "model": served.model, "timing_ms": exchange.timing_ms()})

    async def _infer(self, exchange: Exchange, served: Served) -> Reply:
        exchange.model = served
        body = await exchange.read(served.settings.max_body_bytes)
        asked = open_inference.read(served, body, exchange.header(b"inference-header-content-length"))
        job = await self._computed(exchange, served, served.rows_of(asked.inputs))
        return json_reply(open_inference.answer(served, asked, job.answers, exchange.timing_ms()))

    async def _computed(self, exchange: Exchange, served: Served, rows: list[Any]) -> Job:
        """Return the finished job of a request's rows; counts it. Raises `RequestError`, and what the model raised."""
        assert self._loop is not None
        waiter = self._loop.create_future()
        job = served.batcher.submit(rows, self._done)
        exchange.job = job
        job.waiter = waiter
        served.metrics.in_flight.inc()
        try:
            await asyncio.wait_for(waiter, self._timeout_s)
        except asyncio.TimeoutError:
            raise RequestError(
                504, "timeout", f"no answer within {self._timeout_s:g} s; send fewer inputs or try again"
            ) from None
        finally:
            served.metrics.in_flight.dec()
            if not waiter.done() or waiter.cancelled():
                job.dropped = True  # nobody waits for it: it leaves the batches
        if job.error is not None:
            raise job.error
        served.metrics.answered(job, served.labels_of(job.answers))
        return job

    def _done(self, jobs: list[Job]) -> None:
        """Called in the batches' thread: one call into the event loop for all requests that ended together."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(_wake, jobs)

    def _note(self, exchange: Exchange, status: int) -> None:
        """Count a request that is over, and write it down where that is asked for."""
        seconds = time.perf_counter() - exchange.started
        if exchange.model is not None:
            exchange.model.metrics.request(status, exchange.reason, seconds)
        elif status >= 400:
            self._count_refused(status, exchange.reason)
        if self._access_log is not None:
            self._access_log.write(exchange, status, seconds)
        if self._traces is not None and exchange.model is not None:
            self._traces.write(exchange, status, seconds)

    # -- the other pages

    async def _healthz(self, exchange: Exchange) -> Reply:
        return json_reply({"status": "ok"})

    async def _readyz(self, exchange: Exchange) -> Reply:
        first = self._first
        others = [served.model for served in self.models.values()]
        return json_reply({"status": "ready", "model": first.model, "golden_rows": first.golden_rows, "models": others})

    async def _metrics(self, exchange: Exchange) -> Reply:
        return Reply(200, (await self._metrics_page()).encode(), _METRICS)

    async def _docs(self, exchange: Exchange) -> Reply:
        first = self._first
        page = docs_page(self._schema(), first.model, first.example, first.task.other_bodies)
        return Reply(200, page.encode(), HTML)

    async def _openapi(self, exchange: Exchange) -> Reply:
        return json_reply(self._schema())

    def _schema(self) -> dict[str, Any]:
        return openapi(self._first, alone=len(self.models) == 1)

    async def _try(self, exchange: Exchange) -> Reply:
        return Reply(200, try_page(list(self.models.values())).encode(), HTML)

    async def _v2_server(self, exchange: Exchange) -> Reply:
        return json_reply(open_inference.server())

    async def _v2_live(self, exchange: Exchange) -> Reply:
        return Reply(200, b"", TEXT)


def _wake(jobs: list[Job]) -> None:
    for job in jobs:
        if job.waiter is not None and not job.waiter.done():
            job.waiter.set_result(None)


async def _now(reply: Reply) -> Reply:
    return reply


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
