"""The local Ray of a process, without starting Ray."""

from cluster.connect import LocalRay, joins_cluster


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
