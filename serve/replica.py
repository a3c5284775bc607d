"""One replica: verified models behind HTTP, as an ASGI application. Ray Serve runs it, or one process without Ray."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from serve.asgi.access_log import AccessLog
from serve.asgi.app import HttpApp
from serve.asgi.auth import ApiKeyAuth
from serve.asgi.tracing import TraceExporter
from serve.engines.engine_store import checkpoint_digest
from serve.model.engine_watcher import EngineWatcher, Report, chosen_settings
from serve.model.metrics import ReplicaMetrics
from serve.model.served_model import ServedModel
from serve.model.settings import ModelSettings, ReplicaSettings
from trainer.registry.registry import Version


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
        self.models = [_load(model, self.metrics) for model in settings.models]
        self._access_log = (
            AccessLog(Path(settings.access_log), name, bodies=settings.log_bodies) if settings.access_log else None
        )
        self._traces = TraceExporter(settings.otlp_endpoint) if settings.otlp_endpoint else None
        self.app = HttpApp(
            self.models,
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
        self._watcher = EngineWatcher(self.models, report)

    async def _own_page(self) -> str:
        return self.metrics.page(self.name)

    def check_health(self) -> None:
        """Raise `RuntimeError` if a batcher has stopped, so that whoever runs this replica replaces it."""
        for served in self.models:
            if not served.is_alive:
                raise RuntimeError(f"the batcher of {served.identity['name']} has stopped")

    def close(self) -> None:
        """Write what the access log and the traces still hold."""
        self._watcher.close()
        if self._access_log:
            self._access_log.close()
        if self._traces:
            self._traces.close()


def _load(settings: ModelSettings, metrics: ReplicaMetrics) -> ServedModel:
    """Load a model with its awaited engine if that is chosen by now, else as the settings say."""
    version = Version(settings.name, settings.version, Path(settings.folder))
    # If the chosen engine cannot be loaded, the watcher tries again and reports why.
    with contextlib.suppress(Exception):
        chosen = chosen_settings(settings, checkpoint_digest(version))
        if chosen is not None:
            return ServedModel(chosen, metrics)
    return ServedModel(settings, metrics)
