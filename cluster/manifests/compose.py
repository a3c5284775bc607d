"""Kind `compose`: containers on one host or several of your own, with Docker Compose.

The same file is on every host; its profiles say what runs there: `head`, `worker`, `run` and `endpoint`.
"""

from __future__ import annotations

import math
from typing import Any

from cluster.manifests.documents import Document, Rendered
from cluster.manifests.environment import node_environment
from cluster.manifests.inputs import ManifestInputs
from cluster.manifests.serve_config import remote_serve
from trainer.spec.deploy_machines import HostsSpec

COMPOSE_FILE, SPEC_FILE = "compose.yaml", "run.yaml"
_TOKEN, _TOKEN_PATH = "ray-token", "/run/secrets/ray-token"
_CONFIG_PATH = "/etc/raymill/run.yaml"
_HEAD_PORT = 6379
# Compose refuses to start without the variable, with this text.
_HEAD_HOST = "${RAYMILL_HEAD:?set it to the address of the host of the head}"
_HEAD_ADDRESS = f"{_HEAD_HOST}:{_HEAD_PORT}"


def render(inputs: ManifestInputs) -> Rendered:
    """Return the compose file and the spec that its containers run."""
    return {COMPOSE_FILE: [_compose(inputs, inputs.deploy.hosts)], SPEC_FILE: inputs.spec_text}


def _compose(inputs: ManifestInputs, hosts: HostsSpec) -> Document:
    head = [
        "ray", "start", "--head", "--block", f"--node-ip-address={_HEAD_HOST}", f"--port={_HEAD_PORT}",
        "--dashboard-host=127.0.0.1", "--num-cpus=0", "--num-gpus=0", "--disable-usage-stats",
    ]  # fmt: skip
    demand = max(inputs.demands, key=lambda demand: (demand.gpus_each, demand.cpus_each))
    cpus = hosts.cpus or math.ceil(demand.cpus_each)
    gpus = math.ceil(demand.gpus_each) if hosts.gpus is None else hosts.gpus
    worker = [
        "ray", "start", "--block", f"--address={_HEAD_ADDRESS}", f"--num-cpus={cpus}", f"--num-gpus={gpus}",
        "--disable-usage-stats",
    ]  # fmt: skip
    run = ["raymill", "run", _CONFIG_PATH, "--continue"]
    is_alive = ["CMD", "ray", "health-check", "--address", _HEAD_ADDRESS]
    return {
        "name": inputs.name,
        "services": {
            "head": _service(inputs, hosts, "head", head) | {"healthcheck": _healthcheck(is_alive)},
            "worker": _service(inputs, hosts, "worker", worker) | {"healthcheck": _healthcheck(is_alive)} | _gpus(gpus),
            "run": _service(inputs, hosts, "run", run) | _run_only(inputs),
            "endpoint": _endpoint(inputs, hosts),
        },
        "secrets": {_TOKEN: {"file": hosts.token_file}, **_keys_secret(inputs)},
        "configs": {"run": {"file": f"./{SPEC_FILE}"}},
        "volumes": {f"{name}-tmp": {} for name in ("head", "worker", "run", "endpoint")},
    }


def _service(inputs: ManifestInputs, hosts: HostsSpec, name: str, command: list[str]) -> dict[str, Any]:
    """Return a service that takes part in Ray: with the host's network, because Ray's nodes use many ports."""
    storage = inputs.deploy.storage.path
    service = {
        "profiles": [name],
        "image": inputs.image,
        "entrypoint": ["tini", "--"],  # the image's own one adds `raymill`
        "command": command,
        "network_mode": "host",
        "environment": {**node_environment(inputs, _TOKEN_PATH), "HOME": "/tmp"},
        "secrets": [_TOKEN],
        "volumes": [
            {"type": "bind", "source": storage, "target": storage, "bind": {"create_host_path": False}},
            # Ray's logs, sockets and what its object store spills; a file system in memory would be too small.
            {"type": "volume", "source": f"{name}-tmp", "target": "/tmp"},
        ],
        "shm_size": f"{hosts.shm_gb}gb",
        "ulimits": {"nofile": {"soft": 65536, "hard": 65536}},
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
        "stop_grace_period": "60s",
        "logging": {"driver": "json-file", "options": {"max-size": "50m", "max-file": "5"}},
    }
    if hosts.memory_gb:
        service["mem_limit"] = f"{hosts.memory_gb}gb"
    return service


def _run_only(inputs: ManifestInputs) -> dict[str, Any]:
    """Return what differs for the run: it joins the head's Ray, and ends."""
    service = {"RAY_ADDRESS": _HEAD_ADDRESS}
    return {
        "environment": {**node_environment(inputs, _TOKEN_PATH), "HOME": "/tmp", **service},
        "working_dir": inputs.deploy.project,
        "configs": [{"source": "run", "target": _CONFIG_PATH}],
        "healthcheck": {"disable": True},  # the image's own one asks an endpoint
        "restart": "no",
    }


def _endpoint(inputs: ManifestInputs, hosts: HostsSpec) -> dict[str, Any]:
    """Return the endpoint of one host. It needs no Ray, and listens on one port only."""
    serve = inputs.spec.serve
    command = ["raymill", "serve", inputs.spec.name, "--storage", inputs.storage, "--host", "0.0.0.0"]
    command += ["--port", str(serve.port), *(["--keys", "/run/secrets/api-keys"] if serve.keys else ["--insecure"])]
    probe = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{serve.port}/readyz', timeout=5)"
    service = _service(inputs, hosts, "endpoint", command)
    del service["network_mode"]
    return service | {
        "environment": {"HOME": "/tmp", "RAY_USAGE_STATS_ENABLED": "0"},
        "secrets": list(_keys_secret(inputs)),
        # Without API keys, only this host may send requests.
        "ports": [f"{'' if serve.keys else '127.0.0.1:'}{serve.port}:{serve.port}"],
        "healthcheck": _healthcheck(["CMD", "python", "-c", probe]),
        "stop_grace_period": f"{math.ceil(serve.drain_s) + 15}s",
    }


def _keys_secret(inputs: ManifestInputs) -> dict[str, Any]:
    """Return the secret with the hashed API keys, if the spec has any."""
    return {"api-keys": {"file": remote_serve(inputs).keys}} if inputs.spec.serve.keys else {}


def _gpus(count: int) -> dict[str, Any]:
    if not count:
        return {}
    device = {"driver": "nvidia", "count": count, "capabilities": ["gpu"]}
    return {"deploy": {"resources": {"reservations": {"devices": [device]}}}}


def _healthcheck(test: list[str]) -> dict[str, Any]:
    return {"test": test, "interval": "15s", "timeout": "10s", "retries": 4, "start_period": "60s"}
