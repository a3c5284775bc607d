"""Dynamic batching: choose the inputs that go through the model together, and time each request's stages.

One thread prepares inputs and computes batches. It never waits for a batch to fill: it takes the inputs that are
waiting, up to a limit of inputs and tokens. It takes one input of each request in turn, so a request with 10,000 inputs
shares every batch with requests that came after it. While a batch is computed, the inputs of the next batch queue up.
Plain Python, without Ray or HTTP.
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
# Maximum number of inputs to prepare at a time, so that a large request does not delay the batches of others.
_CHUNK = 64
# Weight of earlier batches in the running mean of seconds per input. The mean predicts when a client should retry.
_DECAY = 0.9
_NOTHING = np.empty(0)

DoneCallback = Callable[[list["Job"]], None]


class BatcherClosed(Exception):
    """A job was submitted to a batcher that accepts no more jobs."""


class BatchLimits(NamedTuple):
    """Limits on batches and on the queue."""

    inputs: int
    """Maximum number of inputs in a batch."""
    tokens: int
    """Maximum number of tokens in a batch (for inputs that are not texts: of numbers). A single input may have more."""
    waiting: int
    """Maximum number of inputs that wait. A request that would exceed it is rejected."""


class BatchModel(Protocol):
    """A model that computes batches."""

    def prepare(self, raw: Sequence[Any]) -> list[np.ndarray | RequestError]:
        """Return the model input of each raw input, or an error for one that cannot be used."""

    def compute(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Return scores, shape (B, C)."""

    def format_answers(self, scores: np.ndarray) -> list[Any]:
        """Return the answer for each row of scores."""


class Job:
    """A request in the batcher."""

    __slots__ = (
        "answers", "computing_s", "done", "dropped", "error", "finished", "identity", "inputs", "n_begun", "n_left",
        "n_prepared", "preparing_s", "raw", "started", "tokens", "waiter",
    )  # fmt: skip

    def __init__(self, raw: Sequence[Any], done: DoneCallback) -> None:
        self.raw, self.done = raw, done
        self.inputs: list[np.ndarray] = []
        self.answers: list[Any] = [None] * len(raw)
        self.n_prepared = self.n_begun = 0
        self.n_left = len(raw)
        self.error: Exception | None = None
        self.identity: dict[str, Any] = {}
        """The model and the engine that compute this job. The batcher does not use it."""
        self.waiter: Any = None
        """An object of the caller's, for example a future that `done` completes. The batcher does not use it."""
        self.dropped = False
        """Whether the client has stopped waiting."""
        self.tokens = 0
        self.preparing_s = self.computing_s = 0.0
        self.started = self.finished = time.perf_counter()

    @property
    def queue_s(self) -> float:
        """Seconds in which the request was neither prepared nor computed."""
        return max(0.0, self.finished - self.started - self.preparing_s - self.computing_s)


class BatchStats(NamedTuple):
    """The size and time of a finished batch."""

    inputs: int
    tokens: int
    seconds: float


