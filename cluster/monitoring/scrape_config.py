"""The configuration of a Prometheus for this machine: the committed prometheus.yml with the paths that are in use here."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from cluster.errors import SpecError
from cluster.monitoring.gauges import MACHINE, TARGETS_FOLDER

_FOLDER = Path(__file__).parent
_CONFIG, RULES = _FOLDER / "prometheus.yml", _FOLDER / "alerts.yml"
_PORTS = {"http": 80, "https": 443}


class RayTargets(NamedTuple):
    """Where the nodes of a Ray cluster are listed: in a file of its head, or at the URL of its dashboard."""

    file: Path | None = None
    url: str | None = None
    token: str | None = None
    """Sent to the dashboard."""


def build_scrape_config(
    storage: Path, ray: RayTargets, endpoints: Sequence[str], key_file: Path | None, every_s: float
) -> dict[str, Any]:
    """Return the configuration. `endpoints` are URLs of endpoints besides those that the storage folder names.

    `key_file` holds an API key for all endpoints. Raises `SpecError` if an endpoint is not a URL.
    """
    import yaml

    config: dict[str, Any] = yaml.safe_load(_CONFIG.read_text(encoding="utf-8"))
    every = f"{every_s:g}s" if every_s >= 1 else f"{int(every_s * 1000)}ms"
    config["global"] = {"scrape_interval": every, "evaluation_interval": every}
    config["rule_files"] = [str(RULES)]
    own, nodes = config["scrape_configs"]
    refresh = own["file_sd_configs"][0]["refresh_interval"]
    own["file_sd_configs"][0]["files"] = [f"{storage / TARGETS_FOLDER}/*.json"]
    own["file_sd_configs"][0]["refresh_interval"] = min(every, refresh, key=lambda text: float(text.rstrip("ms")))
    # Others' files are there too if machines share the storage; their ports are on their own loopback interfaces.
    own["relabel_configs"] = [{"source_labels": [MACHINE], "regex": _literal(socket.gethostname()), "action": "keep"}]
    if endpoints:
        own["static_configs"] = [_static_target(url) for url in endpoints]
    if key_file:
        own["authorization"] = {"credentials_file": str(key_file)}
    if ray.url:
        del nodes["file_sd_configs"]
        discovery: dict[str, Any] = {"url": f"{ray.url}/api/prometheus/sd", "refresh_interval": refresh}
        if ray.token:
            # Prometheus 2.42, which Debian 12 has, sends no type by itself to a discovery.
            discovery["authorization"] = {"type": "Bearer", "credentials": ray.token}
        nodes["http_sd_configs"] = [discovery]
    else:
        nodes["file_sd_configs"][0]["files"] = [str(ray.file)]
    return config


def _static_target(url: str) -> dict[str, Any]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:  # a port that is no number
        host, port = None, None
    if not host or not port:
        raise SpecError(
            f"{url!r} is not the URL of an endpoint", "write it as the endpoint prints it: http://HOST:8000"
        )
    labels = {
        MACHINE: socket.gethostname(),
        "__scheme__": parts.scheme,
        "__metrics_path__": f"{parts.path.rstrip('/')}/metrics",
    }
    return {"targets": [f"[{host}]:{port}" if ":" in host else f"{host}:{port}"], "labels": labels}


def _literal(text: str) -> str:
    """Return a pattern of Prometheus that matches only `text`, a host name."""
    return text.replace(".", r"\.")
