"""The Ray Serve application for registered models.

`raymill serve` starts it, or `serve run raymill.deploy:build model=name@champion`.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from ray.serve import Application

from cluster.import_guard import actor_environment
from serve.deployment import EndpointReplica
from serve.engines.catalog import ENGINE_NAMES
from serve.engines.choose import select_engine
from serve.engines.selection import SelectedEngine, stored_engine
from serve.model.settings import ReplicaSettings
from serve.replica_settings import build_replica_settings, check_names
from trainer.registry import registry
from trainer.registry.registry import Registry, Version
from trainer.spec.run import RunSpec
from trainer.spec.serve import ServeSpec

# Ray Serve's limit of requests in one replica. It is high, because the replica itself rejects requests when too many
# inputs wait (`serve.max_queued`).
_MAX_REQUESTS = 4096
# With autoscaling: how often replicas report their load, and the time over which the load is averaged.
_LOAD_INTERVAL_S, _LOAD_WINDOW_S = 1.0, 5.0
# A replica that stops first waits until proxies have learned of it, and then for its requests.
_SHUTDOWN_SLACK_S = 5.0


class BuildArguments(BaseModel):
    """The arguments of `serve run raymill.deploy:build`, as `key=value`."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str
    """`name`, `name@alias` or `name@7`."""
    storage: str = RunSpec.model_fields["storage"].default
    """The storage folder of the registry."""
    replicas: int = 1
    """The number of replicas."""
    serve: dict[str, Any] = {}
    """Other keys of the spec's section `serve:`."""


def build(args: dict[str, Any]) -> Application:
    """Return the application for `args` (see `BuildArguments`). Raises `ModelError` for an unknown or damaged model.

    Uses the engine that `raymill optimize` or `raymill serve` chose for this hardware. Until there is one, replicas use
    the model's own forward pass (`native`).
    """
    arguments = BuildArguments.model_validate(args)
    models = Registry(arguments.storage)
    spec = ServeSpec.model_validate({"replicas": arguments.replicas, **arguments.serve})
    versions = [models.find(arguments.model), *[models.find(ref) for ref in spec.models]]
    check_names(versions)
    for version in versions:
        registry.verify_files(version)
    engines = [_find_engine(version, spec) for version in versions]
    return build_application(build_replica_settings(versions, spec, engines), spec, environment=actor_environment())


def _find_engine(version: Version, spec: ServeSpec) -> SelectedEngine:
    if spec.engine in ENGINE_NAMES:
        return select_engine(version, spec, lambda: None)
    return stored_engine(version, spec)


def build_application(
    settings: ReplicaSettings, spec: ServeSpec, *, environment: dict[str, Any] | None = None
) -> Application:
    """Return the application whose replicas have `settings`. `environment` is their runtime environment."""
    return EndpointReplica.options(  # type: ignore[attr-defined]
        **_scaling_options(spec),
        ray_actor_options={
            "num_cpus": spec.cpus_per_replica,
            "num_gpus": spec.gpus_per_replica,
            **({"runtime_env": environment} if environment else {}),
        },
        max_ongoing_requests=_MAX_REQUESTS,
        max_queued_requests=_MAX_REQUESTS,
        # A model that fails its digests or golden rows would fail them again: report it at once.
        max_constructor_retry_count=1,
        health_check_period_s=2,
        # Long enough for every request that a replica has: it gets a 504 after `serve.timeout_s`.
        graceful_shutdown_timeout_s=max(spec.timeout_s, spec.drain_s) + _SHUTDOWN_SLACK_S,
    ).bind(settings.model_dump())


def _scaling_options(spec: ServeSpec) -> dict[str, Any]:
    if isinstance(spec.replicas, int):
        return {"num_replicas": spec.replicas}
    fewest, most = spec.replicas
    return {
        "autoscaling_config": {
            "min_replicas": fewest,
            "max_replicas": most,
            "initial_replicas": max(1, fewest),
            "target_ongoing_requests": spec.target_ongoing_requests,
            # Ray Serve's defaults wait 10 s before they start a replica from zero, and start idle replicas again.
            "metrics_interval_s": _LOAD_INTERVAL_S,
            "look_back_period_s": _LOAD_WINDOW_S,
            "upscale_delay_s": _LOAD_WINDOW_S,
            "downscale_delay_s": spec.downscale_delay_s,
        }
    }
