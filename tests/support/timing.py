"""How long a piece of work takes on a machine that others use too."""

from __future__ import annotations

import time
from collections.abc import Callable


def best_cpu_seconds(work: Callable[[], object], enough: float, tries: int = 3) -> float:
    """Return the fewest seconds of this process's own time that `work` took, tried again until it is under `enough`."""
    best = float("inf")
    for _ in range(tries):
        begin = time.process_time()
        work()
        best = min(best, time.process_time() - begin)
        if best < enough:
            break
    return best


def wait_until(holds: Callable[[], object], within_s: float = 30.0, what: str = "") -> None:
    """Return as soon as `holds()` is true; fails after `within_s`."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.05)
