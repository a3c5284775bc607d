"""Which inputs go through the model together, and how long each request waited, was prepared and was computed for.

One thread prepares and computes. It never waits for a batch to fill: it takes what is there, up to so many inputs and tokens,
a turn for each request, so that one with 10,000 inputs shares every batch with those that came after it. While it computes,
the next requests gather, and that makes the batches. Plain Python; nothing here knows Ray or HTTP.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from cluster.errors import RequestError

_log = logging.getLogger("raymill.serve")
# Inputs that are prepared at a time: a large request must not hold up the others' batches.
_CHUNK = 64
# How much of the waiting there is counted to say how soon it is worth asking again.
_REMEMBER = 0.9


class Limits(NamedTuple):
    """How much goes together."""

    inputs: int
    """Most inputs of one batch."""
    tokens: int
    """Most numbers in the inputs of one batch (tokens of texts); one input may have more."""
    waiting: int
    """Most inputs that may wait; a request that would make more is refused."""


class Model(Protocol):
    """What batches go through."""

    def prepare(self, raw: Sequence[Any]) -> list[np.ndarray | RequestError]:
        """Return the model inputs of raw ones, or why one cannot be used."""

    def compute(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Return scores, shape (B, C)."""

    def answers(self, scores: np.ndarray) -> list[Any]:
        """Return what is answered for scores."""


class Job:
    """One request on its way."""

    __slots__ = (
        "answers", "begun", "computing_s", "done", "dropped", "error", "finished", "inputs", "left", "prepared",
        "preparing_s", "raw", "started", "tokens", "waiter",
    )  # fmt: skip

    def __init__(self, raw: Sequence[Any], done: Callable[[list[Job]], None]) -> None:
        self.raw, self.done = raw, done
        self.inputs: list[np.ndarray] = []
        self.answers: list[Any] = [None] * len(raw)
        self.prepared = self.begun = 0
        self.left = len(raw)
        self.error: Exception | None = None
        self.waiter: Any = None
        """Whatever `done` wakes."""
        self.dropped = False
        """Nobody waits for it any more."""
        self.tokens = 0
        self.preparing_s = self.computing_s = 0.0
        self.started = self.finished = time.perf_counter()

    @property
    def queue_s(self) -> float:
        """Seconds in which it was neither prepared nor computed for."""
        return max(0.0, self.finished - self.started - self.preparing_s - self.computing_s)


class Batch(NamedTuple):
    """What a finished batch was like, for whoever counts."""

    inputs: int
    tokens: int
    seconds: float


