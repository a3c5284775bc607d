"""The HTTP side of a replica: an ASGI application of plain functions, a table of paths, and one format for all errors.

It uses no web framework: on two cores, FastAPI's routing alone costs as much as a tenth of MiniLM's forward pass. Does
not import Ray.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from cluster.errors import RequestError, classify_error, suggest
from serve.asgi import open_inference
from serve.asgi.access_log import AccessLog
from serve.asgi.auth import ApiKeyAuth, RateLimited
from serve.asgi.cors import CorsPolicy
from serve.asgi.docs_page import render_docs_page
from serve.asgi.exchange import CLOSE, HTML, TEXT, Exchange, Receive, Reply, Send, error_reply, json_reply
from serve.asgi.openapi import build_openapi
from serve.asgi.paths import path_to_root
from serve.asgi.tracing import TraceExporter
from serve.asgi.try_page import render_try_page
from serve.model.batcher import Job
from serve.model.served_model import ServedModel

_log = logging.getLogger("raymill.serve")
# Paths that need no API key: health probes send none, and the page at / has a field for it.
_OPEN_PATHS = {"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/"}
# Larger bodies are parsed in a thread, so that they do not block other requests.
_LARGE_BYTES = 1 << 16
_METRICS = "text/plain; version=0.0.4; charset=utf-8"
_CLIENT_GONE = 499
# While an endpoint stops: how long requests are still computed that were on their way when it began.
_GRACE_S = 0.5

Handler = Callable[[Exchange], Awaitable[Reply]]


class Route(NamedTuple):
    """The method and the handler of a path."""

    method: str
    handler: Handler


class HttpApp:
    """The ASGI application for the models of one replica; /predict uses the first model."""

    def __init__(
        self,
        models: Sequence[ServedModel],
        *,
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
        """`metrics_page` returns the page for /metrics. `count_rejected` is called with the status and the error code
        of requests that fail before they reach a model. With `sends_request_id`, answers have the header x-request-id;
        Ray Serve adds it itself. A client must send its body within `client_timeout_s`. Pages of `cors_origins` may send
        requests from a browser."""
        self.models: dict[str, ServedModel] = {str(served.identity["name"]): served for served in models}
        self._first = models[0]
        self._auth, self._timeout_s, self._metrics_page = auth, timeout_s, metrics_page
        self._access_log, self._traces, self._count_rejected = access_log, traces, count_rejected
        self._sends_request_id, self._client_timeout_s = sends_request_id, client_timeout_s
        self._cors = CorsPolicy(cors_origins)
        #: How many requests are being answered now.
        self.n_active = 0
        self._waiters: set[asyncio.Future[None]] = set()
        self._draining_since: float | None = None
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
            "/v2/health/ready": Route("GET", self._v2_ready),
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
        self.n_active += 1
        try:
            reply = await self._respond(exchange)
            more_headers = self._cors.headers(exchange.headers.get(b"origin", b""))
            if self._draining_since is not None:
                more_headers += CLOSE
            await exchange.answer(
                send, reply._replace(headers=reply.headers + more_headers), with_id=self._sends_request_id
            )
        except asyncio.CancelledError:
            exchange.reason = "client_gone"
            raise
        finally:
            self.n_active -= 1
            self._record(exchange, reply.status if reply else _CLIENT_GONE)

    async def _respond(self, exchange: Exchange) -> Reply:
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
        route = self._routes.get(path) or self._model_route(path)
        if route is None:
            raise RequestError(404, "not_found", "Not Found; see /docs")
        return route

    def _options(self, exchange: Exchange) -> Reply:
        """Answer an OPTIONS request, which needs no key: a browser's preflight, or a question for the methods of a path."""
        allowed = _allowed_methods(self._find_route(exchange.path))
        headers: tuple[tuple[bytes, bytes], ...] = ((b"allow", allowed.encode()),)
        if exchange.headers.get(b"access-control-request-method"):
            requested = exchange.headers.get(b"access-control-request-headers", b"")
            headers += self._cors.preflight(exchange.headers.get(b"origin", b""), requested, allowed)
        return Reply(204, b"", TEXT, headers)

    def _model_route(self, path: str) -> Route | None:
        """Return the route of a path that names a model, or None for any other path.

        These are /models/NAME/predict and /v2/models/NAME[/versions/N][/infer|ready].
        """
        parts = path.strip("/").split("/")
        is_v2 = parts[:2] == ["v2", "models"]
        if not is_v2 and (parts[0] != "models" or len(parts) != 3 or parts[2] != "predict"):
            return None
        name, rest = (parts[2], parts[3:]) if is_v2 and len(parts) > 2 else (parts[1], [])
        served = self._find_model(name)
        if not is_v2:
            return Route("POST", lambda exchange: self._predict(exchange, served))
        if rest[:1] == ["versions"] and len(rest) > 1:
            version = served.identity["version"]
            if rest[1] != str(version):
                raise RequestError(
                    404, "unknown_version", f"{name} is served in version {version}, not {rest[1][:20]!a}"
                )
            rest = rest[2:]
        routes: dict[tuple[str, ...], Route] = {
            (): Route("GET", lambda exchange: _immediate(json_reply(open_inference.model_metadata(served)))),
            ("ready",): Route("GET", lambda exchange: _immediate(json_reply({"name": name, "ready": True}))),
            ("infer",): Route("POST", lambda exchange: self._infer(exchange, served)),
        }
        return routes.get(tuple(rest))

    def _find_model(self, name: str) -> ServedModel:
        if name not in self.models:
            hint = suggest(name[:80], self.models)
            raise RequestError(404, "unknown_model", f"this endpoint has no model {name[:80]!a}; {hint}")
        return self.models[name]

    # -- predictions

    async def _predict_first(self, exchange: Exchange) -> Reply:
        names = parse_qs(exchange.query.decode("latin-1")).get("model", []) if exchange.query else []
        if len(set(names)) > 1:
            raise RequestError(400, "repeated_parameter", "the parameter 'model' occurs twice; send it once")
        name = names[0] if names else ""
        return await self._predict(exchange, self._find_model(name) if name else self._first)

    async def _predict(self, exchange: Exchange, served: ServedModel) -> Reply:
        body = await self._read(exchange, served)
        content_type = exchange.header(b"content-type")
        if len(body) > _LARGE_BYTES:
            rows = await asyncio.to_thread(lambda: served.parse_inputs(served.parse_body(body, content_type)))
        else:
            rows = served.parse_inputs(served.parse_body(body, content_type))
        job = await self._run_job(exchange, served, rows)
        return json_reply({"predictions": job.answers, "model": job.identity, "timing_ms": exchange.timing_ms()})

    async def _read(self, exchange: Exchange, served: ServedModel) -> bytes:
        """Return the body of a request to a model. Raises `RequestError` 503 if the endpoint no longer takes requests."""
        exchange.model = served
        if self._draining_since is not None and time.monotonic() > self._draining_since + _GRACE_S:
            raise _shutting_down()
        return await exchange.read(served.max_body_bytes, self._client_timeout_s)

    async def _infer(self, exchange: Exchange, served: ServedModel) -> Reply:
        body = await self._read(exchange, served)
        request = open_inference.parse_request(
            served, body, exchange.header(b"inference-header-content-length"), exchange.header(b"content-type")
        )
        job = await self._run_job(exchange, served, served.parse_inputs(request.inputs))
        return json_reply(open_inference.build_response(served, request, job, exchange.timing_ms()))

    async def _run_job(self, exchange: Exchange, served: ServedModel, rows: list[Any]) -> Job:
        """Submit a request's rows to the batcher, wait for the job, count its predictions and return it.

        Raises `RequestError` 429 if too many inputs wait and 504 after the timeout, and any error of the model.
        """
        assert self._loop is not None
        waiter = self._loop.create_future()
        job = served.submit(rows, self._on_done)
        exchange.job = job
        job.waiter = waiter
        # Dropped unless it is answered: the batcher removes a job for whose answer no client waits.
        is_answered = False
        served.metrics.in_flight.inc()
        self._waiters.add(waiter)
        try:
            await asyncio.wait_for(waiter, self._timeout_s)
            is_answered = True
        except asyncio.TimeoutError:
            raise RequestError(
                504, "timeout", f"no answer within {self._timeout_s:g} s; send fewer inputs or try again"
            ) from None
        finally:
            served.metrics.in_flight.dec()
            self._waiters.discard(waiter)
            job.dropped = not is_answered
        if job.error is not None:
            raise job.error
        served.metrics.count_predictions(job, served.labels_to_count(job.answers))
        return job

    def _on_done(self, jobs: list[Job]) -> None:
        """Wake the requests that wait for `jobs`, in one call into the event loop. Runs in the batcher's thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(_wake, jobs)

    # -- the end

    def drain(self) -> None:
        """Answer the requests that are there, and refuse new ones with 503; the readiness paths say so at once."""
        self._draining_since = self._draining_since or time.monotonic()

    def give_up(self) -> None:
        """Answer all requests that still wait for their predictions with 503."""
        for waiter in list(self._waiters):
            if not waiter.done():
                waiter.set_exception(_shutting_down())

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
        first = self._first
        models = [served.identity for served in self.models.values()]
        status = {"status": "ready", "model": first.identity, "golden_rows": first.golden_rows, "models": models}
        return json_reply(status)

    async def _metrics(self, exchange: Exchange) -> Reply:
        return Reply(200, (await self._metrics_page()).encode(), _METRICS)

    async def _docs(self, exchange: Exchange) -> Reply:
        first = self._first
        page = render_docs_page(
            self._schema(),
            first.identity,
            first.example,
            first.task.other_bodies,
            root=path_to_root(exchange.sent_path),
        )
        return Reply(200, page.encode(), HTML)

    async def _openapi(self, exchange: Exchange) -> Reply:
        return json_reply(self._schema())

    def _schema(self) -> dict[str, Any]:
        return build_openapi(self._first, alone=len(self.models) == 1)

    async def _try(self, exchange: Exchange) -> Reply:
        page = render_try_page(list(self.models.values()), root=path_to_root(exchange.sent_path))
        return Reply(200, page.encode(), HTML)

    async def _v2_server(self, exchange: Exchange) -> Reply:
        return json_reply(open_inference.server_metadata())

    async def _v2_ready(self, exchange: Exchange) -> Reply:
        self._check_ready()
        return Reply(200, b"", TEXT)

    def _check_ready(self) -> None:
        if self._draining_since is not None:
            raise _shutting_down()

    async def _v2_live(self, exchange: Exchange) -> Reply:
        return Reply(200, b"", TEXT)


def _allowed_methods(route: Route) -> str:
    return "GET, HEAD, OPTIONS" if route.method == "GET" else f"OPTIONS, {route.method}"


def _shutting_down() -> RequestError:
    return RequestError(503, "shutting_down", "this endpoint is being stopped; send the request again, or elsewhere")


def _wake(jobs: list[Job]) -> None:
    for job in jobs:
        if job.waiter is not None and not job.waiter.done():
            job.waiter.set_result(None)


async def _immediate(reply: Reply) -> Reply:
    return reply


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
