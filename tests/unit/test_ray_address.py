"""Addresses of a Ray cluster, from every source and in every form: messages name what gives the address."""

import http.server
import threading
import time

import pytest

from cluster.connect import connect_to_ray, joins_cluster, local_ray
from cluster.doctor import _check_ray_address
from cluster.errors import ResourceError
from cluster.ports import free_port
from cluster.ray_address import OPTION, VARIABLE, find_address

#: Address, with a `%d` for a port where nothing listens -> what the message says of it.
WRONG = {
    "http://127.0.0.1:8265": "is the address of Ray's dashboard, which `raymill submit` takes",
    "https://head.example:443/path": "is the address of Ray's dashboard",
    "127.0.0.1:%d": "does not answer: [Errno 111] Connection refused",
    "localhost:%d": "does not answer",
    "[::1]:%d": "does not answer",
    "ray://127.0.0.1:%d": "does not answer: [Errno 111] Connection refused",
    "no-such-host.invalid:6379": "does not answer",
    "h\u00e4ad..x:6379": "does not answer",
    "head": "a host and a port from 1 to 65535 are needed",
    ":6379": "a host and a port from 1 to 65535 are needed",
    "ray://head": "a host and a port from 1 to 65535 are needed",
    "127.0.0.1:99999": "a host and a port from 1 to 65535 are needed",
    "127.0.0.1:0": "a host and a port from 1 to 65535 are needed",
    "127.0.0.1:port": "a host and a port from 1 to 65535 are needed",
    "anyscale://x:1": "Ray has no addresses that begin with anyscale://",
}


@pytest.mark.parametrize("source", ["cluster.address", OPTION, VARIABLE])
@pytest.mark.parametrize("form", WRONG)
def test_every_wrong_address_names_its_source_at_once(monkeypatch, form, source):
    monkeypatch.delenv(VARIABLE, raising=False)
    address = form % free_port() if "%d" in form else form
    if source == VARIABLE:
        monkeypatch.setenv(VARIABLE, f" {address} ")
    started = time.monotonic()
    with (
        pytest.raises(ResourceError) as caught,
        connect_to_ray(
            None if source == VARIABLE else address, source=source if source != VARIABLE else "cluster.address"
        ),
    ):
        pass
    assert f"{source}={address!r}" in caught.value.problem and WRONG[form] in caught.value.problem
    remedy = f"unset the environment variable {VARIABLE}" if source == VARIABLE else f"change `{source}`"
    assert remedy in caught.value.fix and ("cluster.address" in str(caught.value)) == (source == "cluster.address")
    assert time.monotonic() - started < 30 and not local_ray.is_gone


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_server_that_is_no_ray_is_refused_at_once(monkeypatch, scheme):
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(VARIABLE, f"{scheme}127.0.0.1:{server.server_port}")
    try:
        with pytest.raises(ResourceError, match="what listens there is no Ray"), connect_to_ray(None):
            pass
    finally:
        server.shutdown()
        server.server_close()


def test_a_key_counts_more_than_the_variable(monkeypatch):
    monkeypatch.setenv(VARIABLE, "10.0.0.1:6379")
    assert find_address(None) == ("10.0.0.1:6379", VARIABLE)
    assert find_address("10.0.0.2:6379", OPTION) == ("10.0.0.2:6379", OPTION)
    assert find_address("local") is None and not joins_cluster("local")


@pytest.mark.parametrize("value", ["", " ", "local", "local "])
def test_a_variable_that_asks_for_this_machine(monkeypatch, value):
    monkeypatch.setenv(VARIABLE, value)
    assert find_address(None) is None and not joins_cluster(None)


def test_the_doctor_finds_a_wrong_variable(monkeypatch):
    monkeypatch.setenv(VARIABLE, "http://127.0.0.1:8265")
    check = _check_ray_address()
    assert (
        not check.ok and check.needed and "RAY_ADDRESS='http://127.0.0.1:8265'" in check.result and "unset" in check.fix
    )
    monkeypatch.delenv(VARIABLE)
    assert _check_ray_address().ok
