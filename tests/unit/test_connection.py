"""A connection to an endpoint, byte by byte, without a model: limits, timeouts, errors and the end."""

import asyncio
import json
import socket
import threading
import time

import pytest
import uvicorn
from uvicorn.protocols.http import auto

from serve.asgi.ray_errors import RayErrors
from serve.asgi.uvicorn_patch import is_patched, patch_uvicorn
from serve.local.server import _Server
from support.odd_clients import exchange, request
from support.timing import wait_until

CLIENT_TIMEOUT_S = 1.5


class App:
    """Answers with the length of the body; /wait waits until `release`, /big answers 30 MB, /early answers unread."""

    def __init__(self):
        self.released = threading.Event()
        self.n_waiting = 0
        self.is_draining = self.gave_up = False

    async def __call__(self, scope, receive, send):
        size, more = 0, scope["path"] != "/early"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size, more = size + len(message["body"]), message.get("more_body", False)
        self.n_waiting += 1
        while scope["path"] == "/wait" and not self.released.is_set() and not self.gave_up:
            await asyncio.sleep(0.01)
        body = b"x" * 30_000_000 if scope["path"] == "/big" else json.dumps({"size": size}).encode()
        status = 503 if self.gave_up else 200
        await send(
            {"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(body))]}
        )
        await send({"type": "http.response.body", "body": body})

    def drain(self):
        self.is_draining = True

    def give_up(self):
        self.gave_up = True


@pytest.fixture(params=["asyncio", "uvloop"])
def endpoint(request, monkeypatch):
    """A running server; `rejected` are the refusals that it counted."""
    monkeypatch.setattr(auto, "AutoHTTPProtocol", auto.AutoHTTPProtocol)  # restored after the test
    rejected = []
    patch_uvicorn(CLIENT_TIMEOUT_S, lambda status, reason: rejected.append((status, reason)))
    assert is_patched()
    app = App()
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, lifespan="off", log_config=None, loop=request.param, timeout_graceful_shutdown=1)
    server = _Server(config, app, drain_s=3)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    server.url = "http://{}:{}".format(*listening.getsockname())
    server.app, server.rejected, server.thread = app, rejected, thread
    yield server
    app.released.set()
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


def connect(endpoint):
    address = endpoint.url.removeprefix("http://").split(":")
    return socket.create_connection((address[0], int(address[1])), timeout=20)


def received(client):
    """Return everything until the connection ends."""
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


WRONG = [
    (b"GARBAGE\r\n\r\n", 400, "invalid_http: this is not valid HTTP: "),
    (b"\x16\x03\x01\x02\x00\x01", 400, "invalid_http: this is HTTPS"),
    (b"CONNECT x:443 HTTP/1.1\r\n\r\n", 400, "invalid_http: this is not valid HTTP: its request line"),
    (request("/", b"x", "content-length: 2"), 400, "invalid_http"),
    (b"GET / HTTP/1.1\r\ncookie: " + b"c" * 1_000_000, 431, "headers_too_large"),
    (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5000, 431, "headers_too_large"),
    (b"GET / HTTP/1.1\r\nhost: x", 408, "slow_request"),
    (b"GET", 408, "slow_request"),
]


@pytest.mark.slow
@pytest.mark.parametrize("endpoint", ["asyncio"], indirect=True)
def test_what_never_reaches_the_application_is_answered_in_json_and_counted(endpoint):
    for data, status, error in WRONG:
        answer = exchange(endpoint.url, data)
        assert answer.status == status and answer.error.startswith(error), answer
        assert (answer.headers["content-type"], answer.headers["connection"]) == ("application/json", "close")
    assert endpoint.rejected == [(status, error.partition(":")[0]) for _, status, error in WRONG]


@pytest.mark.slow
def test_a_body_that_breaks_off_is_answered_once(endpoint):
    chunks = request("/", b"zz\r\n", "transfer-encoding: chunked", length="none")
    assert exchange(endpoint.url, chunks).status == 400
    assert endpoint.rejected == []  # the application counts it


@pytest.mark.slow
def test_garbage_behind_a_request_does_not_cost_its_answer(endpoint):
    with connect(endpoint) as client:
        client.sendall(request("/wait", b"ab").replace(b"connection: close\r\n", b"") + b"GARBAGE\r\n\r\n")
        wait_until(lambda: endpoint.app.n_waiting)
        endpoint.app.released.set()
        assert received(client).endswith(b'{"size": 2}')


