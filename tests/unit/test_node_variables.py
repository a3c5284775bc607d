"""What has to be set on every node before Ray starts, so that HAProxy there serves an endpoint as the spec says."""

import os
import shlex

import pytest

import raymill
from serve.haproxy import cluster_variables
from serve.haproxy_command import program_path
from trainer.spec.serve import ServeSpec


@pytest.mark.slow
def test_the_variables_of_a_registered_model(tiny_version):
    storage = tiny_version.folder.parents[3]
    variables = raymill.node_variables("tiny@1", storage=storage, retries=2, timeout_s=4)
    assert variables["RAY_SERVE_ENABLE_HA_PROXY"] == "1" and variables["RAY_SERVE_HAPROXY_RETRIES"] == "8"
    assert "response-timeout" in variables["RAY_SERVE_HAPROXY_RETRY_ON"].split()
    assert variables["RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S"] == "6"
    assert variables.get("RAY_SERVE_HAPROXY_BINARY_PATH") == program_path()
    assert all(shlex.split(shlex.quote(value)) == [value] for value in variables.values())
    assert not set(variables) & set(os.environ), "nothing is set here"


@pytest.mark.parametrize(
    ("spec", "name", "value"),
    [
        ({}, "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S", "32"),
        ({"replicas": [0, 2]}, "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S", "37"),  # the first request waits for a replica
        ({"timeout_s": 0.5}, "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S", "3"),
        ({}, "RAY_SERVE_HAPROXY_RETRY_ON", None),
        ({"replicas": 20}, "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER", "1s"),
        ({"replicas": [1, 200]}, "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER", None),  # Ray Serve's own: each node asks all
    ],
)
def test_how_soon_a_silent_replica_is_given_up(spec, name, value):
    assert cluster_variables(ServeSpec.model_validate(spec)).get(name) == value
