"""Gauges of running work for Prometheus: on a port of this process, and in Ray's own exporter on a cluster."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cluster.connect import is_connected
from cluster.files import write_json

#: Folder below the storage folder with a file for each process that serves metrics, in the format of `file_sd_configs`.
#: They are not in the runs' own folders because `file_sd_configs` allows a `*` only in the last part of a path.
TARGETS_FOLDER = "prometheus"
#: Label of such a file. Its port is a loopback port of that machine: only a Prometheus there may scrape it.
MACHINE = "machine"
_LOOPBACK = "127.0.0.1"
# Ray's setting; "0" turns its metrics off, as in a Ray that raymill starts itself.
_RAY_SETTING = "RAY_enable_metrics_collection"

# Sets the value of one gauge, with the values of its labels.
_SetFn = Callable[[float, Mapping[str, str]], None]


class GaugeInfo(NamedTuple):
    """A gauge: its name, its meaning, and the labels that it has besides those of all gauges of the work."""

    name: str
    about: str
    labels: tuple[str, ...] = ()


def ray_exports_metrics() -> bool:
    """Return whether this process is connected to a Ray whose nodes export metrics."""
    return is_connected() and os.environ.get(_RAY_SETTING) != "0"


def write_targets(path: Path, address: str, labels: Mapping[str, str] | None = None) -> None:
    """Name a metrics page of this machine for Prometheus: `address` is its host and port. Raises `ResourceError`."""
    write_json(path, [{"targets": [address], "labels": {MACHINE: socket.gethostname(), **(labels or {})}}])


class Gauges:
    """The gauges of one piece of work. They share labels, such as the model and the run.

    On a cluster that exports metrics, Ray's exporter has them with the prefix `ray_`. With `targets`, this process serves
    them on a loopback port as well, from the first value to `close`, and the file `targets` names the port. Several
    threads may set gauges, but no two the same one.
    """

    def __init__(self, labels: Mapping[str, str], targets: Path | None) -> None:
        self._labels, self._targets = dict(labels), targets
        self._page: _MetricsPage | None = None
        self._on_page: dict[str, _SetFn] = {}
        self._in_ray: dict[str, _SetFn] = {}

    def set(self, gauge: GaugeInfo, value: float, **labels: str) -> None:
        """Set a gauge; `labels` are the values of its own labels.

        Raises `ResourceError` once if the file cannot be written; after that the gauges are in Ray's exporter only.
        """
        if self._targets is not None:
            targets, self._targets = self._targets, None
            self._page = _MetricsPage(targets)
        if self._page is not None:
            if gauge.name not in self._on_page:
                self._on_page[gauge.name] = self._page.add(gauge, self._labels)
            self._on_page[gauge.name](value, labels)
        if ray_exports_metrics():
            if gauge.name not in self._in_ray:
                self._in_ray[gauge.name] = _ray_gauge(gauge, self._labels)
            self._in_ray[gauge.name](value, labels)

    def close(self) -> None:
        """Stop to serve the gauges and remove the file that names the port."""
        if self._page is not None:
            self._page.close()
        self._page, self._targets = None, None


class _MetricsPage:
    """A page of gauges on a free loopback port, and the file that names the port."""

    def __init__(self, targets: Path) -> None:
        from prometheus_client import CollectorRegistry, start_http_server

        self._targets, self._registry = targets, CollectorRegistry()
        self._server, self._thread = start_http_server(0, addr=_LOOPBACK, registry=self._registry)  # 0: any free port
        try:
            write_targets(targets, f"{_LOOPBACK}:{self._server.server_port}")
        except BaseException:
            self.close()
            raise

    def add(self, gauge: GaugeInfo, shared: Mapping[str, str]) -> _SetFn:
        """Add a gauge to the page, and return the function that sets it."""
        from prometheus_client import Gauge

        metric = Gauge(gauge.name, gauge.about, (*shared, *gauge.labels), registry=self._registry)
        # Label the gauge with its first value, not before: a labeled gauge reads 0 until it is set.
        return lambda value, labels: metric.labels(**shared, **labels).set(value)

    def close(self) -> None:
        """Stop the server and remove the file."""
        with contextlib.suppress(OSError):
            self._targets.unlink(missing_ok=True)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _ray_gauge(gauge: GaugeInfo, shared: Mapping[str, str]) -> _SetFn:
    """Return a function that sets a gauge in Ray's exporter."""
    from ray.util.metrics import Gauge

    metric: Any = Gauge(gauge.name, gauge.about, tag_keys=(*shared, *gauge.labels))
    return lambda value, labels: metric.set(value, {**shared, **labels})
