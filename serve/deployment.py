"""One replica: verified models behind HTTP. Ray Serve runs the number of replicas in `serve.replicas`."""

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
from serve.asgi.auth import ApiKeyAuth
from serve.asgi.tracing import TraceExporter
from serve.asgi.uvicorn_patch import patch_uvicorn
from serve.model.metrics import ReplicaMetrics, merge_pages
from serve.model.served_model import ModelSettings, ServedModel
from serve.ray_metrics import mirror_to_ray

_SCRAPE_TIMEOUT_S = 5.0


class ReplicaSettings(BaseModel):
    """A replica's settings: plain values, so that a Serve config file can hold them."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    models: list[ModelSettings]
    """/predict uses the first model."""
    replicas: int = 1
    """Minimum number of replicas of the endpoint. Each replica enforces its share of a key's rate."""
    timeout_s: float = 30
    keys: list[dict[str, Any]] = []
    """API keys, hashed."""
    access_log: str | None = None
    """The folder of the access log; None for no access log."""
    log_bodies: bool = False
    otlp_endpoint: str | None = None


@ray.serve.deployment(name="Endpoint")
@ray.serve.ingress()
class EndpointReplica:
    """The Ray Serve deployment: loads the models and answers HTTP."""

    def __init__(self, settings: dict[str, Any]) -> None:
        patch_uvicorn()
        self.settings = ReplicaSettings.model_validate(settings)
        self.metrics = ReplicaMetrics()
        models = [ServedModel(model, self.metrics) for model in self.settings.models]
        self._app = HttpApp(
            models,
            auth=ApiKeyAuth(self.settings.keys, self.settings.replicas),
            timeout_s=self.settings.timeout_s,
            metrics_page=self._all_metrics,
            access_log=_open_access_log(self.settings),
            traces=TraceExporter(self.settings.otlp_endpoint) if self.settings.otlp_endpoint else None,
            count_rejected=self.metrics.count_rejected,
        )
        self._mirror = mirror_to_ray(self.metrics.registry)

    def __serve_build_asgi_app__(self) -> HttpApp:
        """Return the ASGI application; Ray Serve calls this once the models are loaded."""
        return self._app

    def check_health(self) -> None:
        """Raise `RuntimeError` if a batcher has stopped; Ray Serve then replaces this replica."""
        for served in self._app.models.values():
            if not served.batcher.is_alive:
                raise RuntimeError(f"the batcher of {served.identity['name']} has stopped")

    def own_metrics(self) -> tuple[str, str]:
        """Return this replica's id and its metrics; the replica that is scraped calls this on all replicas."""
        return _replica_id(), self.metrics.text()

    async def _all_metrics(self) -> str:
        context = ray.serve.get_replica_context()
        handle = ray.serve.get_deployment_handle(context.deployment, context.app_name)
        # The page shows the other replicas even if one is starting, stopping or gone.
        results: list[Any] = []
        with contextlib.suppress(TimeoutError, asyncio.TimeoutError):  # two classes in Python 3.10
            results = await handle.broadcast("own_metrics").results_async(
                timeout_s=_SCRAPE_TIMEOUT_S, return_exceptions=True
            )
        pages = [result for result in results if isinstance(result, tuple)]
        return merge_pages(dict(pages or [self.own_metrics()]))


def _open_access_log(settings: ReplicaSettings) -> AccessLog | None:
    if settings.access_log is None:
        return None
    return AccessLog(Path(settings.access_log), _replica_id(), bodies=settings.log_bodies)


def _replica_id() -> str:
    with contextlib.suppress(Exception):
        return str(ray.serve.get_replica_context().replica_id.unique_id)
    return str(os.getpid())
