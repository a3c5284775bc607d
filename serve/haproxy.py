"""Run HAProxy in front of the replicas, with Ray Serve's throughput mode, if this machine has HAProxy.

Ray Serve reads the settings of both from the environment when Ray starts. By default its HAProxy uses files that all
users of a machine share, has an admin socket that anyone may write to, and shows metrics and statistics on all
interfaces. Here each endpoint has its own private folder, and everything listens on the endpoint's address or on
loopback. Imports neither ray nor ray.serve.
"""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cluster.errors import ResourceError, SpecError
from cluster.ports import free_port, port_is_free
from cluster.temporary_folders import Needs, first_folder, script_folders
from serve.haproxy_config import added_lines, find_binary
from serve.haproxy_errors import copy_program
from serve.ingress_settings import ingress_variables
from serve.keys import load_keys
from trainer.spec.serve import ServeSpec

# Ray Serve writes HAProxy's configuration for the host 127.0.0.1, where the replicas listen too. Ray Serve runs this
# script in place of HAProxy's binary. The script edits the configuration and then becomes HAProxy. HAProxy is killed
# when the process that started it ends: otherwise it would keep the port and answer 503. Ctrl-C in a terminal reaches all
# processes of a command, and the command itself ends them in order.
_SCRIPT = """#!/bin/sh
trap '' INT
for word in "$@"; do
  case "$word" in *.cfg) sed -i -f {edits} "$word";; esac
done
if command -v setpriv >/dev/null; then exec setpriv --pdeathsig KILL {binary} "$@"; fi
exec {binary} "$@"
"""
# Each expression matches a line of Ray's template, and `write_script` adds lines to sections, to change what Ray has no
# setting for:
# - the metrics and statistics pages listen on loopback only;
# - the endpoint listens on the spec's address;
# - only the user who owns the admin socket may use it;
# - paths without a backend get 503 with Retry-After, not 404: the application answers all paths, so a missing backend
#   means that HAProxy has just restarted, or that the endpoint stops;
# - requests go to the first idle replica, not to the replicas in turn: its weights are still in the CPU's cache;
# - errors are JSON, not Ray's `Internal Server Error`.
# `serve.haproxy_config` has the lines that are added.
_EDITS = r"""s/^\( *bind\) \**:\({metrics}\|{stats}\)$/\1 127.0.0.1:\2/
s/^\( *bind\) 127.0.0.1:{port}$/{bind}/
s/mode 666/mode 600/
/^backend default_backend$/,/^backend /{{/^ *http-request return status 404 /d}}
s/^\( *\)server \(SERVE_REPLICA_[^ ]*\) .*$/&\n\1use-server \2 if {{ srv_conn(\2) eq 0 }}/
/^ *errorfile 50[0-9] /d
"""
_FOLDER_PREFIX = "raymill-serve-"
# The folder holds a script that is run, and sockets in a folder that Ray Serve names after its node. HAProxy binds a
# socket under a temporary name. Its configuration cannot quote a path.
_FOLDER_NEEDS = Needs(socket=f"/{_FOLDER_PREFIX}abcdefgh/{'f' * 56}/a.4194304.tmp", runs_scripts=True, plain_name=True)
#: Hosts that only this machine reaches.
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
# Size of HAProxy's buffer. The headers of a request must fit into it, and HAProxy can retry only a request that does.
_BUFFER_BYTES = 65536
# HAProxy's retries for each retry in `serve.retries`. More are needed because HAProxy also counts refused connections,
# and a replica that was just killed is tried first: it has the fewest requests.
_ATTEMPTS_PER_RETRY = 4
# A replica answers 504 itself after `serve.timeout_s`. One that says nothing for so much longer is gone, as with its
# machine: the request is sent to another one. With replicas from zero, the first request waits until one is up: Ray
# Serve's own proxy holds it 5 s longer.
_SILENCE_S, _SILENCE_FROM_ZERO_S = 2, 7
# How soon HAProxy notices that a replica's machine is silent: a new connection is given up after a second, and two health
# checks in a row must fail. Each node's HAProxy asks every replica, so many replicas are asked as seldom as Ray Serve does.
_CONNECT_WITHIN_S = 1
_CHECK_EVERY_S, _MAX_REPLICAS_TO_CHECK = 1, 20
# How long a removed replica still answers requests. HAProxy learns within a second that it is removed.
_DRAIN_S = 3
# How long Ray Serve waits until a proxy is ready. Then it kills the proxy, and the start of the endpoint fails. The
# default of 5 s is too short for a busy machine: a proxy's imports alone take several seconds of one core.
_PROXY_READY_WITHIN_S = 30