class Batcher:
    """Runs requests through a model in batches, in its own thread. `close` ends the thread."""

    def __init__(
        self,
        model: BatchModel,
        limits: BatchLimits,
        on_batch: Callable[[BatchStats], None] = lambda stats: None,
    ) -> None:
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
        """Whether the batcher's thread still runs."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Inputs that are not answered yet."""
        return self._waiting

    def submit(self, raw: Sequence[Any], done: DoneCallback) -> Job:
        """Queue the inputs of a request and return its job.

        After each batch, the batcher's thread calls `done` once with all finished jobs that were submitted with this
        same function. Raises `RequestError` 429 at once if too many inputs wait, and `BatcherClosed` after `close`.
        """
        job = Job(raw, done)
        with self._wake:
            if self._closed:
                raise BatcherClosed
            if self._waiting and self._waiting + len(raw) > self._limits.waiting:
                raise RequestError(
                    429, "overloaded", f"{self._waiting} inputs are already waiting; retry in {self.retry_after_s} s"
                )
            self._waiting += len(raw)
            self._new.append(job)
            self._wake.notify()
        return job

    @property
    def retry_after_s(self) -> int:
        """Estimated time until the inputs that wait now are done, in whole seconds."""
        return max(1, round(self._waiting * self._per_input_s + 0.5))

    def close(self) -> None:
        """Accept no more jobs, finish those that wait, and end the thread."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    # -- the batcher's thread

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._new and not self._jobs and not self._closed:
                    self._wake.wait()
                if self._closed and not self._new and not self._jobs:
                    return
                self._jobs.extend(self._new)
                self._new.clear()
            finished = self._remove_dropped()
            finished += self._prepare()
            finished += self._compute()
            self._finish(finished)

    def _remove_dropped(self) -> list[Job]:
        dropped = [job for job in self._jobs if job.dropped]
        for job in dropped:
            self._jobs.remove(job)
        return dropped

    def _prepare(self) -> list[Job]:
        """Prepare inputs for the next batch; return the jobs that failed because an input cannot be used."""
        chunk = self._next_chunk()
        if not chunk:
            return []
        started = time.perf_counter()
        raw = [value for job, count in chunk for value in job.raw[job.n_prepared : job.n_prepared + count]]
        try:
            prepared: Sequence[np.ndarray | Exception] = self._model.prepare(raw)
        except Exception as error:  # a task's preprocessing can raise any error; only these requests fail
            prepared = [error] * len(raw)
        per_input_s = (time.perf_counter() - started) / len(raw)
        failed, start = [], 0
        for job, count in chunk:
            self._take_prepared(job, prepared[start : start + count])
            job.preparing_s += per_input_s * count
            start += count
            if job.error:
                self._jobs.remove(job)
                failed.append(job)
        return failed

    def _next_chunk(self) -> list[tuple[Job, int]]:
        """Return the requests to prepare now, each with the number of inputs: enough for the next batch."""
        chunk: list[tuple[Job, int]] = []
        room = _CHUNK
        for job in self._jobs:
            ahead = job.n_prepared - job.n_begun
            count = min(room, len(job.raw) - job.n_prepared, max(0, _CHUNK // 2 - ahead))
            if count > 0:
                chunk.append((job, count))
                room -= count
            if room <= 0:
                break
        return chunk

    def _take_prepared(self, job: Job, values: Sequence[np.ndarray | Exception]) -> None:
        for index, value in enumerate(values, job.n_prepared):
            if isinstance(value, Exception):
                job.error = job.error or _with_index(value, index)
            else:
                job.inputs.append(value)
                job.tokens += len(value)
        job.n_prepared += len(values)

    def _compute(self) -> list[Job]:
        """Compute one batch; return the jobs that it finished."""
        batch = self._next_batch()
        if not batch:
            return []
        inputs = [job.inputs[index] for job, index in batch]
        started = time.perf_counter()
        error: Exception | None = None
        try:
            answers = self._model.format_answers(self._model.compute(inputs))
        except Exception as failure:  # only these requests fail; the replica continues
            error, answers = failure, [None] * len(batch)
        seconds = time.perf_counter() - started
        self._per_input_s = _DECAY * self._per_input_s + (1 - _DECAY) * seconds / len(batch)
        if error is None:
            self._on_batch(BatchStats(len(batch), sum(map(len, inputs)), seconds))
        finished = []
        for job in dict.fromkeys(job for job, _ in batch):
            job.computing_s += seconds
        for (job, index), answer in zip(batch, answers, strict=True):
            job.answers[index] = answer
            job.inputs[index] = _NOTHING
            job.error = job.error or error
            job.n_left -= 1
            if job in self._jobs and (error or job.n_left == 0):
                self._jobs.remove(job)
                finished.append(job)
        return finished

    def _next_batch(self) -> list[tuple[Job, int]]:
        """Take one input of each request in turn until the batch is full.

        The requests in this batch are moved to the end of the queue for the next one.
        """
        batch: list[tuple[Job, int]] = []
        tokens = 0
        ready = deque(job for job in self._jobs if job.n_begun < job.n_prepared)
        while ready and len(batch) < self._limits.inputs:
            job = ready.popleft()
            size = len(job.inputs[job.n_begun])
            if batch and tokens + size > self._limits.tokens:
                break
            batch.append((job, job.n_begun))
            tokens += size
            job.n_begun += 1
            if job.n_begun < job.n_prepared:
                ready.append(job)
        self._jobs.rotate(-len({id(job) for job, _ in batch}))
        return batch

    def _finish(self, finished: list[Job]) -> None:
        """Call each `done` function once, with its finished jobs."""
        if not finished:
            return
        now = time.perf_counter()
        with self._wake:
            for job in finished:
                self._waiting -= len(job.raw)
        by_caller: dict[DoneCallback, list[Job]] = {}
        for job in finished:
            job.finished = now
            by_caller.setdefault(job.done, []).append(job)
        for done, jobs in by_caller.items():
            try:
                done(jobs)
            except Exception:  # the caller's event loop may be closed; other callers must still get their jobs
                _log.warning("cannot deliver the answers of %d requests to their caller", len(jobs), exc_info=True)


def _with_index(error: Exception, index: int) -> Exception:
    """Return `error` with the input's index in the request added to its message, if it is a `RequestError`."""
    if not isinstance(error, RequestError):
        return error
    return RequestError(error.status, error.code, f"inputs[{index}] {error}")