@pytest.mark.slow
def test_an_early_answer_arrives_although_the_client_still_sends(endpoint):
    answer = exchange(endpoint.url, request("/early", length=50_000_000), *[b"x" * 1_000_000] * 50)
    assert answer.status == 200 and answer.body == b'{"size": 0}'


@pytest.mark.slow
def test_idle_connections_are_closed_without_an_answer(endpoint):
    started = time.monotonic()
    with connect(endpoint) as silent, connect(endpoint) as chatty:
        chatty.sendall(request("/", b"a").replace(b"connection: close\r\n", b""))
        assert b'{"size": 1}' in chatty.recv(65536)
        chatty.sendall(b"\r\n")  # no request
        assert received(silent) == received(chatty) == b""
    assert time.monotonic() - started >= CLIENT_TIMEOUT_S


@pytest.mark.slow
def test_a_client_that_reads_nothing_is_disconnected(endpoint):
    with connect(endpoint) as client:
        client.sendall(request("/big"))
        wait_until(lambda: endpoint.app.n_waiting)
        wait_until(lambda: not endpoint.server_state.connections, what="the connection is ended")


@pytest.mark.slow
def test_a_slow_reader_gets_everything(endpoint):
    with connect(endpoint) as client:
        client.sendall(request("/big"))
        n_bytes = 0
        while part := client.recv(400_000):
            n_bytes += len(part)
            time.sleep(0.02)
    assert n_bytes > 30_000_000


@pytest.mark.slow
def test_the_end_answers_what_was_accepted_and_refuses_what_is_new(endpoint):
    with connect(endpoint) as waiting, connect(endpoint) as late, connect(endpoint) as idle:
        waiting.sendall(request("/wait", b"abc").replace(b"connection: close\r\n", b""))
        wait_until(lambda: endpoint.app.n_waiting == 1)
        endpoint.should_exit = True
        wait_until(lambda: endpoint.app.is_draining)
        late.sendall(request("/", b"x").replace(b"connection: close\r\n", b""))  # connected before the end began
        assert received(late).endswith(b'{"size": 1}')
        assert received(idle) == b""
        with pytest.raises(ConnectionRefusedError):
            connect(endpoint)
        endpoint.app.released.set()
        answer = received(waiting)
        assert answer.endswith(b'{"size": 3}') and b"connection: close" in answer
    endpoint.thread.join(20)
    assert not endpoint.app.gave_up


@pytest.mark.slow
def test_what_takes_too_long_at_the_end_gets_an_answer_too(endpoint):
    with connect(endpoint) as waiting:
        waiting.sendall(request("/wait"))
        wait_until(lambda: endpoint.app.n_waiting == 1)
        endpoint.should_exit = True
        assert received(waiting).startswith(b"HTTP/1.1 503 ")
    endpoint.thread.join(20)
    assert not endpoint.thread.is_alive()


@pytest.mark.parametrize(
    ("status", "kind", "path", "answer"),
    [
        (404, b"text/plain", "/predict", (503, {"code": "unavailable"})),
        (408, b"text/plain", "/predict", (504, {"code": "timeout"})),
        (503, b"text/plain", "/v2/models/a/infer", (503, "no replica runs")),
        (500, b"text/plain", "/", (500, {"code": "internal"})),
        (404, b"text/plain", "*", (400, {"code": "invalid_http"})),
        (404, b"application/json", "/predict", (404, None)),
        (200, b"text/plain", "/metrics", (200, None)),
    ],
)
def test_errors_of_ray_serve_become_json(status, kind, path, answer):
    sent = []

    async def app(scope, receive, send):
        headers = [(b"content-type", kind), (b"x-request-id", b"r-1")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"Path '/x' ", "more_body": True})
        await send({"type": "http.response.body", "body": b"not found."})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": path, "headers": [(b"origin", b"https://a.example")]}
    asyncio.run(RayErrors(app, ["https://a.example"])(scope, None, send))
    start, body = sent[0], b"".join(message["body"] for message in sent[1:])
    assert start["status"] == answer[0] and dict(start["headers"])[b"x-request-id"] == b"r-1"
    if answer[1] is None:
        assert body == b"Path '/x' not found."
    else:
        error = json.loads(body)["error"]
        assert error["code"] == answer[1]["code"] if isinstance(answer[1], dict) else answer[1] in error
        headers = dict(start["headers"])
        assert headers[b"content-length"] == b"%d" % len(body)
        assert headers[b"access-control-allow-origin"] == b"https://a.example"