class Batcher:
    """Takes requests, and calls back for each when it is done. `close` ends its thread."""

    def __init__(self, model: Model, limits: Limits, on_batch: Callable[[Batch], None] = lambda batch: None) -> None:
        self._model, self._limits, self._on_batch = model, limits, on_batch
        self._new: deque[Job] = deque()
        self._wake = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._waiting = 0
        self._per_input_s = 0.001
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="raymill-batches")
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether its thread still works."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Inputs that are not answered yet."""
        return self._waiting

    def submit(self, raw: Sequence[Any], done: Callable[[list[Job]], None]) -> Job:
        """Have inputs computed; `done` is called in the batches' thread with all jobs of its that ended together.

        Raises `RequestError` 429 at once where too many wait.
        """
        job = Job(raw, done)
        with self._wake:
            if self._waiting and self._waiting + len(raw) > self._limits.waiting:
                raise RequestError(
                    429, "overloaded", f"{self._waiting} inputs wait already; ask again in {self.retry_after_s} s"
                )
            self._waiting += len(raw)
            self._new.append(job)
            self._wake.notify()
        return job

    @property
    def retry_after_s(self) -> int:
        """Whole seconds after which what waits now should be done."""
        return max(1, round(self._waiting * self._per_input_s + 0.5))

    def close(self) -> None:
        """End the thread after the batch it is at."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    # -- the thread

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._new and not self._jobs and not self._closed:
                    self._wake.wait()
                if self._closed:
                    return
                self._jobs.extend(self._new)
                self._new.clear()
            ended = self._drop_those_left()
            ended += self._prepare()
            ended += self._compute()
            self._tell(ended)

    def _drop_those_left(self) -> list[Job]:
        ended = [job for job in self._jobs if job.dropped]
        for job in ended:
            self._jobs.remove(job)
        return ended

    def _prepare(self) -> list[Job]:
        """Prepare enough for the next batch, a turn for each request that has something to prepare."""
        chunk: list[tuple[Job, int]] = []
        room = _CHUNK
        for job in self._jobs:
            ahead = job.prepared - job.begun
            some = min(room, len(job.raw) - job.prepared, max(0, _CHUNK // 2 - ahead))
            if some > 0:
                chunk.append((job, some))
                room -= some
            if room <= 0:
                break
        if not chunk:
            return []
        started = time.perf_counter()
        raw = [value for job, some in chunk for value in job.raw[job.prepared : job.prepared + some]]
        try:
            found: Sequence[np.ndarray | Exception] = self._model.prepare(raw)
        except Exception as error:  # of whatever a task does to its inputs; told to these requests alone
            found = [error] * len(raw)
        each_s = (time.perf_counter() - started) / len(raw)
        ended, at = [], 0
        for job, some in chunk:
            for place, value in enumerate(found[at : at + some], job.prepared):
                if isinstance(value, Exception):
                    job.error = job.error or _placed(value, place)
                else:
                    job.inputs.append(value)
                    job.tokens += len(value)
            at += some
            job.prepared += some
            job.preparing_s += each_s * some
            if job.error:
                self._jobs.remove(job)
                ended.append(job)
        return ended

    def _compute(self) -> list[Job]:
        """Compute one batch; returns the requests that it finished."""
        batch = self._next_batch()
        if not batch:
            return []
        inputs = [job.inputs[at] for job, at in batch]
        started = time.perf_counter()
        error: Exception | None = None
        try:
            answers = self._model.answers(self._model.compute(inputs))
        except Exception as failed:  # the replica goes on; these requests are told
            error, answers = failed, [None] * len(batch)
        seconds = time.perf_counter() - started
        self._per_input_s = _REMEMBER * self._per_input_s + (1 - _REMEMBER) * seconds / len(batch)
        if error is None:
            self._on_batch(Batch(len(batch), sum(map(len, inputs)), seconds))
        ended = []
        for job in dict.fromkeys(job for job, _ in batch):
            job.computing_s += seconds
        for (job, at), answer in zip(batch, answers, strict=True):
            job.answers[at] = answer
            job.inputs[at] = _NOTHING
            job.error = job.error or error
            job.left -= 1
            if job in self._jobs and (error or job.left == 0):
                self._jobs.remove(job)
                ended.append(job)
        return ended

    def _next_batch(self) -> list[tuple[Job, int]]:
        """Take a turn for each request until the batch is full; whoever was first comes last next time."""
        batch: list[tuple[Job, int]] = []
        tokens = 0
        ready = deque(job for job in self._jobs if job.begun < job.prepared)
        while ready and len(batch) < self._limits.inputs:
            job = ready.popleft()
            size = len(job.inputs[job.begun])
            if batch and tokens + size > self._limits.tokens:
                break
            batch.append((job, job.begun))
            tokens += size
            job.begun += 1
            if job.begun < job.prepared:
                ready.append(job)
        self._jobs.rotate(-len({id(job) for job, _ in batch}))
        return batch

    def _tell(self, ended: list[Job]) -> None:
        if not ended:
            return
        now = time.perf_counter()
        with self._wake:
            for job in ended:
                self._waiting -= len(job.raw)
        together: dict[Callable[[list[Job]], None], list[Job]] = {}
        for job in ended:
            job.finished = now
            together.setdefault(job.done, []).append(job)
        for done, jobs in together.items():
            try:
                done(jobs)
            except Exception:  # whoever waited is gone, with its event loop; the others' batches go on
                _log.warning("%d requests ended that nobody waits for any more", len(jobs), exc_info=True)


_NOTHING = np.empty(0)


def _placed(error: Exception, place: int) -> Exception:
    """Return the error of an input with its place in the request."""
    if not isinstance(error, RequestError):
        return error
    return RequestError(error.status, error.code, f"inputs[{place}] {error}")