def check_port(host: str, port: int) -> None:
    """Raise `ResourceError` if this process cannot listen on the address. Called before any slow work."""
    if not port_is_free(host, port):
        raise port_error(host, port)


def port_error(host: str, port: int) -> ResourceError:
    """Return the error to raise if this process cannot listen on an address."""
    return ResourceError(
        f"cannot listen on {host}:{port}: another program uses the port, or this machine does not have the address",
        f"choose another port, for example --port {port + 1 if port < 65535 else 8000}",
    )


def check_access(spec: ServeSpec) -> None:
    """Raise `SpecError` if the key file is invalid, or if an address beyond loopback has neither keys nor `--insecure`.

    Called before any slow work.
    """
    if spec.keys:
        load_keys(spec.keys)
    if spec.host in LOOPBACK or spec.keys or spec.insecure:
        return
    raise SpecError(
        f"serve.host={spec.host} lets anyone who can reach it send requests",
        "add API keys with `raymill keys add NAME --file keys.json` and set `serve.keys: keys.json`, "
        "or pass `--insecure`",
    )


def has_haproxy() -> bool:
    """Whether Ray Serve can use HAProxy on this machine: it is Linux, has HAProxy, and it is not too late to choose it.

    Ray Serve reads the choice when it is first imported.
    """
    return (
        find_binary() is not None
        and sys.platform == "linux"
        and ("ray.serve" not in sys.modules or os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1")
    )


@contextlib.contextmanager
def configure_proxy(spec: ServeSpec) -> Iterator[None]:
    """Set up `spec.proxy` for a Ray that is started in the block. Raises `SpecError` if the proxy cannot be used."""
    is_available = has_haproxy()
    parent = first_folder(script_folders(), _FOLDER_NEEDS)
    if spec.proxy == "haproxy" and not is_available:
        raise SpecError(
            "serve.proxy=haproxy: HAProxy is not installed, or ray.serve was imported before HAProxy was set up",
            "set `serve.proxy: auto`, or install HAProxy (on Linux, `pip install 'ray[serve]'` includes it)",
        )
    if spec.proxy == "haproxy" and parent is None:
        raise ResourceError(
            "serve.proxy=haproxy: there is no temporary folder for HAProxy's script and sockets. It must have a short "
            "path without spaces, and allow programs to run (no `noexec`)",
            "set TMPDIR to such a folder, or set `serve.proxy: auto`",
        )
    with contextlib.ExitStack() as stack:
        variables = _proxy_variables(spec)
        if spec.proxy != "python" and is_available and parent is not None:
            folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir=parent))  # mode 700
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            variables |= _environment(spec, folder)
        stack.enter_context(_set_variables(variables))
        yield


