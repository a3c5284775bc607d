"""A replica's metrics in Ray's own exporter, for clusters whose nodes Prometheus scrapes: `ray_raymill_...`.

Every sample becomes a Ray gauge, including the buckets and sums of histograms. The copies of counters only rise, so
`rate` and `histogram_quantile` work as they do on the endpoint's /metrics page.
"""

from __future__ import annotations

import threading
from typing import Any

from prometheus_client import CollectorRegistry

from cluster.monitoring.gauges import ray_exports_metrics

_INTERVAL_S = 5.0

Labels = frozenset[tuple[str, str]]


def mirror_to_ray(registry: CollectorRegistry) -> RayMetricsMirror | None:
    """Start to copy `registry` into Ray's metrics; return None if Ray's metrics are turned off."""
    if not ray_exports_metrics():
        return None
    return RayMetricsMirror(registry)


class RayMetricsMirror:
    """Copies a registry into Ray's metrics every few seconds."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._gauges: dict[str, Any] = {}
        self._last: dict[str, set[Labels]] = {}
        self._stop = threading.Event()
        threading.Thread(target=self._run, daemon=True, name="raymill-ray-metrics").start()

    def _run(self) -> None:
        while not self._stop.wait(_INTERVAL_S):
            self.copy()

    def copy(self) -> None:
        """Copy the current samples. A sample that is gone, such as an engine that was replaced, becomes 0."""
        from ray.util.metrics import Gauge

        current: dict[str, set[Labels]] = {}
        for family in self._registry.collect():
            for sample in family.samples:
                if sample.name.endswith("_created"):
                    continue
                keys = tuple(sample.labels)
                gauge = self._gauges.get(sample.name)
                if gauge is None:
                    gauge = self._gauges[sample.name] = Gauge(sample.name, family.documentation, keys)
                gauge.set(sample.value, dict(sample.labels))
                current.setdefault(sample.name, set()).add(frozenset(sample.labels.items()))
        for name, before in self._last.items():
            for labels in before - current.get(name, set()):
                self._gauges[name].set(0, dict(labels))
        self._last = current
