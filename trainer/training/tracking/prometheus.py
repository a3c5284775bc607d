"""A training's metrics for Prometheus: with `track.prometheus` on a port of this process, else by Ray's exporter.

`<storage>/prometheus/<run>.json` names the port in the format of `file_sd_configs`, so that a Prometheus server
discovers the port. These files are not in the runs' own folders because `file_sd_configs` allows a `*` only in the last
part of a path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cluster.connect import is_connected
from cluster.files import write_json
from trainer.spec.run import RunSpec

FOLDER = "prometheus"
_LOOPBACK = "127.0.0.1"
_GAUGES = {
    "train/loss": ("raymill_train_loss", "Mean loss of the last steps."),
    "train/learning_rate": ("raymill_train_learning_rate", "Learning rate."),
    "train/grad_norm": ("raymill_train_grad_norm", "Norm of the last step's gradient before clipping."),
    "train/rows_per_s": ("raymill_train_rows_per_second", "Rows trained on per second, all workers together."),
    "train/tokens_per_s": ("raymill_train_tokens_per_second", "Tokens trained on per second, all workers together."),
    "train/step_time_s": ("raymill_train_step_seconds", "Seconds per optimizer step."),
    "train/memory_bytes": ("raymill_train_memory_bytes", "Memory of the first worker: GPU memory if it uses a GPU."),
    "train/epoch": ("raymill_train_epoch", "The current epoch."),
}
_STEP = ("raymill_train_step", "Optimizer steps done.")
_LABELS = ("model", "run")

#: Sets the value of one gauge.
SetFn = Callable[[float], None]


class PrometheusTracker:
    """Sets gauges. They are served on a port of this process or by Ray's exporter."""

    def __init__(self, make_gauge: Callable[[str, str], SetFn], stop: Callable[[], None]) -> None:
        self._set = {name: make_gauge(*about) for name, about in _GAUGES.items()}
        self._set_step = make_gauge(*_STEP)
        self._stop = stop

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Set the gauges of these metrics; metrics without a gauge are skipped."""
        self._set_step(step)
        for name, value in metrics.items():
            if name in self._set:
                self._set[name](value)

    def close(self) -> None:
        """Stop serving."""
        self._stop()


def start(spec: RunSpec, folder: Path, notify: Callable[[str], None]) -> PrometheusTracker:
    """Return the gauges of a run: on its own port with `track.prometheus`, else in Ray's exporter."""
    labels = {"model": spec.name, "run": folder.name}
    if not spec.track.prometheus:
        return PrometheusTracker(_ray_gauges(labels), lambda: None)
    from prometheus_client import CollectorRegistry, Gauge, start_http_server

    registry = CollectorRegistry()
    server, thread = start_http_server(0, addr=_LOOPBACK, registry=registry)  # 0: any free port
    targets = Path(spec.storage) / FOLDER / f"{folder.name}.json"
    write_json(targets, [{"targets": [f"{_LOOPBACK}:{server.server_port}"], "labels": {}}])

    def make_gauge(name: str, about: str) -> SetFn:
        gauge = Gauge(name, about, _LABELS, registry=registry)
        # Label the gauge with its first value, not before: a labeled gauge reads 0 until it is set.
        return lambda value: gauge.labels(**labels).set(value)

    def stop() -> None:
        targets.unlink(missing_ok=True)
        server.shutdown()
        server.server_close()
        thread.join()

    return PrometheusTracker(make_gauge, stop)


def _ray_gauges(labels: dict[str, str]) -> Callable[[str, str], SetFn]:
    """Return a function that creates a gauge in Ray's exporter. Outside of a Ray process the gauge does nothing."""
    if not is_connected():
        return lambda name, about: lambda value: None
    from ray.util.metrics import Gauge

    def make_gauge(name: str, about: str) -> SetFn:
        gauge: Any = Gauge(name, about, tag_keys=_LABELS)
        gauge.set_default_tags(labels)
        return lambda value: gauge.set(value)

    return make_gauge
