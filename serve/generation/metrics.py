"""Metrics of models that generate text, beside those of all models. An adapter is a model of its own in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from serve.generation.engine_thread import EngineThread
from serve.generation.streams import AnswerStream
from serve.model.metrics import ModelMetrics, ReplicaMetrics
from trainer.generation.engine import GenerationEvent

_FIRST_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BETWEEN_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class GenerationMetrics:
    """The metrics of a replica's models that generate text, labeled by model and version."""

    def __init__(self, metrics: ReplicaMetrics) -> None:
        """The metrics join the page of `metrics`."""
        self.replica = metrics
        names = ["model", "version"]

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, [*names, *labels], registry=metrics.registry)

        def histogram(name: str, text: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(name, text, names, buckets=buckets, registry=metrics.registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, names, registry=metrics.registry)

        self.first_token = histogram(
            "raymill_first_token_seconds", "Time from a request to the first token of its answer.", _FIRST_S
        )
        self.between_tokens = histogram(
            "raymill_between_tokens_seconds", "Time between two steps that added tokens to an answer.", _BETWEEN_S
        )
        self.prompt_tokens = counter("raymill_prompt_tokens", "Tokens of prompts.")
        self.cached_tokens = counter("raymill_cached_prompt_tokens", "Tokens of prompts that the prefix cache had.")
        self.prefix_hits = counter("raymill_prefix_hits", "Prompts of which the prefix cache had a part.")
        self.generated_tokens = counter("raymill_generated_tokens", "Tokens of answers.")
        self.answers = counter("raymill_answers", "Ended answers by the reason of their end.", "finish_reason")
        self.running = gauge("raymill_sequences_running", "Answers that are computed now, with those of adapters.")
        self.waiting = gauge("raymill_sequences_waiting", "Answers that wait for a slot, with those of adapters.")
        self.cache_tokens = gauge("raymill_cache_tokens", "Tokens in the cache of the engine.")
        self.cache_capacity = gauge("raymill_cache_capacity_tokens", "Tokens that fit into the cache of the engine.")


class GenerationModelMetrics(ModelMetrics):
    """The metrics of one model or adapter in a replica."""

    def __init__(self, metrics: GenerationMetrics, identity: dict[str, Any]) -> None:
        super().__init__(metrics.replica, identity)
        labels = (str(identity["name"]), str(identity["version"]))
        self._first_token = metrics.first_token.labels(*labels)
        self._between_tokens = metrics.between_tokens.labels(*labels)
        self._prompt_tokens = metrics.prompt_tokens.labels(*labels)
        self._cached_tokens = metrics.cached_tokens.labels(*labels)
        self._prefix_hits = metrics.prefix_hits.labels(*labels)
        self._generated_tokens = metrics.generated_tokens.labels(*labels)
        self._answers = metrics.answers
        self._of_all = metrics

    def show_load(self, thread: EngineThread) -> None:
        """Show the load of an engine whenever metrics are read."""
        metrics, labels, stats = self._of_all, self._labels, thread.stats
        metrics.running.labels(*labels).set_function(lambda: thread.running)
        metrics.waiting.labels(*labels).set_function(lambda: thread.waiting)
        metrics.cache_tokens.labels(*labels).set_function(lambda: stats().cache_tokens)
        metrics.cache_capacity.labels(*labels).set_function(lambda: stats().cache_capacity)

    def count_event(self, stream: AnswerStream, event: GenerationEvent, now: float) -> None:
        """Count what a step at the time `now` added to a stream, before the stream's own counts change."""
        if not stream.first_token and event.finish_reason != "cancelled":
            self._first_token.observe(now - stream.submitted)
            self._prompt_tokens.inc(len(stream.request.prompt_ids))
            if event.cached_tokens:
                self._cached_tokens.inc(event.cached_tokens)
                self._prefix_hits.inc()
        elif event.token_ids:
            self._between_tokens.observe(now - stream.last_token)
        self._generated_tokens.inc(len(event.token_ids))
        if event.finish_reason:
            self._answers.labels(*self._labels, event.finish_reason).inc()
