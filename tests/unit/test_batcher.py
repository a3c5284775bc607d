"""The batcher: no batch waits to fill, no request starves, an error fails only the requests it concerns."""

import threading
import time

import numpy as np
import pytest

from cluster.errors import RequestError
from serve.model.batcher import Batcher, BatchLimits
from support.timing import wait_until

LIMITS = BatchLimits(inputs=8, tokens=100, waiting=1000)


class DoublingModel:
    """A model whose inputs are numbers of tokens and whose answers are twice that. Batches wait while `gate` is closed."""

    def __init__(self):
        self.gate = threading.Event()
        self.gate.set()
        self.batches = []
        self.prepared = []

    def prepare(self, raw):
        self.prepared.append(len(raw))
        return [RequestError(422, "odd", "is odd") if value == 13 else np.zeros(value) for value in raw]

    def compute(self, inputs):
        assert self.gate.wait(10)
        if any(len(ids) == 99 for ids in inputs):
            raise ValueError("too much for me")
        self.batches.append([len(ids) for ids in inputs])
        return np.array([[2 * len(ids)] for ids in inputs])

    def format_answers(self, scores):
        return [int(score) for (score,) in scores]


@pytest.fixture
def model():
    return DoublingModel()


@pytest.fixture
def batcher(model):
    batcher = Batcher(model, LIMITS)
    yield batcher
    model.gate.set()
    batcher.close()


class Done:
    def __init__(self):
        self.jobs = []

    def __call__(self, jobs):
        self.jobs += jobs


def test_a_single_request_is_computed_at_once_and_its_stages_are_timed(batcher):
    done = Done()
    job = batcher.submit([3, 5], done)
    wait_until(lambda: done.jobs)
    assert job.answers == [6, 10] and job.error is None and job.tokens == 8
    assert job.computing_s > 0 and job.preparing_s > 0 and job.queue_s >= 0
    assert batcher.waiting == 0


def test_waiting_requests_share_a_batch_within_its_limits(batcher, model):
    done = Done()
    model.gate.clear()
    batcher.submit([1], done)
    wait_until(lambda: batcher.waiting == 1 and model.prepared)
    for _ in range(10):
        batcher.submit([10], done)
    batcher.submit([95, 50], done)
    model.gate.set()
    wait_until(lambda: len(done.jobs) == 12)
    assert model.batches[0] == [1]
    assert model.batches[1] == [10] * 8  # the limit of inputs
    assert all(len(batch) <= 8 and (len(batch) == 1 or sum(batch) <= 100) for batch in model.batches)


def test_a_large_request_does_not_starve_those_after_it(batcher, model):
    done = Done()
    model.gate.clear()
    large = batcher.submit([1] * 900, done)
    wait_until(lambda: model.prepared)
    small = [batcher.submit([2], done) for _ in range(3)]
    model.gate.set()
    wait_until(lambda: len(done.jobs) == 4)
    assert done.jobs[-1] is large and large.answers == [2] * 900
    assert [job.answers for job in small] == [[4]] * 3
    first = next(index for index, batch in enumerate(model.batches) if 2 in batch)
    assert first <= 2
    assert max(model.prepared) <= 64  # it is prepared in pieces, too


def test_overload_is_rejected_at_once_and_accepted_requests_are_answered(batcher, model):
    done = Done()
    model.gate.clear()
    batcher.submit([1] * 990, done)
    began = time.perf_counter()
    with pytest.raises(RequestError) as error:
        batcher.submit([1] * 20, done)
    assert error.value.status == 429 and time.perf_counter() - began < 1
    assert batcher.retry_after_s >= 1
    batcher.submit([1] * 10, done)
    model.gate.set()
    wait_until(lambda: len(done.jobs) == 2)
    # A single request may be larger than the queue: `serve.max_inputs` limits it.
    batcher.submit([1] * 1200, done)
    wait_until(lambda: len(done.jobs) == 3)


def test_an_invalid_input_fails_only_its_request_with_its_index(batcher):
    done = Done()
    wrong, right = batcher.submit([2, 13, 4], done), batcher.submit([3], done)
    wait_until(lambda: len(done.jobs) == 2)
    assert wrong.error.status == 422 and str(wrong.error) == "inputs[1] is odd"
    assert right.answers == [6] and batcher.waiting == 0


def test_a_failing_batch_fails_its_requests_and_the_batcher_continues(batcher):
    done = Done()
    wrong = [batcher.submit([99, 1], done), batcher.submit([99, 1, 1], done), batcher.submit([99], done)]
    wait_until(lambda: len(done.jobs) == 3)
    assert all(isinstance(job.error, ValueError) for job in wrong)
    right = batcher.submit([3], done)
    wait_until(lambda: len(done.jobs) == 4)
    assert right.answers == [6] and batcher.waiting == 0 and batcher.is_alive


def test_a_caller_that_is_gone_does_not_stop_the_batcher(batcher):
    def gone(jobs):
        raise RuntimeError("Event loop is closed")

    done = Done()
    batcher.submit([3], gone)
    right = batcher.submit([4], done)
    wait_until(lambda: done.jobs)
    assert right.answers == [8] and batcher.is_alive


def test_a_dropped_request_leaves_the_queue(batcher, model):
    done = Done()
    model.gate.clear()
    gone = batcher.submit([1] * 500, done)
    wait_until(lambda: model.prepared)
    gone.dropped = True
    stays = batcher.submit([2], done)
    model.gate.set()
    wait_until(lambda: len(done.jobs) == 2)
    assert sum(map(len, model.batches)) < 50 and stays.answers == [4]
    assert batcher.waiting == 0
