"""Measure CPU time, and wait for a condition, on a machine that other tests use too."""

from __future__ import annotations

import time
from collections.abc import Callable


def best_cpu_seconds(work: Callable[[], object], enough: float, tries: int = 3) -> float:
    """Return the least CPU time in seconds that `work` took in `tries` calls. Stop early once it is below `enough`."""
    best = float("inf")
    for _ in range(tries):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
        if best < enough:
            break
    return best


def wait_until(condition: Callable[[], object], within_s: float = 30.0, what: str = "") -> None:
    """Return as soon as `condition()` is true; fails after `within_s`."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.05)
