"""What a replica counts, and how the counts of all replicas become one Prometheus page.

Each replica has a registry of its own; a scrape that reaches any of them asks all (`DeploymentHandle.broadcast`) and gives their
samples with a label `replica`. They are not added up here: the sum falls when a replica goes, which Prometheus would take for
counters that begin anew, and count all that is left once more.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from serve.model.batcher import Batch, Job

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (16, 64, 256, 1024, 4096, 16384, 65536)
#: The parts of a request's time, as they are named everywhere.
STAGES = ("queue", "tokenize", "inference")


class ReplicaMetrics:
    """The counters of one replica, by model and version."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        names = ["model", "version"]

        def counter(name: str, text: str, *more: str) -> Counter:
            return Counter(name, text, [*names, *more], registry=self.registry)

        def histogram(name: str, text: str, buckets: Sequence[float], *more: str) -> Histogram:
            return Histogram(name, text, [*names, *more], buckets=buckets, registry=self.registry)

        def gauge(name: str, text: str, *more: str) -> Gauge:
            return Gauge(name, text, [*names, *more], registry=self.registry)

        self.requests = counter("raymill_requests", "Answered requests by HTTP status.", "status", "reason")
        self.predictions = counter("raymill_predictions", "Predictions by label.", "label")
        self.inputs = counter("raymill_inputs", "Inputs of answered requests.")
        self.tokens = counter("raymill_tokens", "Tokens (of texts), or numbers, of answered inputs.")
        self.seconds = histogram("raymill_request_seconds", "Time from request to answer.", _SECONDS)
        self.stages = histogram("raymill_stage_seconds", "The parts of a request's time.", _SECONDS, "stage")
        self.batch_seconds = histogram("raymill_inference_seconds", "Time of one batch.", _SECONDS)
        self.batch_inputs = histogram("raymill_batch_inputs", "Inputs in one batch.", _SIZES)
        self.batch_tokens = histogram("raymill_batch_tokens", "Tokens, or numbers, in one batch.", _TOKENS)
        self.in_flight = gauge("raymill_requests_in_flight", "Requests being answered.")
        self.waiting = gauge("raymill_queue_inputs", "Inputs that wait for their batch, or are in it.")
        self.info = gauge("raymill_model_info", "The model that is served.", "fingerprint", "checkpoint", "engine")
        self.replicas = gauge("raymill_replicas", "Replicas that answered the scrape.")

    def refused(self, status: int, reason: str) -> None:
        """Count a request that came to no model: an unknown path, no key."""
        self.requests.labels("", "", str(status), reason).inc()

    def text(self) -> str:
        """Return this replica's page."""
        return generate_latest(self.registry).decode()


class ModelMetrics:
    """The same of one model."""

    def __init__(self, metrics: ReplicaMetrics, model: dict[str, Any], waiting: Callable[[], int] = lambda: 0) -> None:
        """`waiting` returns how many inputs wait now."""
        self._labels = (str(model["name"]), str(model["version"]))
        of = self._labels
        self._requests, self._predictions = metrics.requests, metrics.predictions
        self._inputs, self._tokens = metrics.inputs.labels(*of), metrics.tokens.labels(*of)
        self._seconds = metrics.seconds.labels(*of)
        self._stages = [metrics.stages.labels(*of, stage) for stage in STAGES]
        self._batch_seconds, self._batch_inputs = metrics.batch_seconds.labels(*of), metrics.batch_inputs.labels(*of)
        self._batch_tokens = metrics.batch_tokens.labels(*of)
        self.in_flight = metrics.in_flight.labels(*of)
        metrics.waiting.labels(*of).set_function(waiting)
        metrics.info.labels(*of, model["fingerprint"], model["checkpoint"], model["engine"]).set(1)
        metrics.replicas.labels(*of).set(1)

    def request(self, status: int, reason: str, seconds: float) -> None:
        """Count one answered request; `reason` is "ok" or the refusal's code."""
        self._requests.labels(*self._labels, str(status), reason).inc()
        self._seconds.observe(seconds)

    def batch(self, batch: Batch) -> None:
        """Count one batch."""
        self._batch_inputs.observe(batch.inputs)
        self._batch_tokens.observe(batch.tokens)
        self._batch_seconds.observe(batch.seconds)

    def answered(self, job: Job, labels: Iterable[Sequence[str]]) -> None:
        """Count the predictions of a request, each by its labels, and where its time went."""
        for label in itertools.chain.from_iterable(labels):
            self._predictions.labels(*self._labels, label).inc()
        self._inputs.inc(len(job.raw))
        self._tokens.inc(job.tokens)
        for stage, seconds in zip(self._stages, (job.queue_s, job.preparing_s, job.computing_s), strict=True):
            stage.observe(seconds)


def merged(pages: Mapping[str, str]) -> str:
    """Return one page of all samples in `pages`, each with the replica that its page is of."""
    families: dict[str, Metric] = {}
    for replica, page in pages.items():
        for family in text_string_to_metric_families(page):
            if family.name.endswith("_created"):
                continue  # when a replica began to count is of no use to anybody
            metric = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                metric.add_sample(sample.name, {**sample.labels, "replica": replica}, sample.value)
    registry = CollectorRegistry()
    registry.register(_Collected(list(families.values())))
    return generate_latest(registry).decode()


class _Collected:
    """A collector of samples that are there already."""

    def __init__(self, families: list[Metric]) -> None:
        self.families = families

    def collect(self) -> Iterator[Metric]:
        """Yield the families, as prometheus_client asks for them."""
        yield from self.families
