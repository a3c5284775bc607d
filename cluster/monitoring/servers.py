"""A Prometheus, and a Grafana where it is installed, as children of this process: on loopback, with a folder of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.errors import ResourceError, first_line
from cluster.monitoring.grafana import write_provisioning
from cluster.ports import http_url, port_is_free

_HOST = "127.0.0.1"
_READY_WITHIN_S, _END_WITHIN_S, _POLL_S = 60.0, 10.0, 0.1
# Where Debian's package, and the one of Grafana's own repository, put its files.
_GRAFANA_HOME = Path("/usr/share/grafana")


@contextlib.contextmanager
def run_prometheus(config: Mapping[str, Any], folder: Path, port: int) -> Iterator[str]:
    """Run Prometheus with `config` while the block runs, with its data in `folder`; yield its URL.

    Raises `ResourceError` if it is not installed, if the port is taken, or if it does not start.
    """
    import yaml

    program = shutil.which("prometheus")
    if program is None:
        raise ResourceError(
            "Prometheus is not installed on this machine",
            "install it, for example `apt-get install prometheus`, and run the command again",
        )
    path = folder / "prometheus.yml"
    path.touch(mode=0o600)  # it may hold Ray's token
    path.write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")
    command = [program, f"--config.file={path}", f"--storage.tsdb.path={folder / 'data'}"]
    with _server("Prometheus", [*command, f"--web.listen-address={_HOST}:{port}"], {}, folder, port, "/-/ready") as url:
        yield url


@contextlib.contextmanager
def run_grafana(prometheus_url: str, folder: Path, port: int) -> Iterator[str | None]:
    """Run Grafana with raymill's dashboards while the block runs; yield its URL, or None if it is not installed."""
    server = shutil.which("grafana-server")
    grafana = shutil.which("grafana")
    if server is None and grafana is None:
        yield None
        return
    write_provisioning(folder / "provisioning", prometheus_url)
    command = [grafana, "server"] if grafana else [str(server)]
    settings = {
        "GF_SERVER_HTTP_ADDR": _HOST,
        "GF_SERVER_HTTP_PORT": str(port),
        "GF_PATHS_DATA": str(folder / "grafana"),
        "GF_PATHS_LOGS": str(folder / "grafana" / "log"),
        "GF_PATHS_PROVISIONING": str(folder / "provisioning"),
        "GF_AUTH_ANONYMOUS_ENABLED": "true",  # on loopback, without a password
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
    }
    words = [*command, f"--homepath={_GRAFANA_HOME}"]
    with _server("Grafana", words, settings, folder, port, "/api/health") as url:
        yield url


@contextlib.contextmanager
def _server(
    name: str, command: Sequence[str], settings: Mapping[str, str], folder: Path, port: int, ready_path: str
) -> Iterator[str]:
    """Run a server while the block runs; yield its URL once `ready_path` answers."""
    if not port_is_free(_HOST, port):
        raise ResourceError(
            f"port {port} of this machine is in use, so {name} cannot listen there", "name another port"
        )
    log = folder / f"{name.lower()}.log"
    with log.open("wb") as output:
        # A session of its own: Ctrl-C in the terminal reaches this process only, which then ends the server.
        process = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            env={**os.environ, **settings}, start_new_session=True,
        )  # fmt: skip
    try:
        url = http_url(_HOST, port)
        _wait_until_ready(name, process, f"{url}{ready_path}", log)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(_END_WITHIN_S)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):  # a second Ctrl-C ends it at once
            process.kill()
            process.wait()


def _wait_until_ready(name: str, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise ResourceError(
                f"{name} ended with exit code {process.returncode}: {lines[-1] if lines else 'it printed nothing'}",
                "repair what it names, and run the command again",
            )
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError) as error:
            last = error
        time.sleep(_POLL_S)
    raise ResourceError(
        f"{name} does not answer within {_READY_WITHIN_S:g} s: {first_line(last)}",
        "try again when the machine is less busy",
    )
