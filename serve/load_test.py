"""Closed-loop load test: each client sends a request with one input and waits for the answer before the next one."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cluster.errors import RaymillError

# How long clients warm up, as a share of the measured time.
_WARM_UP = 0.2
_TIMEOUT_S = 60.0


def run_load_test(url: str, inputs: Sequence[Any], connections: int, seconds: float) -> dict[str, float]:
    """Send requests from `connections` clients for `seconds`; return serve.p50_ms, serve.p99_ms and serve.rows_per_s.

    The clients go through `inputs` in turn. They first warm up for a fifth of the time, which is not measured. Raises
    `RaymillError` if a response is not 200.
    """
    latencies = asyncio.run(_run_clients(f"{url}/predict", inputs, connections, seconds))
    return {
        "serve.p50_ms": round(float(np.percentile(latencies, 50)) * 1000, 3),
        "serve.p99_ms": round(float(np.percentile(latencies, 99)) * 1000, 3),
        "serve.rows_per_s": round(len(latencies) / seconds, 1),
    }


async def _run_clients(url: str, inputs: Sequence[Any], connections: int, seconds: float) -> list[float]:
    import aiohttp

    bodies = itertools.cycle([json.dumps({"inputs": [value]}).encode() for value in inputs])
    begin = time.perf_counter() + _WARM_UP * seconds
    end = begin + seconds
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=connections)) as session:
        clients = [_run_client(session, url, bodies, begin, end) for _ in range(connections)]
        latencies = [latency for per_client in await asyncio.gather(*clients) for latency in per_client]
    if not latencies:
        raise RaymillError(f"{url} answered no request within {seconds:.0f} s")
    return latencies


async def _run_client(session: Any, url: str, bodies: Iterator[bytes], begin: float, end: float) -> list[float]:
    """Return the seconds of each request that ended between `begin` and `end`."""
    latencies = []
    headers = {"Content-Type": "application/json"}
    while (started := time.perf_counter()) < end:
        async with session.post(url, data=next(bodies), headers=headers) as response:
            text = await response.read()
        now = time.perf_counter()
        if response.status != 200:
            raise RaymillError(f"{url} answered {response.status}: {text[:200].decode(errors='replace')}")
        if begin <= now <= end:
            latencies.append(now - started)
    return latencies
