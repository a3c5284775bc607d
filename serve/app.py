"""The Serve application of registered models: `serve run serve.app:build model=name@champion` or `raymill serve`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict
from ray.serve import Application

from cluster.errors import SpecError
from serve import keys
from serve.deployment import Endpoint, Settings
from serve.engines import catalog as engine_catalog
from serve.engines import choose
from serve.engines.benchmark import HeldOut
from serve.model.served_model import ModelSettings
from trainer.contract import contract as contracts
from trainer.registry import registry
from trainer.registry.registry import Registry, Version
from trainer.spec.run import RunSpec
from trainer.spec.run import Serve as ServeSpec
from trainer.tasks import catalog as task_catalog

# HTTP requests that one replica takes; what may wait in it is counted in inputs, and refused by itself.
_MOST_REQUESTS = 4096
# With a range of replicas: how often their load is told, and over how long its mean is taken.
_LOAD_EVERY_S, _LOAD_OVER_S = 1.0, 5.0
#: Returns the rows that engines of a version are checked on, or None where there are none.
HeldOutOf = Callable[[Version], HeldOut | None]


class Arguments(BaseModel):
    """What `serve run serve.app:build` takes after the import path, as `key=value`."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str
    """`name`, `name@alias` or `name@7`."""
    storage: str = RunSpec.model_fields["storage"].default
    """The storage folder of the registry."""
    replicas: int = 1
    """How many copies of the model answer."""
    serve: dict[str, Any] = {}
    """More of the spec's section `serve:`."""


def build(args: dict[str, Any]) -> Application:
    """Return the application for `args` (see `Arguments`). Raises `ModelError` for an unknown or damaged model.

    Engines are those that `raymill optimize` or `raymill serve` chose; without a choice the model's own.
    """
    given = Arguments.model_validate(args)
    models = Registry(given.storage)
    spec = ServeSpec.model_validate({"replicas": given.replicas, **given.serve})
    versions = [models.find(given.model), *[models.find(ref) for ref in spec.models]]
    return application(versions, spec, None)


def application(
    versions: Sequence[Version],
    spec: ServeSpec,
    held_out: HeldOutOf | None,
    *,
    log_folder: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Application:
    """Return the application that serves `versions` as `spec` says, after checking every file of them.

    Where an engine is still to be chosen, it is now, with the rows of `held_out`.
    """
    names = [version.name for version in versions]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise SpecError(
            f"serve.models: {twice[0]} is named twice", "an endpoint has one version of a model; take one out"
        )
    for version in versions:
        registry.verify(version)
    settings = Settings(
        models=[_settings(version, spec, held_out, say) for version in versions],
        replicas=max(1, spec.fewest_replicas),
        timeout_s=spec.timeout_s,
        keys=keys.load(spec.keys) if spec.keys else [],
        access_log=log_folder if spec.access_log else None,
        log_bodies=spec.log_bodies,
        otlp=spec.otlp,
    )
    return Endpoint.options(  # type: ignore[attr-defined]
        **_scaling(spec),
        ray_actor_options={"num_cpus": spec.cpus_per_replica, "num_gpus": spec.gpus_per_replica},
        max_ongoing_requests=_MOST_REQUESTS,
        max_queued_requests=_MOST_REQUESTS,
        # A model that fails its digests or golden rows fails them again: say so at once.
        max_constructor_retry_count=1,
        health_check_period_s=2,
        graceful_shutdown_timeout_s=max(5.0, min(spec.timeout_s, 30.0)),
    ).bind(settings.model_dump())


def _scaling(spec: ServeSpec) -> dict[str, Any]:
    if isinstance(spec.replicas, int):
        return {"num_replicas": spec.replicas}
    fewest, most = spec.replicas
    return {
        "autoscaling_config": {
            "min_replicas": fewest,
            "max_replicas": most,
            "initial_replicas": max(1, fewest),
            "target_ongoing_requests": spec.target_inputs,
            # Ray Serve's own 10 s and 30 s let a first request wait for 10 s until anybody hears of it, and have replicas
            # that nothing asks for any more started again.
            "metrics_interval_s": _LOAD_EVERY_S,
            "look_back_period_s": _LOAD_OVER_S,
            "upscale_delay_s": _LOAD_OVER_S,
            "downscale_delay_s": spec.idle_s,
        }
    }


def _settings(
    version: Version, spec: ServeSpec, held_out: HeldOutOf | None, say: Callable[[str], None]
) -> ModelSettings:
    name, choice = _engine(version, spec, held_out, say)
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
        max_body_bytes=spec.max_body_bytes or task_catalog.of(contracts.load(version.folder)).max_body_bytes,
        max_queued=spec.max_queued,
        too_long=spec.too_long,
    )


def _engine(
    version: Version, spec: ServeSpec, held_out: HeldOutOf | None, say: Callable[[str], None]
) -> tuple[str, dict[str, Any] | None]:
    if held_out is None and spec.engine not in engine_catalog.NAMES:
        return choose.chosen_before(version, spec)
    return choose.engine_of(version, spec, lambda: held_out(version) if held_out else None, say)
