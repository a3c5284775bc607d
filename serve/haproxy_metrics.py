"""Requests that HAProxy refused itself, for /metrics: no replica saw them.

HAProxy has a page of its own on loopback, whose port Ray Serve's processes know from their environment. Each replica
asks the HAProxy of its own machine, so that every scrape has the counts of the same machines.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re

from prometheus_client import CollectorRegistry, Counter, generate_latest

from serve.model.metrics_page import Family, label_families

_PORT = "RAY_SERVE_HAPROXY_METRICS_PORT"
_WITHIN_S = 2.0
# HAProxy's counters of the endpoint, and the status and reason under which their requests are counted here.
_COUNTERS = {
    rb'^haproxy_frontend_request_errors_total\{proxy="http_frontend"\} (\d+)$': ("400", "invalid_http"),
    rb'^haproxy_backend_requests_denied_total\{proxy="default_backend"\} (\d+)$': ("503", "unavailable"),
}
_NAME = "haproxy"


async def refusals(machine: str) -> dict[str, Family]:
    """Return `raymill_requests_total` of the refusals of this machine's HAProxy, for `join_families`.

    Empty if this machine has no HAProxy. The label `replica` of the samples is `haproxy-<machine>`.
    """
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") != "1" or _PORT not in os.environ:
        return {}
    page = b""
    with contextlib.suppress(OSError, asyncio.TimeoutError, ValueError):  # HAProxy is being restarted
        page = await asyncio.wait_for(_fetch(int(os.environ[_PORT])), _WITHIN_S)
    return label_families(_refusals(page), f"{_NAME}-{machine}")


def _refusals(page: bytes) -> str:
    registry = CollectorRegistry()
    names = ["model", "version", "status", "reason"]
    counter = Counter("raymill_requests", "Answered requests by HTTP status.", names, registry=registry)
    n_samples = 0
    for pattern, (status, reason) in _COUNTERS.items():
        for match in re.finditer(pattern, page, re.MULTILINE):
            counter.labels("", "", status, reason).inc(int(match[1]))
            n_samples += 1
    return generate_latest(registry).decode() if n_samples else ""


async def _fetch(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /metrics?scope=frontend&scope=backend HTTP/1.0\r\n\r\n")
        return await reader.read()
    finally:
        writer.close()