@contextlib.contextmanager
def _set_variables(variables: dict[str, str]) -> Iterator[None]:
    """Set those environment variables that are not set yet, and remove them again after the block."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def owns_proxy() -> bool:
    """Whether the connected Ray was started within `configure_proxy`. If so, only HAProxy listens beyond loopback."""
    return _FOLDER_PREFIX in os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH", "")


def _environment(spec: ServeSpec, folder: Path) -> dict[str, str]:
    """Write the script that Ray Serve runs in place of HAProxy's binary; return Ray Serve's environment variables."""
    metrics, stats = free_port(), free_port()
    script = write_script(spec, folder, metrics, stats)
    return {
        **cluster_variables(spec),
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(script),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "a"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "m"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
        # One thread handles several thousand requests per second; more would take cores from the models.
        "RAY_SERVE_HAPROXY_NBTHREAD": str(max(1, min(4, (os.cpu_count() or 1) // 4))),
        # Ray's own metrics of requests would cost a twentieth of a core, and nothing here collects them.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    }


def _proxy_variables(spec: ServeSpec) -> dict[str, str]:
    """Return the environment variables for all of Ray Serve's proxies."""
    return {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": str(_PROXY_READY_WITHIN_S), **ingress_variables(spec)}


def cluster_variables(spec: ServeSpec) -> dict[str, str]:
    """Return the environment variables for proxies that are the same on every machine of a cluster.

    A node that starts without them gets no traffic, and Ray says nothing about it.
    """
    client_timeout_s = math.ceil(spec.client_timeout_s)
    variables = {
        **_proxy_variables(spec),
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # After a configuration reload, the old process may finish the responses that it has begun.
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(math.ceil(max(spec.timeout_s, spec.drain_s)) + client_timeout_s + 5),
        "RAY_SERVE_HAPROXY_TIMEOUT_CONNECT_S": str(_CONNECT_WITHIN_S),
        "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": str(
            math.ceil(spec.timeout_s) + (_SILENCE_S if spec.min_replicas else _SILENCE_FROM_ZERO_S)
        ),
        # A client that takes nothing of its answer is disconnected.
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(client_timeout_s),
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(_BUFFER_BYTES),
        # A proxy that died is restarted after three periods. With the default period, that takes half a minute.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(_DRAIN_S),
    }
    if spec.max_replicas <= _MAX_REPLICAS_TO_CHECK:
        variables["RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER"] = f"{_CHECK_EVERY_S}s"
    if spec.retries:
        variables |= {
            "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response junk-response response-timeout",
            "RAY_SERVE_HAPROXY_RETRIES": str(_ATTEMPTS_PER_RETRY * spec.retries),
        }
    return variables


def write_script(spec: ServeSpec, folder: Path, metrics: int, stats: int) -> Path:
    """Write the script that edits HAProxy's configuration and then becomes HAProxy, with its files; return its path.

    `metrics` and `stats` are the ports of HAProxy's pages.
    """
    edits = _EDITS.format(
        metrics=metrics,
        stats=stats,
        port=spec.port,
        bind=_bind_lines(spec.host, spec.port),
    )
    sections = added_lines(spec.client_timeout_s, spec.cors_origins)
    for number, (section, lines) in enumerate(sections.items()):
        file = folder / f"{number}.lines"
        file.write_text("".join(f"    {line}\n" for line in lines), encoding="utf-8")
        edits += f"/^{section}$/r {file}\n"
    (folder / "edits.sed").write_text(edits, encoding="utf-8")
    script = folder / "haproxy"
    binary = copy_program(Path(find_binary() or "haproxy"), folder / "bin")
    script.write_text(
        _SCRIPT.format(edits=shlex.quote(str(folder / "edits.sed")), binary=shlex.quote(str(binary))), encoding="utf-8"
    )
    script.chmod(0o700)
    return script


def _bind_lines(host: str, port: int) -> str:
    """Return the replacement for the line `bind 127.0.0.1:PORT`.

    HAProxy always listens on loopback too, because Ray Serve checks its health there.
    """
    loopback = f"\\1 127.0.0.1:{port}"
    if host in ("127.0.0.1", "localhost"):
        return loopback
    if host == "0.0.0.0":
        return f"\\1 *:{port}"
    if host == "::":
        return f"\\1 [::]:{port} v4v6"  # IPv4 too, whatever net.ipv6.bindv6only is
    return f"{loopback}\\n\\1 {f'[{host}]' if ':' in host else host}:{port}"
