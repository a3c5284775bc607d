"""The Serve application of a registered model: `serve run serve.app:build model=name@champion` or `raymill serve`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from ray.serve import Application

from serve.replica import Endpoint, Settings
from trainer import contract as contracts
from trainer import registry, tasks
from trainer.registry import Registry, Version
from trainer.spec import RunSpec
from trainer.spec import Serve as ServeSpec

# Requests that may wait inside one replica, per place in its batch: enough to fill the next batches.
_QUEUED_BATCHES = 8


class Arguments(BaseModel):
    """What `serve run serve.app:build` takes after the import path, as `key=value`."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str
    """`name`, `name@alias` or `name@7`."""
    storage: str = RunSpec.model_fields["storage"].default
    """The storage folder of the registry."""
    replicas: int = 1
    """How many copies of the model answer."""


def build(args: dict[str, Any]) -> Application:
    """Return the application for `args` (see `Arguments`). Raises `ModelError` for an unknown or damaged model."""
    given = Arguments.model_validate(args)
    return application(Registry(given.storage).find(given.model), ServeSpec(replicas=given.replicas))


def application(version: Version, spec: ServeSpec) -> Application:
    """Return the application that serves `version` as `spec` says, after checking every file of it."""
    registry.verify(version)
    settings = Settings(
        name=version.name,
        version=version.number,
        folder=str(version.folder),
        threads=max(1, int(spec.cpus_per_replica)),
        on_gpu=spec.gpus_per_replica > 0,
        max_batch_size=spec.max_batch_size,
        batch_wait_ms=spec.batch_wait_ms,
        max_inputs=spec.max_inputs,
        max_body_bytes=spec.max_body_bytes or tasks.of(contracts.load(version.folder)).max_body_bytes,
        timeout_s=spec.timeout_s,
    )
    return Endpoint.options(  # type: ignore[attr-defined]
        num_replicas=spec.replicas,
        ray_actor_options={"num_cpus": spec.cpus_per_replica, "num_gpus": spec.gpus_per_replica},
        max_ongoing_requests=_QUEUED_BATCHES * spec.max_batch_size,
        max_queued_requests=spec.max_queued,
        # A model that fails its digests or golden rows fails them again: say so at once.
        max_constructor_retry_count=1,
    ).bind(settings.model_dump())
