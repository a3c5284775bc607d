"""TODO docstring."""

from __future__ import annotations

import random
import socket

_QUIET_PORTS = range(20_000, 30_000)


_given: set[int] = set()


def free_port() -> int:
    """Return a loopback port that no server has now, nor will be given by the system before it is listened on.

    What asks the system for any port is given one of those for outgoing connections; Ray's workers use 10,002 to 19,999 and
    the replicas behind HAProxy those from 30,000 on.
    """
    for port in random.SystemRandom().sample(_QUIET_PORTS, 100):
        if port not in _given and port_is_free("127.0.0.1", port):
            _given.add(port)
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen on `host`:`port` now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
