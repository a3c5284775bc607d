"""The same counts through Ray's own exporter, so that what scrapes a cluster's nodes sees them: `ray_raymill_...`.

Every sample is a gauge there that only rises, buckets and sums of histograms among them, so that `rate` and
`histogram_quantile` work on it as on the endpoint's own page.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from prometheus_client import CollectorRegistry

_EVERY_S = 5.0
_RAYS_SWITCH = "RAY_enable_metrics_collection"


def mirrored(registry: CollectorRegistry) -> Mirror | None:
    """Return what hands `registry` on to Ray from now on; None where this Ray collects no metrics."""
    if os.environ.get(_RAYS_SWITCH) == "0":
        return None
    return Mirror(registry)


class Mirror:
    """Copies a registry into Ray's metrics every few seconds."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._gauges: dict[str, Any] = {}
        self._stop = threading.Event()
        threading.Thread(target=self._run, daemon=True, name="raymill-ray-metrics").start()

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self.copy()

    def copy(self) -> None:
        """Hand on what there is now."""
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
