"""A question to all replicas: one that is stuck or fails does not hide the answers of the others."""

import asyncio
import time

import pytest
import ray
import ray.serve

from cluster.ray_internals import broadcast_answers

_WITHIN_S = 3.0


@ray.serve.deployment(num_replicas=4, ray_actor_options={"num_cpus": 0})
class Numbered:
    """Replicas with a number each, by the order in which they ask for it."""

    def __init__(self, counter):
        self.number = ray.get(counter.next.remote())

    async def answer(self):
        """Return this replica's number; replica 1 never answers, and replica 2 fails."""
        if self.number == 1:
            await asyncio.sleep(600)
        if self.number == 2:
            raise ValueError("this replica fails")
        return self.number

    async def ask(self):
        """Return the answers of all replicas, and the seconds that they took."""
        context = ray.serve.get_replica_context()
        handle = ray.serve.get_deployment_handle(context.deployment, context.app_name)
        started = time.monotonic()
        return await broadcast_answers(handle, "answer", _WITHIN_S), time.monotonic() - started


@ray.remote(num_cpus=0)
class Counter:
    """Counts from 0."""

    def __init__(self):
        self.value = -1

    def next(self):
        """Return the next number."""
        self.value += 1
        return self.value


@pytest.fixture
def handle():
    ray.serve.start(proxy_location="Disabled")
    try:
        yield ray.serve.run(Numbered.bind(Counter.remote()), name="broadcast", route_prefix=None)
    finally:
        ray.serve.shutdown()


def test_the_answers_that_arrive_in_time_are_returned(handle):
    answers, seconds = handle.ask.remote().result(timeout_s=60)
    assert sorted(answers) == [0, 3]
    assert seconds < _WITHIN_S + 5
