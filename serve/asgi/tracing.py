"""OpenTelemetry traces of requests: a span for each, with one for each stage in it, sent over OTLP (`serve.otlp`)."""

from __future__ import annotations

import time
from typing import Any

from cluster.errors import SpecError
from serve.asgi.exchange import Exchange
from serve.model.metrics import STAGES


class Traces:
    """Sends spans beside the event loop, in batches, as OpenTelemetry's own exporter does."""

    def __init__(self, url: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise SpecError(
                f"serve.otlp={url}: {error.name} is not installed", "pip install 'raymill[otel]'"
            ) from error
        self._ids = _GivenIds()
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": "raymill"}),
            id_generator=self._ids,  # type: ignore[arg-type]
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(endpoint=url), schedule_delay_millis=1000)
        )
        self._tracer = self._provider.get_tracer("raymill.serve")

    def write(self, exchange: Exchange, status: int, seconds: float) -> None:
        """Take a request that is over. One that its caller does not sample is not sent."""
        if not exchange.sampled:
            return
        from opentelemetry import trace
        from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags
        from opentelemetry.trace.status import Status, StatusCode

        end = time.time_ns()
        start = end - int(seconds * 1e9)
        context: Any = None
        if exchange.parent:
            above = SpanContext(int(exchange.trace, 16), int(exchange.parent, 16), True, TraceFlags(1))
            context = trace.set_span_in_context(NonRecordingSpan(above))
        model = exchange.model.model
        self._ids.next = (int(exchange.trace, 16), int(exchange.span, 16))
        attributes = {"http.request.method": exchange.method, "url.path": exchange.path,
                      "http.response.status_code": status, "raymill.request_id": exchange.request_id,
                      "raymill.model": model["name"], "raymill.version": model["version"],
                      "raymill.engine": model["engine"]}  # fmt: skip
        name = f"{exchange.method} {exchange.path}"
        span = self._tracer.start_span(name, context, SpanKind.SERVER, attributes, start_time=start)
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR, exchange.reason))
        job, at = exchange.job, start
        if job is not None:
            within = trace.set_span_in_context(span)
            for stage, took in zip(STAGES, (job.queue_s, job.preparing_s, job.computing_s), strict=True):
                inner = self._tracer.start_span(stage, within, start_time=at)
                at += int(took * 1e9)
                inner.end(at)
        span.end(end)


class _GivenIds:
    """Ids of spans: those that the answer's header names, else at random."""

    def __init__(self) -> None:
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

        self._random = RandomIdGenerator()
        self.next: tuple[int, int] | None = None

    def generate_span_id(self) -> int:
        """Return the id of the next span."""
        if self.next is not None:
            given, self.next = self.next[1], None
            return given
        return self._random.generate_span_id()

    def generate_trace_id(self) -> int:
        """Return the id of the next trace; asked before `generate_span_id` where a span has no parent."""
        return self.next[0] if self.next is not None else self._random.generate_trace_id()

    def is_trace_id_random(self) -> bool:
        """Whether the trace's id is random, as W3C's flag says: it may be the caller's."""
        return False
