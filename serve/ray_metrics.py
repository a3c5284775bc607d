"""A replica's metrics through Ray's own exporter, for scrapers of a cluster's nodes: `ray_raymill_...`.

Every sample becomes a gauge that only rises, including buckets and sums of histograms, so that `rate` and
`histogram_quantile` work as on the endpoint's own page.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from prometheus_client import CollectorRegistry

_INTERVAL_S = 5.0
# Ray's setting; "0" turns its metrics off.
_RAY_SETTING = "RAY_enable_metrics_collection"


def mirror_to_ray(registry: CollectorRegistry) -> RayMetricsMirror | None:
    """Start to mirror `registry` into Ray's metrics; return None if this Ray collects none."""
    if os.environ.get(_RAY_SETTING) == "0":
        return None
    return RayMetricsMirror(registry)


class RayMetricsMirror:
    """Copies a registry into Ray's metrics every few seconds."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._gauges: dict[str, Any] = {}
        self._stop = threading.Event()
        threading.Thread(target=self._run, daemon=True, name="raymill-ray-metrics").start()

    def _run(self) -> None:
        while not self._stop.wait(_INTERVAL_S):
            self.copy()

    def copy(self) -> None:
        """Copy the current samples."""
        from ray.util.metrics import Gauge

        for family in self._registry.collect():
            for sample in family.samples:
                if sample.name.endswith("_created"):
                    continue
                keys = tuple(sample.labels)
                gauge = self._gauges.get(sample.name)
                if gauge is None:
                    gauge = self._gauges[sample.name] = Gauge(sample.name, family.documentation, keys)
                gauge.set(sample.value, dict(sample.labels))
