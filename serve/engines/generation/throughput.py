"""Tokens a second of an engine under a steady load."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence

from trainer.generation.engine import Engine, GenerationRequest, SamplingParams

#: Numbers of answers that are written at a time.
STREAMS = (1, 8, 32)
# Lengths of the answers: different ones, so that not all streams begin anew together.
_LENGTHS = (32, 48, 64, 40, 56)


def tokens_per_s(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    streams: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return the tokens a second of `streams` answers at a time: each that ends is followed by another prompt's.

    Reading prompts counts, as in an endpoint. It is timed once all of the first answers have begun. `clock` may be `time.process_time`, for a
    machine that other work uses.
    """
    numbers = itertools.count()
    running: set[str] = set()
    begun: set[str] = set()

    def add() -> None:
        number = next(numbers)
        params = SamplingParams(max_tokens=_LENGTHS[number % len(_LENGTHS)], temperature=0.0, ignore_eos=True)
        request = GenerationRequest(f"load-{number}", prompts[number % len(prompts)], params)
        engine.add(request)
        running.add(request.id)

    def step() -> int:
        count = 0
        for event in engine.step():
            count += len(event.token_ids)
            begun.add(event.request_id)
            if event.finish_reason is not None:
                running.discard(event.request_id)
                add()
        return count

    for _ in range(streams):
        add()
    while len(begun) < streams:
        step()
    count, began = 0, clock()
    while (elapsed := clock() - began) < seconds or not count:
        count += step()
    for request_id in list(running):
        engine.cancel(request_id)
    return count / elapsed
