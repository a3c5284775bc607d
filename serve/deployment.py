"""One replica: verified models behind HTTP. Ray Serve runs as many of these as the spec asks for."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

import ray.serve
from pydantic import BaseModel, ConfigDict

from serve.asgi.access_log import AccessLog
from serve.asgi.app import HttpApp
from serve.asgi.auth import Guard
from serve.asgi.tracing import Traces
from serve.asgi.uvicorn_patch import answer_in_one_write
from serve.model.metrics import ReplicaMetrics, merged
from serve.model.served_model import ModelSettings, Served
from serve.ray_metrics import mirrored

_SCRAPE_WITHIN_S = 5.0


class Settings(BaseModel):
    """What a replica is told: plain values, so that a Serve config file can hold them."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    models: list[ModelSettings]
    """The first is the one that /predict means."""
    replicas: int = 1
    """How many there are at least: each lets a key ask its share."""
    timeout_s: float = 30
    keys: list[dict[str, Any]] = []
    """Hashed."""
    access_log: str | None = None
    """The folder of it."""
    log_bodies: bool = False
    otlp: str | None = None


@ray.serve.deployment(name="Endpoint")
@ray.serve.ingress()
class Endpoint:
    """HTTP to predictions."""

    def __init__(self, settings: dict[str, Any]) -> None:
        answer_in_one_write()
        self.settings = Settings.model_validate(settings)
        self.metrics = ReplicaMetrics()
        models = [Served(each, self.metrics) for each in self.settings.models]
        told = self.settings
        self._app = HttpApp(
            models,
            guard=Guard(told.keys, told.replicas),
            timeout_s=told.timeout_s,
            metrics_page=self._all_metrics,
            access_log=AccessLog(Path(told.access_log), _own_id(), bodies=told.log_bodies) if told.access_log else None,
            traces=Traces(told.otlp) if told.otlp else None,
            count_refused=self.metrics.refused,
        )
        self._mirror = mirrored(self.metrics.registry)

    def __serve_build_asgi_app__(self) -> HttpApp:
        """Return what answers HTTP; asked by Ray Serve once the models are loaded."""
        return self._app

    def check_health(self) -> None:
        """Raise if no batch can be computed any more: Ray Serve then replaces this replica."""
        for served in self._app.models.values():
            if not served.batcher.is_alive:
                raise RuntimeError(f"the batches of {served.model['name']} have ended")

    def own_metrics(self) -> tuple[str, str]:
        """Return this replica and its own counts; called on all replicas by whichever one is scraped."""
        return _own_id(), self.metrics.text()

    async def _all_metrics(self) -> str:
        place = ray.serve.get_replica_context()
        handle = ray.serve.get_deployment_handle(place.deployment, place.app_name)
        # A replica that is starting, stopping or gone does not keep the others' counts from the page.
        found: list[Any] = []
        with contextlib.suppress(TimeoutError, asyncio.TimeoutError):  # two classes in Python 3.10
            asked = handle.broadcast("own_metrics").results_async(timeout_s=_SCRAPE_WITHIN_S, return_exceptions=True)
            found = await asked
        return merged(dict([each for each in found if isinstance(each, tuple)] or [self.own_metrics()]))


def _own_id() -> str:
    with contextlib.suppress(Exception):
        return str(ray.serve.get_replica_context().replica_id.unique_id)
    return str(os.getpid())
