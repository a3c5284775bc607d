"""The spec as it runs on the machines of a cluster, whose folders are not those of this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from cluster.errors import SpecError
from cluster.paths import expand_home
from trainer.spec.deploy import DeploySpec
from trainer.spec.run import RunSpec

#: Takes a path and its key, and returns the path as the cluster sees it.
RemotePath = Callable[[str, str], str]

_SOURCE_KEYS = ("train", "validation", "test")


def remote_storage(deploy: DeploySpec) -> str:
    """Return the path of raymill's storage on the machines of the cluster."""
    return f"{deploy.storage.path.rstrip('/')}/raymill"


def remote_spec_text(spec: RunSpec, deploy: DeploySpec, folder: Path) -> str:
    """Return the spec as YAML with the cluster's paths. See `remote_spec`."""
    return yaml.safe_dump(remote_spec(spec, deploy, folder), sort_keys=False, allow_unicode=True)


def remote_spec(spec: RunSpec, deploy: DeploySpec, folder: Path) -> dict[str, Any]:
    """Return the spec with the cluster's paths, without `deploy:`.

    The cluster sees the spec's own folder, `folder`, as `deploy.project`. Raises `SpecError` for a path outside of it
    that is not on the shared storage.
    """

    def remote(path: str, key: str) -> str:
        return _remote_path(path, key, deploy, folder)

    raw = spec.model_dump(mode="json", exclude_unset=True)
    raw.pop("deploy", None)
    for key in _SOURCE_KEYS:
        if raw["data"].get(key):
            raw["data"][key] = _remote_source(raw["data"][key], f"data.{key}", remote)
    if (raw.get("model") or {}).get("base"):
        raw["model"]["base"] = _remote_base(raw["model"]["base"], "model.base", remote)
    bases = ((raw.get("tune") or {}).get("space") or {}).get("model.base") or {}
    if bases.get("choice"):
        bases["choice"] = [_remote_base(base, "tune.space.model.base", remote) for base in bases["choice"]]
    if (raw.get("serve") or {}).get("keys"):
        raw["serve"]["keys"] = remote(raw["serve"]["keys"], "serve.keys")
    raw["cluster"] = {**(raw.get("cluster") or {}), "address": "auto", "cpus_per_worker": spec.cluster.cpus_per_worker}
    raw["cluster"].pop("cpus", None)  # the cores of a run on one machine
    raw["storage"] = remote_storage(deploy)
    return raw


def _remote_source(source: Any, key: str, remote: RemotePath) -> Any:
    if isinstance(source, list):
        return [_remote_source(item, key, remote) for item in source]
    if isinstance(source, str):
        return remote(source, key)
    return {**source, "path": remote(source["path"], f"{key}.path")} if "path" in source else source


def _remote_base(base: str, key: str, remote: RemotePath) -> str:
    """Return a base model as the cluster names it: a folder by its path there, all others as they are."""
    return remote(base, key) if base.startswith(("/", "~", ".")) else base


def _remote_path(path: str, key: str, deploy: DeploySpec, folder: Path) -> str:
    """Return a path as the cluster sees it. Raises `SpecError` if it is a path of this machine only."""
    if "://" in path:
        return path
    full = folder / expand_home(path)
    if any(full.is_relative_to(shared) for shared in (deploy.storage.path, deploy.project)):
        return str(full)
    if full.is_relative_to(folder):
        return str(Path(deploy.project) / full.relative_to(folder))
    raise SpecError(
        f"{key}={path} is a path of this machine, which no machine of the cluster sees",
        f"put it on the shared storage and write {deploy.storage.path}/..., use an address (s3://...), or put it into "
        f"the spec's folder {folder}, which the cluster sees as {deploy.project}",
    )
