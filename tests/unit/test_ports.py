"""Sockets on addresses of both kinds, and ports that are taken."""

import socket

import pytest

from cluster.ports import bind_port, free_port, http_url, port_is_free


@pytest.mark.parametrize(("host", "reached_at"), [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("::1", "::1"),
                                                  ("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("::", "::1")])  # fmt: skip
def test_a_bound_socket_accepts_connections_once_it_listens(host, reached_at):
    port = free_port()
    with bind_port(host, port) as server:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((reached_at, port), timeout=5)
        server.listen()
        assert not port_is_free(host, port)
        with pytest.raises(OSError, match="in use"):
            bind_port(host, port)
        socket.create_connection((reached_at, port), timeout=5).close()
    assert port_is_free(host, port)


def test_urls():
    assert http_url("127.0.0.1", 8000) == "http://127.0.0.1:8000"
    assert http_url("::1", 8000) == "http://[::1]:8000"
