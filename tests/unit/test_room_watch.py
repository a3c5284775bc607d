"""Waiting for machines that have left: shown, and not without end."""

import time

import pytest

from cluster import room_watch
from cluster.errors import ResourceError
from cluster.plan import Demand, Node
from cluster.room_watch import RoomWatch
from support.timing import wait_until

TWO_WORKERS = Demand("train", "2 workers", 2, 1, 0, "cluster.workers")


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch):
    monkeypatch.setattr(room_watch, "_LOOK_EVERY_S", 0.02)


@pytest.mark.slow
def test_a_stage_with_room_waits_for_nothing():
    with RoomWatch(TWO_WORKERS, 0.1, lambda: [Node(1, 0), Node(1, 0)]) as room:
        time.sleep(0.3)
        assert room.check() == ""


def test_a_machine_that_comes_back_ends_the_wait():
    nodes = [Node(1, 0)]
    with RoomWatch(TWO_WORKERS, 60, lambda: nodes) as room:
        wait_until(room.check, within_s=20, what="the wait is shown")
        assert room.check() == "waiting for machines: room for 1 of 2 processes with 1 CPU each"
        nodes.append(Node(1, 0))
        wait_until(lambda: room.check() == "", within_s=20, what="the wait has ended")


@pytest.mark.slow
def test_a_wait_that_is_too_long_ends_with_an_error():
    def fails_sometimes(calls=[]):  # noqa: B006
        calls.append(1)
        if len(calls) % 2:
            raise RuntimeError("the head does not answer")
        return [Node(1, 0)]

    with RoomWatch(TWO_WORKERS, 0.3, fails_sometimes) as room, pytest.raises(ResourceError) as caught:
        wait_until(lambda: room.check() == "never", within_s=20)
    assert "for 0.3 s it had room for 1 of 2 processes" in str(caught.value)
    assert "cluster.wait_for_machines_s" in str(caught.value)


@pytest.mark.slow
def test_a_head_that_does_not_answer_is_shown_and_then_an_error(monkeypatch):
    monkeypatch.setattr(room_watch, "_HEAD_SILENT_S", 0.5)

    def no_answer():
        time.sleep(3)
        raise RuntimeError

    with RoomWatch(TWO_WORKERS, 60, no_answer) as room:
        wait_until(lambda: "waiting for the head" in room.check(), within_s=20)
        with pytest.raises(ResourceError, match="the head of the cluster has not answered for"):
            wait_until(lambda: room.check() == "never", within_s=20)


@pytest.mark.slow
def test_an_error_of_rays_own_while_the_head_is_silent(monkeypatch):
    monkeypatch.setattr(room_watch, "_HEAD_SILENT_S", 1.0)

    def no_answer():
        raise RuntimeError

    with pytest.raises(ResourceError, match="the head of the cluster has not answered"):  # noqa: SIM117
        with RoomWatch(TWO_WORKERS, 60, no_answer):
            time.sleep(0.4)
            raise RuntimeError("a call of Ray's has failed")
