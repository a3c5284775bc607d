"""The paths of models that answer inputs with predictions: /predict, /models/NAME/predict, the Open Inference Protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

from cluster.errors import RequestError, suggest
from serve.asgi import open_inference
from serve.asgi.docs_page import render_docs_page
from serve.asgi.exchange import Exchange, Reply, json_reply
from serve.asgi.openapi import build_openapi
from serve.asgi.service import Intake, Route, immediate
from serve.asgi.try_page import render_try_page
from serve.model.batcher import Job
from serve.model.served_model import ServedModel

# Larger bodies are parsed in a thread, so that they do not block other requests.
_LARGE_BYTES = 1 << 16


class Predictions:
    """A `serve.asgi.service.Service` for models of this kind; /predict uses the first."""

    def __init__(self, models: Sequence[ServedModel], intake: Intake, timeout_s: float) -> None:
        """A request that is not answered within `timeout_s` gets a 504."""
        self.models: dict[str, ServedModel] = {str(served.identity["name"]): served for served in models}
        self._first = models[0]
        self._intake, self._timeout_s = intake, timeout_s
        self._waiters: set[asyncio.Future[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._routes = {
            "/predict": Route("POST", self._predict_first),
            "/v2": Route("GET", self._v2_server),
        }

    def find_route(self, path: str) -> Route | None:
        """Return the route of a path, or None for a path of others. Raises `RequestError` 404 for an unknown model.

        Paths with a model's name are /models/NAME/predict and /v2/models/NAME[/versions/N][/infer|ready].
        """
        if path in self._routes:
            return self._routes[path]
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
            (): Route("GET", lambda exchange: immediate(json_reply(open_inference.model_metadata(served)))),
            ("ready",): Route("GET", lambda exchange: immediate(json_reply({"name": name, "ready": True}))),
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
        body = await self._intake.read(exchange, served)
        content_type = exchange.header(b"content-type")
        if len(body) > _LARGE_BYTES:
            rows = await asyncio.to_thread(lambda: served.parse_inputs(served.parse_body(body, content_type)))
        else:
            rows = served.parse_inputs(served.parse_body(body, content_type))
        job = await self._run_job(exchange, served, rows)
        return json_reply({"predictions": job.answers, "model": job.identity, "timing_ms": exchange.timing_ms()})

    async def _infer(self, exchange: Exchange, served: ServedModel) -> Reply:
        body = await self._intake.read(exchange, served)
        request = open_inference.parse_request(
            served, body, exchange.header(b"inference-header-content-length"), exchange.header(b"content-type")
        )
        job = await self._run_job(exchange, served, served.parse_inputs(request.inputs))
        return json_reply(open_inference.build_response(served, request, job, exchange.timing_ms()))

    async def _run_job(self, exchange: Exchange, served: ServedModel, rows: list[Any]) -> Job:
        """Submit a request's rows to the batcher, wait for the job, count its predictions and return it.

        Raises `RequestError` 429 if too many inputs wait and 504 after the timeout, and any error of the model.
        """
        self._loop = self._loop or asyncio.get_running_loop()
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

    def give_up(self, error: RequestError) -> None:
        """Answer all requests that still wait for their predictions with `error`."""
        for waiter in list(self._waiters):
            if not waiter.done():
                waiter.set_exception(error)

    # -- pages

    def schema(self) -> dict[str, Any]:
        """Return the OpenAPI schema of the paths."""
        return build_openapi(self._first, alone=len(self.models) == 1)

    def docs_page(self, schema: dict[str, Any], root: str) -> str:
        """Return the HTML of /docs."""
        first = self._first
        return render_docs_page(schema, first.identity, first.example, first.task.other_bodies, root=root)

    def try_page(self, root: str) -> str:
        """Return the HTML of `/`."""
        return render_try_page(list(self.models.values()), root=root)

    async def _v2_server(self, exchange: Exchange) -> Reply:
        return json_reply(open_inference.server_metadata())


def _wake(jobs: list[Job]) -> None:
    for job in jobs:
        if job.waiter is not None and not job.waiter.done():
            job.waiter.set_result(None)
