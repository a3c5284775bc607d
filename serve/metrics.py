"""What a replica counts, and how the counts of all replicas become one Prometheus page.

Each replica has a registry of its own; a scrape that reaches any of them asks all (`DeploymentHandle.broadcast`) and
adds the samples up, so that the totals are right however many replicas there are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# A gauge that says something is there is 1, however many replicas say it.
_NOT_ADDED = {"raymill_model_info"}


class ReplicaMetrics:
    """The counters of one replica of one model version."""

    def __init__(self, model: str, version: int, fingerprint: str) -> None:
        self.registry = CollectorRegistry()
        names = ["model", "version"]
        self._values = (model, str(version))

        def counter(name: str, text: str, *more: str) -> Counter:
            return Counter(name, text, [*names, *more], registry=self.registry)

        self._requests = counter("raymill_requests", "Answered requests by HTTP status.", "status", "reason")
        self._predictions = counter("raymill_predictions", "Predictions by label.", "label")
        self._inputs = counter("raymill_inputs", "Inputs of answered requests.").labels(*self._values)
        self._seconds = Histogram(
            "raymill_request_seconds", "Time from request to answer.", names, buckets=_SECONDS, registry=self.registry
        ).labels(*self._values)
        self._inference = Histogram(
            "raymill_inference_seconds", "Time of one forward pass.", names, buckets=_SECONDS, registry=self.registry
        ).labels(*self._values)
        self._batch = Histogram(
            "raymill_batch_inputs", "Inputs in one forward pass.", names, buckets=_SIZES, registry=self.registry
        ).labels(*self._values)
        self.in_flight = Gauge(
            "raymill_requests_in_flight", "Requests being answered.", names, registry=self.registry
        ).labels(*self._values)
        info = Gauge("raymill_model_info", "The model that is served.", [*names, "fingerprint"], registry=self.registry)
        info.labels(*self._values, fingerprint).set(1)
        Gauge("raymill_replicas", "Replicas that answered the scrape.", names, registry=self.registry).labels(
            *self._values
        ).set(1)

    def request(self, status: int, reason: str, seconds: float) -> None:
        """Count one answered request; `reason` is "ok" or the refusal's code."""
        self._requests.labels(*self._values, str(status), reason).inc()
        self._seconds.observe(seconds)

    def batch(self, inputs: int, seconds: float) -> None:
        """Count one forward pass."""
        self._batch.observe(inputs)
        self._inference.observe(seconds)

    def answered(self, labels: Sequence[Sequence[str]]) -> None:
        """Count predictions, each by its labels."""
        for label in itertools.chain.from_iterable(labels):
            self._predictions.labels(*self._values, label).inc()
        self._inputs.inc(len(labels))

    def text(self) -> str:
        """Return this replica's page."""
        return generate_latest(self.registry).decode()


def merged(pages: Iterable[str]) -> str:
    """Return one page whose samples are the sums of those in `pages`."""
    families: dict[str, Metric] = {}
    totals: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    order: dict[str, list[tuple[str, tuple[tuple[str, str], ...]]]] = {}
    for page in pages:
        for family in text_string_to_metric_families(page):
            if family.name.endswith("_created"):
                continue  # the time at which a replica began to count has no sum
            families.setdefault(family.name, family)
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                if key not in totals:
                    order.setdefault(family.name, []).append(key)
                    totals[key] = sample.value
                elif family.name not in _NOT_ADDED:
                    totals[key] += sample.value
    registry = CollectorRegistry()
    registry.register(_Summed(families, order, totals))
    return generate_latest(registry).decode()


class _Summed:
    """A collector of samples that are already added up."""

    def __init__(self, families: dict[str, Metric], order: dict[str, list[Any]], totals: dict[Any, float]) -> None:
        self.families, self.order, self.totals = families, order, totals

    def collect(self) -> Iterator[Metric]:
        """Yield the families, as prometheus_client asks for them."""
        for name, family in self.families.items():
            metric = Metric(family.name, family.documentation, family.type)
            for key in self.order.get(name, []):
                metric.add_sample(key[0], dict(key[1]), self.totals[key])
            yield metric
