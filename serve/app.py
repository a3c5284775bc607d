"""The Ray Serve application for registered models.

`raymill serve` starts it, or `serve run raymill.deploy:build model=name@champion`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict
from ray.serve import Application

from cluster.errors import SpecError
from cluster.import_guard import actor_environment
from serve.deployment import EndpointReplica, ReplicaSettings
from serve.engines.benchmark import HeldOut
from serve.engines.catalog import ENGINE_NAMES
from serve.engines.choose import select_engine, stored_engine
from serve.keys import load_keys
from serve.model.served_model import ModelSettings
from trainer.contract import contract as contracts
from trainer.registry import registry
from trainer.registry.registry import Registry, Version
from trainer.spec.run import RunSpec
from trainer.spec.serve import ServeSpec
from trainer.tasks import catalog as task_catalog

# Ray Serve's limit of requests in one replica. It is high, because the replica itself rejects requests when too many
# inputs wait (`serve.max_queued`).
_MAX_REQUESTS = 4096
# With autoscaling: how often replicas report their load, and the time over which the load is averaged.
_LOAD_INTERVAL_S, _LOAD_WINDOW_S = 1.0, 5.0
#: Function that returns the held-out rows to check a version's engines on, or None if the rows are gone.
HeldOutLoader = Callable[[Version], HeldOut | None]


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

    Uses the engine that `raymill optimize` or `raymill serve` chose for this hardware, else the model's own forward
    pass (`native`).
    """
    arguments = BuildArguments.model_validate(args)
    models = Registry(arguments.storage)
    spec = ServeSpec.model_validate({"replicas": arguments.replicas, **arguments.serve})
    versions = [models.find(arguments.model), *[models.find(ref) for ref in spec.models]]
    return build_application(versions, spec, None, environment=actor_environment())


def build_application(
    versions: Sequence[Version],
    spec: ServeSpec,
    held_out: HeldOutLoader | None,
    *,
    log_folder: str | None = None,
    say: Callable[[str], None] = lambda text: None,
    environment: dict[str, Any] | None = None,
) -> Application:
    """Return the application that serves `versions` with `spec`, after verifying all their files.

    If no engine is chosen yet for a version, engines are measured now: they are checked on the rows that `held_out`
    returns, and `say` is called with each line of results. `environment` is the replicas' runtime environment.
    """
    names = [version.name for version in versions]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise SpecError(
            f"serve.models: {repeated[0]} is listed twice, but an endpoint serves one version of a model",
            f"remove one {repeated[0]} from the models to serve",
        )
    for version in versions:
        registry.verify_files(version)
    settings = ReplicaSettings(
        models=[model_settings(version, spec, held_out, say) for version in versions],
        replicas=max(1, spec.min_replicas),
        timeout_s=spec.timeout_s,
        keys=load_keys(spec.keys) if spec.keys else [],
        access_log=log_folder if spec.access_log else None,
        log_bodies=spec.log_bodies,
        otlp_endpoint=spec.otlp_endpoint,
    )
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
        graceful_shutdown_timeout_s=max(5.0, min(spec.timeout_s, 30.0)),
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


def model_settings(
    version: Version, spec: ServeSpec, held_out: HeldOutLoader | None, say: Callable[[str], None]
) -> ModelSettings:
    """Return a replica's settings for one version, with its engine; see `build_application`."""
    name, choice = _select_engine(version, spec, held_out, say)
    return ModelSettings(
        name=version.name,
        version=version.number,
        folder=str(version.folder),
        engine=name,
        choice=choice,
        threads=max(1, int(spec.cpus_per_replica)),
        on_gpu=spec.gpus_per_replica > 0,
        max_batch_size=spec.max_batch_size,
        max_batch_tokens=spec.max_batch_tokens,
        max_inputs=spec.max_inputs,
        max_body_bytes=spec.max_body_bytes
        or task_catalog.task_of_contract(contracts.load_contract(version.folder)).max_body_bytes,
        max_queued=spec.max_queued,
        overlong=spec.overlong,
    )


def _select_engine(
    version: Version, spec: ServeSpec, held_out: HeldOutLoader | None, say: Callable[[str], None]
) -> tuple[str, dict[str, Any] | None]:
    if held_out is None and spec.engine not in ENGINE_NAMES:
        return stored_engine(version, spec)
    return select_engine(version, spec, lambda: held_out(version) if held_out else None, say)
