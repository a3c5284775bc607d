"""Metrics of a replica. Each replica has its own registry; `serve/model/metrics_page.py` joins the pages of all."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serve.model.batcher import BatchStats, Job
from serve.model.metrics_page import Family, join_families, label_families

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (16, 64, 256, 1024, 4096, 16384, 65536)
#: The stages of a request's time, by the names used in metrics, traces, logs and answers.
STAGES = ("queue", "preprocess", "inference")


class ReplicaMetrics:
    """The metrics of one replica, labeled by model and version."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        names = ["model", "version"]

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, [*names, *labels], registry=self.registry)

        def histogram(name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(name, text, [*names, *labels], buckets=buckets, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, [*names, *labels], registry=self.registry)

        self.requests = counter("raymill_requests", "Answered requests by HTTP status.", "status", "reason")
        self.predictions = counter("raymill_predictions", "Predictions by label.", "label")
        self.inputs = counter("raymill_inputs", "Inputs of answered requests.")
        self.tokens = counter("raymill_tokens", "Tokens of answered inputs (numbers, if they are not texts).")
        self.unseen = counter(
            "raymill_unseen_values",
            "Values that the model takes for other or missing, in a column where no training row had such a value.",
            "column",
        )
        self.seconds = histogram("raymill_request_seconds", "Time from request to answer.", _SECONDS)
        self.stages = histogram("raymill_stage_seconds", "Time of each stage of a request.", _SECONDS, "stage")
        self.batch_seconds = histogram("raymill_inference_seconds", "Time of one batch.", _SECONDS)
        self.batch_inputs = histogram("raymill_batch_inputs", "Inputs in one batch.", _SIZES)
        self.batch_tokens = histogram(
            "raymill_batch_tokens", "Tokens in one batch (numbers, if its inputs are not texts).", _TOKENS
        )
        self.in_flight = gauge("raymill_requests_in_flight", "Requests being answered.")
        self.waiting = gauge("raymill_queue_inputs", "Inputs without an answer: waiting, or in the current batch.")
        self.info = gauge("raymill_model_info", "The served model.", "fingerprint", "checkpoint", "engine")
        self.replicas = gauge("raymill_replicas", "Replicas that answered the scrape.")

    def count_rejected(self, status: int, reason: str) -> None:
        """Count a request that reached no model, for example one with an unknown path or without a key."""
        self.requests.labels("", "", str(status), reason).inc()

    def text(self) -> str:
        """Return this replica's metrics as a Prometheus page."""
        return generate_latest(self.registry).decode()

    def families(self, replica: str) -> dict[str, Family]:
        """Return this replica's metrics for `join_families`, labeled with its name."""
        return label_families(self.text(), replica)

    def page(self, replica: str) -> str:
        """Return the page of an endpoint whose only replica this is."""
        return join_families([self.families(replica)])


class ModelMetrics:
    """The metrics of one model in a replica."""

    def __init__(
        self, metrics: ReplicaMetrics, identity: dict[str, Any], waiting: Callable[[], int] = lambda: 0
    ) -> None:
        """`identity` holds the model's name, version, fingerprint, checkpoint and engine. `waiting` returns how many
        inputs have no answer yet."""
        self._labels = labels = (str(identity["name"]), str(identity["version"]))
        self._requests, self._predictions = metrics.requests, metrics.predictions
        self._inputs, self._tokens = metrics.inputs.labels(*labels), metrics.tokens.labels(*labels)
        self._unseen = metrics.unseen
        self._seconds = metrics.seconds.labels(*labels)
        self._stages = [metrics.stages.labels(*labels, stage) for stage in STAGES]
        self._batch_seconds = metrics.batch_seconds.labels(*labels)
        self._batch_inputs = metrics.batch_inputs.labels(*labels)
        self._batch_tokens = metrics.batch_tokens.labels(*labels)
        self.in_flight = metrics.in_flight.labels(*labels)
        self._info = metrics.info
        self._info_labels: tuple[str, ...] = ()
        metrics.waiting.labels(*labels).set_function(waiting)
        metrics.replicas.labels(*labels).set(1)
        self.show_identity(identity)

    def show_identity(self, identity: dict[str, Any]) -> None:
        """Show the engine in `identity` as the one in use, in place of the one before. All counts go on."""
        before = self._info_labels
        self._info_labels = (*self._labels, identity["fingerprint"], identity["checkpoint"], identity["engine"])
        self._info.labels(*self._info_labels).set(1)
        if before and before != self._info_labels:
            self._info.remove(*before)

    def count_request(self, status: int, reason: str, seconds: float) -> None:
        """Count an answered request; `reason` is "ok" or the error's code."""
        self._requests.labels(*self._labels, str(status), reason).inc()
        self._seconds.observe(seconds)

    def count_unseen(self, rows_by_column: Mapping[str, int]) -> None:
        """Count values that no training row had, by column."""
        for column, rows in rows_by_column.items():
            self._unseen.labels(*self._labels, column).inc(rows)

    def count_batch(self, stats: BatchStats) -> None:
        """Count a finished batch."""
        self._batch_inputs.observe(stats.inputs)
        self._batch_tokens.observe(stats.tokens)
        self._batch_seconds.observe(stats.seconds)

    def count_predictions(self, job: Job, labels: Iterable[Sequence[str]]) -> None:
        """Count the predictions of a finished request by their labels, its inputs and tokens, and its stages' times."""
        for label in itertools.chain.from_iterable(labels):
            self._predictions.labels(*self._labels, label).inc()
        self._inputs.inc(len(job.raw))
        self._tokens.inc(job.tokens)
        for stage, seconds in zip(self._stages, (job.queue_s, job.preparing_s, job.computing_s), strict=True):
            stage.observe(seconds)
