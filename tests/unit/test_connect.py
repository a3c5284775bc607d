"""The local Ray of a process, and addresses that do not answer, without starting Ray."""

import pytest

from cluster.connect import LocalRay, connect_to_ray, joins_cluster, local_ray
from cluster.errors import ResourceError
from cluster.ports import free_port


def test_a_ray_that_was_not_started_is_not_gone():
    ray = LocalRay()
    assert not ray.is_gone and not ray.is_stopping


def test_an_interrupted_ray_is_stopping_until_new_work_starts(monkeypatch):
    monkeypatch.setenv("RAY_ENABLE_AUTO_CONNECT", "1")
    ray = LocalRay()
    ray.interrupt()
    assert ray.is_stopping and ray.is_gone
    ray.forget_interrupt()
    assert not ray.is_stopping and not ray.is_gone


def test_an_address_joins_a_cluster(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert joins_cluster("10.0.0.1:6379") and not joins_cluster(None)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert joins_cluster(None)


def test_an_address_that_does_not_answer_is_refused_at_once():
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(ResourceError, match=f"cluster.address='{address}' does not answer"), connect_to_ray(address):
        pass
    assert not local_ray.is_gone
