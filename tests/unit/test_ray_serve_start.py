"""The start of Ray Serve on a busy machine: proxies get time, and a process that ends is reported with its reason."""

import os
from pathlib import Path

import pytest
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import ActorDiedError, GetTimeoutError

from serve.endpoint import ray_serve_error
from serve.haproxy import configure_proxy
from trainer.registry.registry import Version
from trainer.spec.serve import ServeSpec

READY_TIMEOUT = "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"


@pytest.mark.parametrize("proxy", ["python", "auto"])
def test_a_proxy_has_half_a_minute_to_start(proxy):
    with configure_proxy(ServeSpec(proxy=proxy)):
        assert os.environ[READY_TIMEOUT] == "30"
    assert READY_TIMEOUT not in os.environ


def test_a_variable_that_is_set_already_stays(monkeypatch):
    monkeypatch.setenv(READY_TIMEOUT, "90")
    with configure_proxy(ServeSpec(proxy="python")):
        assert os.environ[READY_TIMEOUT] == "90"
    assert os.environ[READY_TIMEOUT] == "90"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            ActorDiedError(
                ActorDiedErrorContext(
                    error_message="The actor is dead because it was killed by `ray.kill`.",
                    actor_id=b"0" * 16,
                    class_name="ProxyActor",
                    pid=4711,
                    node_ip_address="127.0.0.1",
                )
            ),
            "class_name: ProxyActor The actor is dead because it was killed by `ray.kill`.",
        ),
        (TimeoutError("HTTP proxies not available after 60s."), "HTTP proxies not available after 60s."),
        (GetTimeoutError(), "GetTimeoutError"),
    ],
)
def test_a_process_of_ray_serve_that_ends_is_an_error_with_its_reason(error, reason):
    reported = ray_serve_error(Version("demo", 3, Path()), error)
    assert reason in reported.problem and "4711" not in reported.problem
    assert reported.problem.startswith("demo@3 could not be started") and "/tmp/ray" in reported.fix
