"""Check a compose file: what Docker Compose's schema does not say about Ray, secrets and what a container may do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from cluster.manifests.compose import COMPOSE_FILE
from cluster.manifests.documents import parse_yaml
from cluster.manifests.node_check import image_problems, node_problems
from cluster.manifests.secret_check import find_secrets


def check(files: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the files of kind `compose`. `docker compose config` has the schema."""
    try:
        documents = list(parse_yaml(files.get(COMPOSE_FILE, "")))
    except yaml.YAMLError as error:
        return [f"{COMPOSE_FILE}: it is no YAML: {' '.join(str(error).split())[:200]}"]
    if len(documents) != 1 or not isinstance(documents[0].get("services"), dict):
        return [f"{COMPOSE_FILE}: it must hold one document with `services`"]
    compose = documents[0]
    problems = [
        problem for name, service in compose["services"].items() for problem in _problems(name, service, compose)
    ]
    problems += _reference_problems(compose, files)
    return [f"{COMPOSE_FILE}: {problem}" for problem in problems] + find_secrets(files)


def _problems(name: str, service: dict[str, Any], compose: dict[str, Any]) -> Iterator[str]:
    where = f"services.{name}"
    yield from image_problems(f"{where}.image", service.get("image"))
    if service.get("entrypoint") != ["tini", "--"]:
        yield f"{where}.entrypoint: it must be [tini, --]; the image's own one takes a command for raymill's"
    if service.get("read_only") is not True:
        yield f"{where}.read_only: the root file system must not be writable"
    if service.get("cap_drop") != ["ALL"] or service.get("cap_add"):
        yield f"{where}: cap_drop must be [ALL], without cap_add: nothing here needs a capability"
    if service.get("privileged"):
        yield f"{where}.privileged: it gives the container the host"
    if str(service.get("user", "")).partition(":")[0] in ("root", "0"):
        yield f"{where}.user: the image has a user without rights; do not run as root"
    if "no-new-privileges:true" not in service.get("security_opt", []):
        yield f"{where}.security_opt: no-new-privileges:true is missing"
    command = [str(word) for word in service.get("command", [])]
    joins_ray = command[:2] == ["ray", "start"] or "RAY_ADDRESS" in service.get("environment", {})
    if joins_ray:
        yield from _ray_problems(where, service)
    elif not _is_protected(service, command):
        yield f"{where}.ports: without API keys, an endpoint must not listen beyond 127.0.0.1"
    if service.get("restart", "no") != "no" and "healthcheck" not in service:
        yield f"{where}.healthcheck: without it, nobody sees that the service does not work"


def _ray_problems(where: str, service: dict[str, Any]) -> Iterator[str]:
    yield from node_problems(f"{where}.environment", service.get("environment", {}))
    if service.get("network_mode") != "host":
        yield f"{where}.network_mode: Ray's nodes reach each other at many ports; it must be host"
    if service.get("ports"):
        yield f"{where}.ports: they have no effect with network_mode: host"
    token = service.get("environment", {}).get("RAY_AUTH_TOKEN_PATH", "")
    if token.removeprefix("/run/secrets/") not in service.get("secrets", []):
        yield f"{where}.secrets: none is mounted at RAY_AUTH_TOKEN_PATH={token}"


def _is_protected(service: dict[str, Any], command: list[str]) -> bool:
    return "--keys" in command or all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))


def _reference_problems(compose: dict[str, Any], files: Mapping[str, str]) -> Iterator[str]:
    """Yield what does not fit together: the ports of head and workers, secrets, and files that are not there."""
    head, worker = (
        " ".join(map(str, compose["services"].get(name, {}).get("command", []))) for name in ("head", "worker")
    )
    port = head.partition("--port=")[2].partition(" ")[0]
    if f":{port}" not in worker:
        yield f"services.worker.command: it does not join the head's port {port}"
    for name, config in compose.get("configs", {}).items():
        if config["file"].removeprefix("./") not in files:
            yield f"configs.{name}.file={config['file']}: the manifest has no such file"
    for name, secret in compose.get("secrets", {}).items():
        if set(secret) != {"file"}:
            yield f"secrets.{name}: it must name a file of the host, and nothing else"
