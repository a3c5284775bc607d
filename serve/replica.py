"""One replica: a verified model behind HTTP. Ray Serve runs as many of these as the spec asks for.

No `from __future__ import annotations` here: FastAPI reads the handlers' annotations as types, and Ray Serve rebuilds
the class in another process, where strings would not be found again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import ray.serve
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from cluster.errors import RequestError, outcome
from serve import requests
from serve.docs_page import docs_page
from serve.metrics import ReplicaMetrics, merged
from trainer import golden, registry
from trainer.predictor import Predictor
from trainer.registry import Version

_SCRAPE_WITHIN_S = 5.0


class Settings(BaseModel):
    """What a replica is told: plain values, so that a Serve config file can hold them."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    name: str
    version: int
    folder: str
    threads: int
    on_gpu: bool
    max_batch_size: int
    batch_wait_ms: float
    max_inputs: int
    max_body_bytes: int
    timeout_s: float


class PredictRequest(BaseModel):
    """The body of POST /predict; what an input must be depends on the task, /docs shows one."""

    inputs: list[Any]


class ModelOut(BaseModel):
    """Which model answered."""

    name: str
    version: int
    fingerprint: str


class PredictResponse(BaseModel):
    """The answer of POST /predict, in the order of the inputs."""

    predictions: list[dict[str, Any]]
    model: ModelOut


class ErrorBody(BaseModel):
    """What was wrong."""

    code: str
    message: str


class ErrorResponse(BaseModel):
    """The body of every refusal."""

    error: ErrorBody


def _refusal(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message}}, status_code=status)


def create_app() -> FastAPI:
    """Return the HTTP side: one form for all refusals, no page that needs a network."""
    app = FastAPI(title="raymill", docs_url=None, redoc_url=None)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        codes = {404: "not_found", 405: "method_not_allowed"}
        hint = "; see /docs" if error.status_code in codes else ""
        return _refusal(error.status_code, codes.get(error.status_code, "http_error"), f"{error.detail}{hint}")

    async def failed(request: Request, error: Exception) -> Response:
        return _refusal(500, "internal", "the server failed; its log says how")

    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(Exception, failed)
    return app


app = create_app()
_REFUSALS: dict[int | str, dict[str, Any]] = {status: {"model": ErrorResponse} for status in (400, 413, 422, 503, 504)}


@ray.serve.deployment(name="Endpoint")
@ray.serve.ingress(app)
class Endpoint:
    """HTTP to predictions. Ready only after every file's digest and all golden rows were found right."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = Settings.model_validate(settings)
        version = Version(self.settings.name, self.settings.version, Path(self.settings.folder))
        registry.verify(version)
        device = "cuda" if self.settings.on_gpu else "cpu"
        self.predictor = Predictor(version.folder, device=device, threads=self.settings.threads)
        self.golden_rows = golden.replay(version.folder, self.predictor)
        self.model = {
            "name": version.name,
            "version": version.number,
            "fingerprint": self.predictor.contract.fingerprint,
        }
        self.metrics = ReplicaMetrics(version.name, version.number, self.predictor.contract.fingerprint)
        # torch holds the GIL little: one thread computes while the event loop goes on taking requests.
        self._compute = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
        self._prepare = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenize")
        queue: Any = self._score_batch
        queue.set_max_batch_size(self.settings.max_batch_size)
        queue.set_batch_wait_timeout_s(self.settings.batch_wait_ms / 1000)

    @app.post(
        "/predict",
        response_model=PredictResponse,
        responses=_REFUSALS,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": PredictRequest.model_json_schema()}},
            }
        },
    )
    async def predict(self, request: Request) -> Response:
        """Answer inputs with the model's predictions."""
        return await self._answered(lambda: self._predict(request))

    @app.get("/healthz")
    async def healthz(self) -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz(self) -> dict[str, Any]:
        """The model is loaded and its golden rows came out as recorded."""
        return {"status": "ready", "model": self.model, "golden_rows": self.golden_rows}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics_page(self) -> Response:
        """Prometheus metrics of all replicas, added up."""
        place = ray.serve.get_replica_context()
        handle = ray.serve.get_deployment_handle(place.deployment, place.app_name)
        # A replica that is starting, stopping or gone does not keep the others' counts from the page.
        found = await handle.broadcast("own_metrics").results_async(timeout_s=_SCRAPE_WITHIN_S, return_exceptions=True)
        pages = [page for page in found if isinstance(page, str)] or [self.metrics.text()]
        return PlainTextResponse(merged(pages), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/docs", response_class=HTMLResponse)
    async def docs(self) -> Response:
        """This page."""
        contract = self.predictor.contract
        answer = self.predictor.task.target.example(contract.fitted)
        example = {"input": self.predictor.task.example(contract), "answer": answer}
        return HTMLResponse(docs_page(app.openapi(), self.model, example, self.predictor.task.other_bodies))

    async def own_metrics(self) -> str:
        """Return this replica's own counts; called on all replicas by whichever one is scraped."""
        return self.metrics.text()

    async def _predict(self, request: Request) -> Response:
        limits = self.settings
        body = await requests.read_body(request.stream(), request.headers.get("content-length"), limits.max_body_bytes)
        content_type = request.headers.get("content-type", "")
        loop = asyncio.get_running_loop()
        inputs = await loop.run_in_executor(self._prepare, self._inputs, body, content_type)
        # One place in the queue for each input: a large request shares batches with small ones, and neither starves.
        scores = np.stack(await asyncio.gather(*[self._score_batch(ids) for ids in inputs]))
        target = self.predictor.task.target
        predictions = target.answer(self.predictor.contract.fitted, scores)
        self.metrics.answered([target.counted(prediction) for prediction in predictions])
        return JSONResponse({"predictions": predictions, "model": self.model})

    def _inputs(self, body: bytes, content_type: str) -> list[np.ndarray]:
        """Return the model inputs of a request's body; runs in a thread of its own."""
        task, limits = self.predictor.task, self.settings
        found = task.body_inputs(self.predictor.contract, body, content_type)
        given = requests.parse(body, limits.max_inputs) if found is None else requests.limited(found, limits.max_inputs)
        return self.predictor.encode(self.predictor.parse(given))

    async def _answered(self, work: Callable[[], Awaitable[Response]]) -> Response:
        """Run `work` within the time limit and count how it ended."""
        started = time.perf_counter()
        self.metrics.in_flight.inc()
        status, reason = 200, "ok"
        try:
            return await asyncio.wait_for(work(), self.settings.timeout_s)
        except asyncio.TimeoutError:
            status, reason = 504, "timeout"
            return _refusal(
                504, reason, f"no answer within {self.settings.timeout_s:g} s; send fewer inputs or try again"
            )
        except RequestError as error:
            status, reason = error.status, error.code
            return _refusal(status, reason, str(error))
        except asyncio.CancelledError:
            status, reason = 499, "client_gone"
            raise
        except Exception as error:
            status, reason = 500, outcome(error).label
            raise
        finally:
            self.metrics.in_flight.dec()
            self.metrics.request(status, reason, time.perf_counter() - started)

    @ray.serve.batch
    async def _score_batch(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """Score several requests' inputs in one pass; called with one input, returns its scores, shape (C,)."""
        started = time.perf_counter()
        loop = asyncio.get_running_loop()
        scores = await loop.run_in_executor(self._compute, self.predictor.scores, inputs, len(inputs))
        self.metrics.batch(len(inputs), time.perf_counter() - started)
        return list(scores)
