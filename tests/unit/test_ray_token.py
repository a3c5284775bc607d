"""A Ray that starts here has a token, whether or not a home folder can hold it; a cluster that refuses it is named."""

import os
import time
from concurrent import futures

import grpc
import pytest

from cluster.errors import ResourceError
from cluster.ray_address import RayAddress
from cluster.ray_token import is_refusal, provide_token


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "to be restored after the test")
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("home", "provided"),
    [("", False), ("/proc/1/nothing", True), ("absent", True), ("file", True), ("ray_file", True), ("token", False)],
)
def test_a_token_is_provided_where_the_home_cannot_hold_one(home, provided, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "ray_file").mkdir()
    (tmp_path / "ray_file" / ".ray").write_text("a file, not a folder")
    (tmp_path / "token" / ".ray").mkdir(parents=True)
    (tmp_path / "token" / ".ray" / "auth_token").write_text("t")
    monkeypatch.setenv("HOME", str(tmp_path / home))
    provide_token()
    assert len(os.environ.get("RAY_AUTH_TOKEN", "")) == (64 if provided else 0)


def test_a_token_of_the_users_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/proc/1/nothing")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    provide_token()
    assert "RAY_AUTH_TOKEN" not in os.environ
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    provide_token()
    assert os.environ["RAY_AUTH_TOKEN"] == "mine"


@pytest.fixture
def guarded_server():
    """The address of a server in gRPC that asks for the token `right`, as a head with token authentication does."""

    class Guard(grpc.ServerInterceptor):
        def intercept_service(self, continuation, details):
            is_right = ("authorization", "Bearer right") in [(key, value) for key, value in details.invocation_metadata]
            code = grpc.StatusCode.UNIMPLEMENTED if is_right else grpc.StatusCode.UNAUTHENTICATED
            return grpc.unary_unary_rpc_method_handler(lambda request, context: context.abort(code, "InvalidAuthToken"))

    server = grpc.server(futures.ThreadPoolExecutor(1), interceptors=[Guard()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.mark.parametrize(
    ("mode", "token", "problem"),
    [
        (None, None, "asks for a token, and none is set here"),
        ("token", "", "asks for a token, and none is set here"),
        ("token", "wrong", "refuses the token that is set here"),
        ("disabled", "right", "asks for a token, and none is set here"),
        ("token", "right", None),
        (None, "right\n", None),
    ],
)
@pytest.mark.slow
@pytest.mark.parametrize("source", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "home"])
def test_a_cluster_that_refuses_the_token_is_named_at_once(
    guarded_server, mode, token, problem, source, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    if token is not None:
        file = tmp_path / (".ray/auth_token" if source == "home" else "token")
        file.parent.mkdir(exist_ok=True)
        file.write_text(token)
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
        if source != "RAY_AUTH_TOKEN_PATH":
            monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
        if source == "RAY_AUTH_TOKEN":
            monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    address = RayAddress(guarded_server, "--address")
    if problem is None:
        address.check()
        return
    started = time.monotonic()
    with pytest.raises(ResourceError, match=problem) as raised:
        address.check()
    assert time.monotonic() - started < 4
    assert "RAY_AUTH_TOKEN_PATH" in raised.value.fix and "wrong" not in str(raised.value)


def test_a_refusal_that_ray_wraps_is_one_too():
    try:
        try:
            raise RuntimeError("Last connection error: AuthenticationError: RPC error: InvalidAuthToken")
        except RuntimeError as cause:
            raise ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379") from cause
    except ConnectionError as error:
        assert is_refusal(error)
        assert "RAY_AUTH_TOKEN_PATH" in RayAddress("auto", "--address").no_answer(error).fix
    assert not is_refusal(ConnectionError("refused")) and not is_refusal(None)
