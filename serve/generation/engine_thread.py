"""The thread that owns an engine: it takes requests in a fair order, computes steps, and hands their events over.

Without a timer: while there is work, one step follows the other, and a request that arrives joins the next one. All events
of a step go into the event loop with one call. Plain Python, without Ray or HTTP.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from cluster.errors import RequestError
from serve.generation.fair_queue import FairQueue
from serve.generation.streams import AnswerStream, Delivery
from trainer.generation.engine import Engine, EngineFull, EngineStats, GenerationEvent

_log = logging.getLogger("raymill.serve")
# How many tokens of its answer a request pays for before they are computed; the rest is settled at its end. A request may
# ask for all tokens that fit and take a few.
_PREPAID_TOKENS = 128
# How many steps in a row may fail before the thread gives up, so that whoever runs the replica replaces it.
_MAX_FAILED_STEPS = 3
# Weight of earlier answers in the running mean of seconds per token. The mean predicts when a client should retry.
_DECAY = 0.9


class ThreadLimits(NamedTuple):
    """Limits on what the engine computes and on the queue."""

    slots: int
    """Maximum number of sequences that are computed at a time."""
    waiting: int
    """Maximum number of sequences that wait. A request that would exceed it is rejected."""


class EngineClosed(Exception):
    """A request was submitted to a thread that takes no more."""


class EngineThread:
    """Runs requests through an engine. `close` ends the thread and frees the engine."""

    def __init__(
        self,
        engine: Engine,
        limits: ThreadLimits,
        on_event: Callable[[AnswerStream, GenerationEvent, float], None] = lambda stream, event, now: None,
    ) -> None:
        """`on_event` is called in the thread for each event, with the time of its step; metrics use it."""
        self.engine, self._limits, self._on_event = engine, limits, on_event
        self._wake = threading.Condition()
        self._new: deque[AnswerStream] = deque()
        self._cancelled: deque[AnswerStream] = deque()
        self._calls: deque[tuple[Callable[[Engine], Any], Future[Any]]] = deque()
        self._queue: FairQueue[AnswerStream] = FairQueue()
        self._running: dict[str, AnswerStream] = {}
        self._n_waiting = 0
        self._per_token_s = 0.001
        self._closed = False
        self._failed_steps = 0
        self._thread = threading.Thread(target=self._run, daemon=True, name="raymill-engine")
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Sequences that wait for a slot."""
        return self._n_waiting

    @property
    def running(self) -> int:
        """Sequences that are computed."""
        return len(self._running)

    @property
    def retry_after_s(self) -> int:
        """Estimated time until a slot is free, in whole seconds."""
        return max(1, round(self._n_waiting / self._limits.slots * self._per_token_s * _PREPAID_TOKENS + 0.5))

    def stats(self) -> EngineStats:
        """Return the engine's load and counts. May be called in any thread."""
        return self.engine.stats()

    def submit(self, streams: Sequence[AnswerStream]) -> None:
        """Queue the sequences of one request.

        Raises `RequestError` 429 at once if too many wait, and `EngineClosed` after `close`.
        """
        for stream in streams:
            stream.cost = len(stream.request.prompt_ids) + min(_PREPAID_TOKENS, stream.request.params.max_tokens)
        with self._wake:
            if self._closed:
                raise EngineClosed
            free = max(0, self._limits.slots - len(self._running))
            if self._n_waiting + len(streams) > self._limits.waiting + free:
                raise RequestError(
                    429, "overloaded", f"{self._n_waiting} answers are already waiting; retry in {self.retry_after_s} s"
                )
            self._n_waiting += len(streams)
            self._new.extend(streams)
            self._wake.notify()

    def cancel(self, streams: Iterable[AnswerStream]) -> None:
        """Drop sequences: their slots are free before the next step. No event follows."""
        with self._wake:
            for stream in streams:
                stream.cancelled = True
                self._cancelled.append(stream)
            self._wake.notify()

    def call(self, function: Callable[[Engine], Any]) -> Future[Any]:
        """Run `function(engine)` in the thread between two steps; the future gets its result."""
        future: Future[Any] = Future()
        with self._wake:
            if self._closed:
                raise EngineClosed
            self._calls.append((function, future))
            self._wake.notify()
        return future

    def close(self) -> None:
        """Take no more requests, finish those that were accepted, free the engine and end the thread."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    # -- the thread

    def _run(self) -> None:
        while self._failed_steps < _MAX_FAILED_STEPS:
            with self._wake:
                while not (self._new or self._cancelled or self._calls or self._closed or self._has_work):
                    self._wake.wait()
                if self._closed and not (self._new or self._calls or self._has_work):
                    break
                new, cancelled, calls = list(self._new), list(self._cancelled), list(self._calls)
                self._new.clear()
                self._cancelled.clear()
                self._calls.clear()
            for stream in new:
                self._queue.push(stream.key, stream, stream.cost)
            for stream in cancelled:
                self._drop(stream)
            for function, future in calls:
                _fulfil(future, function, self.engine)
            deliveries = self._fill_slots()
            if self._running:
                deliveries += self._step()
            _deliver(deliveries)
        self._fail_rest()
        self.engine.close()

    @property
    def _has_work(self) -> bool:
        return bool(self._running or len(self._queue))

    def _fill_slots(self) -> list[Delivery]:
        """Give the engine as many waiting requests as it has slots; return the ends of those that it refuses."""
        refused: list[Delivery] = []
        while len(self._running) < self._limits.slots and (stream := self._queue.pop()) is not None:
            try:
                self.engine.add(stream.request)
            except EngineFull:
                if not self._running:  # it would be full for ever
                    refused.append(self._finish_early(stream, "the engine has no room for this prompt"))
                    continue
                self._queue.push_back(stream.key, stream, stream.cost)
                break
            except Exception as error:  # only this request fails
                refused.append(self._finish_early(stream, str(error)))
                continue
            stream.began = time.perf_counter()
            self._n_waiting -= 1
            self._running[stream.request.id] = stream
        return refused

    def _finish_early(self, stream: AnswerStream, problem: str) -> Delivery:
        self._n_waiting -= 1
        stream.finished = time.perf_counter()
        return stream, GenerationEvent(stream.request.id, finish_reason="error", error=problem)

    def _step(self) -> list[Delivery]:
        try:
            events = self.engine.step()
        except Exception:  # the engine itself is broken: every sequence that it computes is lost
            _log.exception("a step of the engine failed")
            self._failed_steps += 1
            return [self._lose(stream) for stream in list(self._running.values())]
        self._failed_steps = 0
        now = time.perf_counter()
        deliveries: list[Delivery] = []
        for event in events:
            stream = self._running.get(event.request_id)
            if stream is None:
                continue  # cancelled
            self._on_event(stream, event, now)
            self._count(stream, event, now)
            deliveries.append((stream, event))
        return deliveries

    def _count(self, stream: AnswerStream, event: GenerationEvent, now: float) -> None:
        stream.first_token = stream.first_token or now
        stream.last_token = now
        stream.n_generated += len(event.token_ids)
        stream.cached_tokens = event.cached_tokens or stream.cached_tokens
        if event.finish_reason:
            self._end(stream, now)
            seconds = (now - stream.began) / max(1, stream.n_generated)
            self._per_token_s = _DECAY * self._per_token_s + (1 - _DECAY) * seconds

    def _end(self, stream: AnswerStream, now: float) -> None:
        stream.finished = now
        del self._running[stream.request.id]
        self._queue.settle(stream.key, stream.cost - len(stream.request.prompt_ids) - stream.n_generated)

    def _lose(self, stream: AnswerStream) -> Delivery:
        self.engine.cancel(stream.request.id)
        self._end(stream, time.perf_counter())
        event = GenerationEvent(stream.request.id, finish_reason="error", error="the engine failed")
        self._on_event(stream, event, stream.finished)
        return stream, event

    def _drop(self, stream: AnswerStream) -> None:
        now = time.perf_counter()
        if stream.request.id in self._running:
            self.engine.cancel(stream.request.id)
            self._on_event(stream, GenerationEvent(stream.request.id, finish_reason="cancelled"), now)
            self._end(stream, now)
        elif self._queue.remove(stream):
            self._n_waiting -= 1
            stream.finished = now

    def _fail_rest(self) -> None:
        """End what is left when the thread gives up; nothing is left when it was closed."""
        with self._wake:
            self._closed = True
            waiting = list(self._new)
            calls = list(self._calls)
        while (stream := self._queue.pop()) is not None:
            waiting.append(stream)
        _deliver([self._finish_early(stream, "the engine failed") for stream in waiting])
        for _, future in calls:
            future.set_exception(EngineClosed())


def _fulfil(future: Future[Any], function: Callable[[Engine], Any], engine: Engine) -> None:
    try:
        future.set_result(function(engine))
    except Exception as error:
        future.set_exception(error)


def _deliver(deliveries: list[Delivery]) -> None:
    """Call the function of each event loop once, with all its events."""
    if not deliveries:
        return
    by_function: defaultdict[Callable[[list[Delivery]], None], list[Delivery]] = defaultdict(list)
    for stream, event in deliveries:
        by_function[stream.deliver].append((stream, event))
    for deliver, mine in by_function.items():
        deliver(mine)
