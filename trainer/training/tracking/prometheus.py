"""A training's figures for Prometheus: on a port of this process where the spec asks, and through Ray's own exporter.

`<storage>/prometheus/<run>.json` names the port in the form of `file_sd_configs`, so that a server finds it by itself: that
allows a `*` in the last part of a path only, which is why these files do not lie in the runs' own folders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cluster.files import write_json
from trainer.spec.run import RunSpec

FOLDER = "prometheus"
_LOOPBACK = "127.0.0.1"
_GAUGES = {
    "train/loss": ("raymill_train_loss", "Mean loss of the last steps."),
    "train/learning_rate": ("raymill_train_learning_rate", "Learning rate."),
    "train/grad_norm": ("raymill_train_grad_norm", "Norm of the last step's gradient before it is clipped."),
    "train/rows_per_s": ("raymill_train_rows_per_second", "Rows trained on, all workers together."),
    "train/tokens_per_s": ("raymill_train_tokens_per_second", "Tokens trained on, all workers together."),
    "train/step_time_s": ("raymill_train_step_seconds", "Seconds an optimiser step takes."),
    "train/memory_bytes": ("raymill_train_memory_bytes", "Memory of the first worker: its GPU's, else its own."),
    "train/epoch": ("raymill_train_epoch", "Epoch that is trained."),
}
_STEP = ("raymill_train_step", "Optimiser steps done.")
_LABELS = ("model", "run")


class Prometheus:
    """Sets gauges, wherever they are served."""

    def __init__(self, gauges: Callable[[str, str], Callable[[float], None]], stop: Callable[[], None]) -> None:
        self._set = {name: gauges(*about) for name, about in _GAUGES.items()}
        self._set_step = gauges(*_STEP)
        self._stop = stop

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Set the gauges there are figures for."""
        self._set_step(step)
        for name, value in figures.items():
            if name in self._set:
                self._set[name](value)

    def close(self) -> None:
        """Stop serving."""
        self._stop()


def start(spec: RunSpec, folder: Path) -> Prometheus:
    """Return the gauges of a run. On a cluster they are Ray's; with `track.prometheus` a port of their own serves them."""
    labels = {"model": spec.name, "run": folder.name}
    if not spec.track.prometheus:
        return Prometheus(_rays(labels), lambda: None)
    from prometheus_client import CollectorRegistry, Gauge, start_http_server

    registry = CollectorRegistry()
    server, thread = start_http_server(0, addr=_LOOPBACK, registry=registry)  # 0: any port that is free
    said = Path(spec.storage) / FOLDER / f"{folder.name}.json"
    write_json(said, [{"targets": [f"{_LOOPBACK}:{server.server_port}"], "labels": {}}])

    def gauge(name: str, about: str) -> Callable[[float], None]:
        made = Gauge(name, about, _LABELS, registry=registry)
        return lambda value: made.labels(**labels).set(value)  # not before there is a value: it would be scraped as 0

    def stop() -> None:
        said.unlink(missing_ok=True)
        server.shutdown()
        server.server_close()
        thread.join()

    return Prometheus(gauge, stop)


def _rays(labels: dict[str, str]) -> Callable[[str, str], Callable[[float], None]]:
    """Return how a gauge of Ray's is made; outside of a Ray process it goes nowhere."""
    import ray

    if not ray.is_initialized():
        return lambda name, about: lambda value: None
    from ray.util.metrics import Gauge

    def gauge(name: str, about: str) -> Callable[[float], None]:
        made: Any = Gauge(name, about, tag_keys=_LABELS)
        made.set_default_tags(labels)
        return lambda value: made.set(value)

    return gauge
