"""Traces over OTLP, received by a server that parses OpenTelemetry's protobuf."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from serve.asgi.exchange import Exchange
from serve.asgi.tracing import TraceExporter
from serve.model.batcher import Job
from support.timing import wait_until

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def receiver():
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    spans = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                import gzip

                body = gzip.decompress(body)
            export = ExportTraceServiceRequest.FromString(body)
            scopes = [scope for resource in export.resource_spans for scope in resource.scope_spans]
            spans.extend(span for scope in scopes for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/traces", spans
    server.shutdown()


class Model:
    identity = {"name": "demo", "version": 3, "engine": "native"}  # noqa: RUF012


def finished_exchange(sampled="01", parent=True):
    headers = [(b"traceparent", f"00-{TRACE}-{PARENT}-{sampled}".encode())] if parent else []
    exchange = Exchange({"method": "POST", "path": "/predict", "headers": headers}, None)
    exchange.model, exchange.job = Model, Job(["x"], lambda jobs: None)
    exchange.job.preparing_s, exchange.job.computing_s = 0.001, 0.004
    exchange.job.identity = Model.identity
    return exchange


@pytest.mark.slow
def test_a_request_is_a_span_in_its_callers_trace_with_a_child_per_stage(receiver):
    url, spans = receiver
    traces = TraceExporter(url)
    exchange, unsampled = finished_exchange(), finished_exchange(sampled="00")
    alone = finished_exchange(parent=False)
    traces.write(exchange, 200, 0.006)
    traces.write(unsampled, 200, 0.006)
    traces.write(alone, 504, 0.006)
    wait_until(lambda: len(spans) >= 8)
    by_trace = {trace: [span for span in spans if span.trace_id.hex() == trace] for trace in (TRACE, alone.trace)}
    assert len(spans) == 8 and all(len(trace) == 4 for trace in by_trace.values())  # none of the unsampled request
    root = next(span for span in by_trace[TRACE] if span.name == "POST /predict")
    assert root.parent_span_id.hex() == PARENT and root.span_id.hex() == exchange.span
    stages = {span.name: span for span in by_trace[TRACE] if span is not root}
    assert set(stages) == {"queue", "preprocess", "inference"}
    assert all(span.parent_span_id == root.span_id for span in stages.values())
    duration = stages["inference"].end_time_unix_nano - stages["inference"].start_time_unix_nano
    assert duration == pytest.approx(4e6, rel=0.01)
    failed = next(span for span in by_trace[alone.trace] if span.name == "POST /predict")
    assert failed.span_id.hex() == alone.span and not failed.parent_span_id and failed.status.code == 2
