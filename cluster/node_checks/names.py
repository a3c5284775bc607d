"""Names and routes: the workers of a training find each other by address, and by the name of their host."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.environment_checks import Check
from cluster.node_checks.answers import NodeAnswer, fine, look, name_list, nodes_by_value, where

_ROUTES = Path("/proc/net/route")
_ROUTES_V6 = Path("/proc/net/ipv6_route")


def read_names(routes: Path = _ROUTES, routes_v6: Path = _ROUTES_V6) -> dict[str, Any]:
    """Return this node's host name, the address that it stands for here (None: no address), and whether there is a route
    to other networks."""
    host = socket.gethostname()
    resolved = None
    with contextlib.suppress(OSError):
        resolved = str(socket.getaddrinfo(host, None)[0][4][0])
    return {"host": host, "resolved": resolved, "default_route": _has_default_route(routes, routes_v6)}


def _has_default_route(routes: Path, routes_v6: Path) -> bool:
    for path, column, destination in ((routes, 1, "0" * 8), (routes_v6, 0, "0" * 32)):
        with contextlib.suppress(OSError):
            for line in path.read_text(encoding="ascii").splitlines():
                fields = line.split()
                if len(fields) > column and fields[column] == destination and fields[-1] != "lo":
                    return True
    return False


def check_names(nodes: Sequence[NodeAnswer]) -> list[Check]:
    """Check host names, what they stand for, and the default route."""
    if len(nodes) == 1:
        return []
    checks = []
    same = {
        host: names for host, names in nodes_by_value(nodes, lambda n: n.facts["names"]["host"]).items() if names[1:]
    }
    if same:
        text = "; ".join(f"{host} on {name_list(names)}" for host, names in same.items())
        checks.append(look("host names", f"not unique: {text}", "give each node a host name of its own"))
    unknown = where(nodes, lambda node: node.facts["names"]["resolved"] is None)
    if unknown:
        fix = "add each node's name and address to DNS or /etc/hosts"
        checks.append(look("host names", f"no address for its own name on {name_list(unknown)}", fix))
    loopback = where(nodes, lambda node: _is_loopback(node.facts["names"]["resolved"]))
    if loopback:
        fix = (
            "remove the line with 127.0.1.1 from /etc/hosts, or set GLOO_SOCKET_IFNAME to the network interface where "
            "Ray is started: without it, workers on CPUs may listen on an address that other nodes do not reach"
        )
        checks.append(look("host names", f"the own name is a loopback address on {name_list(loopback)}", fix))
    if not checks:
        checks.append(fine("host names", "each node has one of its own, and knows its address"))
    no_route = where(nodes, lambda node: not node.facts["names"]["default_route"])
    if no_route:
        text = f"none on {name_list(no_route)}: every start of a process of Ray takes 4 s longer"
        checks.append(
            look("default route", text, "add one, even if nothing answers there: `ip route add default via ...`")
        )
    else:
        checks.append(fine("default route", "on every node"))
    return checks


def _is_loopback(address: str | None) -> bool:
    return address is not None and ipaddress.ip_address(address.partition("%")[0]).is_loopback
