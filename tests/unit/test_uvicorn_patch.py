"""The head and the body of a response leave together, however long the application takes between them."""

import socket
import threading
import time

import pytest
import uvicorn
from uvicorn.protocols.http import auto

from serve.asgi.uvicorn_patch import patch_uvicorn


async def slow_body(scope, receive, send):
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    time.sleep(0.1)  # a replica that lost its core: nothing else runs in this loop
    await send({"type": "http.response.body", "body": b"whol" if scope["path"] == "/" else b"othe"})


@pytest.fixture(params=["asyncio", "uvloop"])
def server(request, monkeypatch):
    monkeypatch.setattr(auto, "AutoHTTPProtocol", auto.AutoHTTPProtocol)  # restored after the test
    patch_uvicorn()
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(slow_body, lifespan="off", log_config=None, loop=request.param))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    yield listening.getsockname()
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.slow
def test_a_response_comes_in_one_piece_and_the_connection_is_reused(server):
    with socket.create_connection(server, timeout=20) as client:
        for path, body in (("/", b"whol"), ("/other", b"othe")):
            client.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            assert client.recv(65536).endswith(b"\r\n\r\n" + body)
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert client.recv(65536).endswith(b"whol") and client.recv(1) == b""
