"""Network: each node sends some megabytes to another one over a connection of its own, as the workers of a training do."""

from __future__ import annotations

import contextlib
import itertools
import socket
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cluster.environment_checks import Check
from cluster.node_checks.answers import fine, look, wrong

_BYTES = 4 << 20
_BLOCK = 1 << 16
_ACCEPT_WITHIN_S = 120.0
_SEND_WITHIN_S = 10.0
# Up to this many nodes every pair is measured, beyond it each node with the next one.
_MAX_NODES_FOR_PAIRS = 4
# Below this, gradients of a model with 20 M weights take over a second a step.
_SLOW_MBIT = 500.0
# A link this much slower than the others slows all of them down: each step waits for the slowest.
_UNEVEN = 4.0


class Link(NamedTuple):
    """The measured connection from one node to another one."""

    sender: str
    receiver: str
    mbit: float
    """Megabits per second; 0 if nothing arrived."""
    round_trip_s: float
    problem: str = ""


def start_receiver(address: str, n_senders: int = 1) -> int:
    """Listen at a free port of this node's address for some senders, in a thread. Return the port.

    It ends after `n_senders`, or if none comes for some time.
    """
    listener = socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    listener.settimeout(_ACCEPT_WITHIN_S)
    threading.Thread(target=_receive, args=(listener, n_senders), daemon=True).start()
    port: int = listener.getsockname()[1]
    return port


def _receive(listener: socket.socket, n_senders: int) -> None:
    with listener:
        for _ in range(n_senders):
            try:
                connection, _ = listener.accept()
            except OSError:  # nobody comes
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(_SEND_WITHIN_S)
                n_left = _BYTES
                while n_left and (block := connection.recv(_BLOCK)):
                    n_left -= len(block)
                connection.sendall(b"\0")


def send_to(address: str, port: int) -> dict[str, float | str]:
    """Send some megabytes to a receiver. Return Mbit/s, the seconds of a round trip, and what went wrong."""
    started = time.perf_counter()
    try:
        with socket.create_connection((address, port), timeout=_SEND_WITHIN_S) as connection:
            connected = time.perf_counter()
            connection.sendall(bytes(_BYTES))
            if not connection.recv(1):
                raise ConnectionError("the connection ended")
            seconds = max(1e-9, time.perf_counter() - connected)
    except OSError as error:
        return {"mbit": 0.0, "round_trip_s": 0.0, "problem": str(error) or type(error).__name__}
    return {"mbit": _BYTES * 8 / seconds / 1e6, "round_trip_s": connected - started, "problem": ""}


def choose_pairs(n_nodes: int) -> list[tuple[int, int]]:
    """Return which nodes send to which: all pairs of a few nodes, both ways; of many, each to the next one."""
    if n_nodes <= _MAX_NODES_FOR_PAIRS:
        return list(itertools.permutations(range(n_nodes), 2))
    return [(index, (index + 1) % n_nodes) for index in range(n_nodes)]


def check_network(links: Sequence[Link]) -> list[Check]:
    """Check that each pair of nodes can connect, and that no link is slow, or much slower than the others."""
    checks = [
        wrong(
            "network",
            f"{link.sender} does not reach {link.receiver}: {link.problem}",
            "open all TCP ports between the nodes: the workers of a training connect at ports that the system chooses",
        )
        for link in links
        if link.problem
    ]
    measured = sorted((link for link in links if not link.problem), key=lambda link: link.mbit)
    if not measured:
        return checks or [fine("network", "one node: nothing to measure")]
    slowest, median = measured[0], statistics.median(link.mbit for link in measured)
    text = (
        f"{_speed(slowest.mbit)} from {slowest.sender} to {slowest.receiver}, the slowest of {len(measured)} links; median "
        f"{_speed(median)}; round trips of at most {max(link.round_trip_s for link in measured) * 1000:.1f} ms"
    )
    if slowest.mbit < _SLOW_MBIT:
        fix = "train with one worker, or with fewer and larger steps: every step sends all gradients over the links"
        checks.append(look("network", text, fix))
    elif slowest.mbit * _UNEVEN < median:
        checks.append(look("network", text, "look at this link: every step of a training waits for the slowest"))
    else:
        checks.append(fine("network", text))
    return checks


def link_from(sender: str, receiver: str, answer: Mapping[str, float | str]) -> Link:
    """Return the link for an answer of `send_to`."""
    return Link(sender, receiver, float(answer["mbit"]), float(answer["round_trip_s"]), str(answer["problem"]))


def _speed(mbit: float) -> str:
    return f"{mbit / 1000:.1f} Gbit/s" if mbit >= 1000 else f"{mbit:.0f} Mbit/s"
