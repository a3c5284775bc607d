"""Watch runs, endpoints and a Ray cluster with a Prometheus, and a Grafana where it is installed, on this machine."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from raymill.session import STORAGE, storage_folder

# Written by the head of a Ray cluster into its temporary folder.
_RAY_FILE = "prom_metrics_service_discovery.json"
_AUTO = "auto"


class MonitorUrls(NamedTuple):
    """Where to look."""

    prometheus: str
    grafana: str | None
    """None if Grafana is not installed here."""
    dashboards: Path
    """Folder with the dashboards, to import into another Grafana."""


@contextlib.contextmanager
def monitor(
    *,
    storage: str | Path = STORAGE,
    address: str | None = None,
    endpoints: Sequence[str] = (),
    key_file: str | Path | None = None,
    port: int = 9090,
    grafana_port: int = 3000,
    every_s: float = 15.0,
) -> Iterator[MonitorUrls]:
    """Run Prometheus, and Grafana if it is installed, while the block runs; yield their URLs. They listen on loopback.

    They watch the runs and the endpoints of `storage` on this machine, `endpoints` by URL, with the API key in
    `key_file`, and the nodes of the Ray cluster whose dashboard is at `address`; without it, those of the Ray that
    runs on this machine. Metrics are collected every `every_s` seconds. At the end both servers and all that they
    stored are gone. Raises `ResourceError` if Prometheus is not installed, if an address does not answer, or if a port is
    taken, and `SpecError` for an endpoint that is no URL or a missing key file.
    """
    from cluster.errors import SpecError
    from cluster.monitoring.grafana import DASHBOARDS_FOLDER
    from cluster.monitoring.scrape_config import RayTargets, build_scrape_config
    from cluster.monitoring.servers import run_grafana, run_prometheus
    from cluster.temporary_folders import ray_log_folder

    if address and address != _AUTO:
        from cluster.jobs.address import find_jobs_address
        from cluster.ray_token import sent_token

        dashboard = find_jobs_address(address)
        dashboard.check()
        ray = RayTargets(url=dashboard.url.rstrip("/"), token=sent_token())
    else:
        ray = RayTargets(file=ray_log_folder() / _RAY_FILE)
    key = Path(key_file).absolute() if key_file else None
    if key and not key.is_file():
        raise SpecError(f"{key} is not a file, so there is no API key in it", "name the file that holds the key")
    config = build_scrape_config(storage_folder(storage), ray, endpoints, key, every_s)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="raymill-monitor-")))
        url = stack.enter_context(run_prometheus(config, folder, port))
        grafana = stack.enter_context(run_grafana(url, folder, grafana_port))
        yield MonitorUrls(url, grafana, DASHBOARDS_FOLDER)
