"""One replica: verified models behind HTTP, as an ASGI application. Ray Serve runs it, or one process without Ray."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from serve.asgi.access_log import AccessLog
from serve.asgi.app import HttpApp
from serve.asgi.auth import ApiKeyAuth
from serve.asgi.tracing import TraceExporter
from serve.model.engine_watcher import Report
from serve.model.metrics import ReplicaMetrics
from serve.model.settings import ReplicaSettings
from serve.replica_parts import LiveModel, load_parts


class Replica:
    """The models, the metrics and the application of one process. The constructor raises `ModelError`."""

    def __init__(
        self,
        settings: ReplicaSettings,
        name: str,
        metrics_page: Callable[[], Awaitable[str]] | None = None,
        *,
        sends_request_id: bool = False,
        report: Report = lambda name, text: None,
    ) -> None:
        """`name` is the replica's label in metrics and logs. `metrics_page` returns the page for /metrics, by default
        with the metrics of this replica. `sends_request_id` and `report` are those of `HttpApp` and `EngineWatcher`."""
        self.name = name
        self.metrics = ReplicaMetrics()
        self._parts = load_parts(settings, self.metrics, report)
        self._access_log = (
            AccessLog(Path(settings.access_log), name, bodies=settings.log_bodies) if settings.access_log else None
        )
        self._traces = TraceExporter(settings.otlp_endpoint) if settings.otlp_endpoint else None
        self.app = HttpApp(
            services=[part.service for part in self._parts],
            auth=ApiKeyAuth(settings.keys, settings.replicas),
            timeout_s=settings.timeout_s,
            metrics_page=metrics_page or self._own_page,
            access_log=self._access_log,
            traces=self._traces,
            count_rejected=self.metrics.count_rejected,
            sends_request_id=sends_request_id,
            client_timeout_s=settings.client_timeout_s,
            cors_origins=settings.cors_origins,
        )

    @property
    def models(self) -> list[LiveModel]:
        """The models, as they are now."""
        return [model for part in self._parts for model in part.models()]

    async def _own_page(self) -> str:
        return self.metrics.page(self.name)

    def check_health(self) -> None:
        """Raise `RuntimeError` if a model's thread has stopped, so that whoever runs this replica replaces it."""
        for model in self.models:
            if not model.is_alive:
                raise RuntimeError(f"the thread that computes {model.identity['name']} has stopped")

    def close(self) -> None:
        """Write what the access log and the traces still hold."""
        for part in self._parts:
            part.close()
        if self._access_log:
            self._access_log.close()
        if self._traces:
            self._traces.close()
