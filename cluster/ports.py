"""Find free ports on this machine."""

from __future__ import annotations

import random
import socket

# Ports that nothing else chooses: Linux takes ports from 32,768 on for outgoing connections, Ray's workers use 10,002
# to 19,999, and the replicas behind HAProxy use ports from 30,000 on.
_PORTS = range(20_000, 30_000)
_TRIES = 100
_handed_out: set[int] = set()


def free_port() -> int:
    """Return a free loopback port that this process has not returned before.

    The port is outside the ranges from which Linux and Ray choose ports, so it stays free until a server uses it.
    """
    for port in random.SystemRandom().sample(_PORTS, _TRIES):
        if port not in _handed_out and port_is_free("127.0.0.1", port):
            _handed_out.add(port)
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(host: str, port: int) -> bool:
    """Return whether a server could listen on `host`:`port` now."""
    try:
        bind_port(host, port).close()
    except OSError:
        return False
    return True


def bind_port(host: str, port: int) -> socket.socket:
    """Return a TCP socket on `host`:`port` that does not listen yet. Raises `OSError` if another server listens there.

    `::` takes IPv4 connections too.
    """
    server = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == "::":  # whatever net.ipv6.bindv6only is
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind((host, port))
    except OSError:
        server.close()
        raise
    return server


def http_url(host: str, port: int) -> str:
    """Return the URL of a server at an IPv4 or IPv6 address."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
