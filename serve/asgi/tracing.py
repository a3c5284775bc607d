"""OpenTelemetry traces, sent over OTLP to `serve.otlp_endpoint`: a span per request, with a child span per stage."""

from __future__ import annotations

import time
from typing import Any

from cluster.errors import SpecError
from serve.asgi.exchange import Exchange
from serve.model.metrics import STAGES


class TraceExporter:
    """Sends spans in batches. OpenTelemetry's exporter does this in its own thread."""

    def __init__(self, url: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise SpecError(
                f"serve.otlp_endpoint={url}: {error.name} is not installed", "run `pip install 'raymill[otel]'`"
            ) from error
        self._ids = _SpanIds()
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": "raymill"}),
            id_generator=self._ids,  # type: ignore[arg-type]
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(endpoint=url), schedule_delay_millis=1000)
        )
        self._tracer = self._provider.get_tracer("raymill.serve")

    def close(self) -> None:
        """Send the spans that wait, and end OpenTelemetry's thread."""
        self._provider.shutdown()

    def write(self, exchange: Exchange, status: int, seconds: float) -> None:
        """Send the spans of a finished request, unless its traceparent header says that the trace is not sampled."""
        if not exchange.sampled:
            return
        from opentelemetry import trace
        from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags
        from opentelemetry.trace.status import Status, StatusCode

        end = time.time_ns()
        start = end - int(seconds * 1e9)
        context: Any = None
        if exchange.parent:
            parent = SpanContext(int(exchange.trace, 16), int(exchange.parent, 16), True, TraceFlags(1))
            context = trace.set_span_in_context(NonRecordingSpan(parent))
        self._ids.next = (int(exchange.trace, 16), int(exchange.span, 16))
        name = f"{exchange.method} {exchange.path}"
        span = self._tracer.start_span(name, context, SpanKind.SERVER, _attributes(exchange, status), start_time=start)
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR, exchange.reason))
        job, stage_start = exchange.job, start
        if job is not None:
            inside = trace.set_span_in_context(span)
            for stage, duration in zip(STAGES, (job.queue_s, job.preparing_s, job.computing_s), strict=True):
                child = self._tracer.start_span(stage, inside, start_time=stage_start)
                stage_start += int(duration * 1e9)
                child.end(stage_start)
        span.end(end)


def _attributes(exchange: Exchange, status: int) -> dict[str, Any]:
    # A request without a job was answered by no engine.
    identity = exchange.job.identity if exchange.job is not None else exchange.model.identity
    return {
        "http.request.method": exchange.method,
        "url.path": exchange.path,
        "http.response.status_code": status,
        "raymill.request_id": exchange.request_id,
        "raymill.model": identity["name"],
        "raymill.version": identity["version"],
        "raymill.engine": identity["engine"],
    }


class _SpanIds:
    """Generates the ids of spans.

    The next span gets the ids in `next`, which were already sent in the response's header. Later spans get random ids.
    """

    def __init__(self) -> None:
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

        self._random = RandomIdGenerator()
        self.next: tuple[int, int] | None = None

    def generate_span_id(self) -> int:
        """Return the id of the next span."""
        if self.next is not None:
            (_, span_id), self.next = self.next, None
            return span_id
        return self._random.generate_span_id()

    def generate_trace_id(self) -> int:
        """Return the trace id of a span without a parent. OpenTelemetry calls this before `generate_span_id`."""
        return self.next[0] if self.next is not None else self._random.generate_trace_id()

    def is_trace_id_random(self) -> bool:
        """Whether trace ids are random, for the flag in W3C trace context. False: an id may come from the caller."""
        return False
