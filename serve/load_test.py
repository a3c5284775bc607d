"""What an endpoint costs its clients: a few of them ask one input at a time, and wait for the answer."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cluster.errors import RaymillError

_WARM_UP = 0.2
_TIMEOUT_S = 60.0


def measure(url: str, inputs: Sequence[Any], connections: int, seconds: float) -> dict[str, float]:
    """Return serve.p50_ms, serve.p99_ms and serve.rows_per_s of `connections` clients over `seconds`.

    `inputs` are what a request may hold, asked for in turn. What comes before, a fifth of the time, is not counted.
    Raises `RaymillError` if a request is not answered with 200.
    """
    took = asyncio.run(_ask(f"{url}/predict", inputs, connections, seconds))
    return {
        "serve.p50_ms": round(float(np.percentile(took, 50)) * 1000, 3),
        "serve.p99_ms": round(float(np.percentile(took, 99)) * 1000, 3),
        "serve.rows_per_s": round(len(took) / seconds, 1),
    }


async def _ask(url: str, inputs: Sequence[Any], connections: int, seconds: float) -> list[float]:
    import aiohttp

    bodies = itertools.cycle([json.dumps({"inputs": [one]}).encode() for one in inputs])
    begin = time.perf_counter() + _WARM_UP * seconds
    end = begin + seconds
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=connections)) as session:
        found = await asyncio.gather(*[_client(session, url, bodies, begin, end) for _ in range(connections)])
    took = [seconds for of_one in found for seconds in of_one]
    if not took:
        raise RaymillError(f"{url} answered no request within {seconds:.0f} s")
    return took


async def _client(session: Any, url: str, bodies: Iterator[bytes], begin: float, end: float) -> list[float]:
    """Return the seconds of each answer that came between `begin` and `end`."""
    took = []
    headers = {"Content-Type": "application/json"}
    while (started := time.perf_counter()) < end:
        async with session.post(url, data=next(bodies), headers=headers) as answer:
            text = await answer.read()
        now = time.perf_counter()
        if answer.status != 200:
            raise RaymillError(f"{url} answered {answer.status}: {text[:200].decode(errors='replace')}")
        if begin <= now <= end:
            took.append(now - started)
    return took
