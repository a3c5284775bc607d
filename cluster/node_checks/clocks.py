"""Clocks: how far each node's is from the head's. A question and its answer bound the error by half of their time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from cluster.environment_checks import Check
from cluster.node_checks.answers import fine, look, wrong

_QUESTIONS = 5
# Files and logs of several nodes can no longer be ordered; tokens and certificates become invalid.
_LOOK_S, _WRONG_S = 0.5, 60.0


class Offset(NamedTuple):
    """How far a clock is ahead of another one; the true value is within `bound_s` of `seconds`."""

    seconds: float
    bound_s: float

    def against(self, other: Offset) -> Offset:
        """Return how far this clock is ahead of another one; both are known against the same third clock."""
        return Offset(self.seconds - other.seconds, self.bound_s + other.bound_s)


def read_clock() -> float:
    """Return the time of this node's clock, in seconds since 1970."""
    return time.time()


def measure_offset(ask: Callable[[], float]) -> Offset:
    """Return how far the clock that `ask` reads is ahead of this one. The quickest of a few questions counts."""
    offsets = []
    for _ in range(_QUESTIONS):
        before, started = time.time(), time.perf_counter()
        answer = ask()
        elapsed = time.perf_counter() - started
        offsets.append(Offset(answer - before - elapsed / 2, elapsed / 2))
    return min(offsets, key=lambda offset: offset.bound_s)


def check_clocks(offsets: Mapping[str, Offset]) -> list[Check]:
    """Check the offsets of the nodes' clocks against the head's, by name of the node."""
    fix = "run a time service there, such as chrony or systemd-timesyncd"
    checks = []
    for name, offset in offsets.items():
        least = max(0.0, abs(offset.seconds) - offset.bound_s)
        if least >= _LOOK_S:
            direction = "ahead of" if offset.seconds > 0 else "behind"
            text = f"{name} is {abs(offset.seconds):,.2f} s {direction} the head, within {offset.bound_s * 1000:.1f} ms"
            checks.append((wrong if least >= _WRONG_S else look)("clocks", text, fix))
    if not checks:
        largest = max((abs(offset.seconds) for offset in offsets.values()), default=0.0)
        bound = max((offset.bound_s for offset in offsets.values()), default=0.0)
        text = f"at most {largest * 1000:.1f} ms from the head's, within {bound * 1000:.1f} ms"
        checks.append(fine("clocks", text))
    return checks
