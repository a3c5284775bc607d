"""Build the settings of an endpoint's replicas from the spec's `serve:` section."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.errors import SpecError
from serve.engines.selection import SelectedEngine, service_of
from serve.haproxy import LOOPBACK
from serve.keys import load_keys
from serve.model.settings import ModelSettings, ReplicaSettings
from trainer.registry.registry import Version
from trainer.spec.serve import ServeSpec


def check_names(versions: Sequence[Version]) -> None:
    """Raise `SpecError` if two versions have the same name: requests choose a model by its name."""
    names = [version.name for version in versions]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise SpecError(
            f"serve.models: {repeated[0]} is listed twice, but an endpoint serves one version of a model",
            f"remove one {repeated[0]} from the models to serve",
        )


def check_deadlines(spec: ServeSpec) -> None:
    """Raise `SpecError` for deadlines of tokens beyond the time after which a proxy takes a replica for gone."""
    for name in ("first_token_s", "between_tokens_s"):
        seconds = getattr(spec.generation, name)
        if seconds is not None and seconds > spec.timeout_s:
            raise SpecError(
                f"serve.generation.{name}={seconds:g} is more than serve.timeout_s={spec.timeout_s:g}",
                f"lower it, or set `serve.timeout_s: {seconds:g}`",
            )


def build_replica_settings(
    versions: Sequence[Version], spec: ServeSpec, engines: Sequence[SelectedEngine], log_folder: str | None = None
) -> ReplicaSettings:
    """Return the settings of each replica. `engines` has one engine for each version. Raises `SpecError`."""
    check_deadlines(spec)
    return ReplicaSettings(
        models=[_model_settings(version, spec, engine) for version, engine in zip(versions, engines, strict=True)],
        replicas=max(1, spec.min_replicas),
        max_replicas=spec.max_replicas,
        is_open=spec.host in LOOPBACK and not spec.keys,
        timeout_s=spec.timeout_s,
        first_token_s=spec.generation.first_token_s or spec.timeout_s,
        between_tokens_s=spec.generation.between_tokens_s or spec.timeout_s,
        client_timeout_s=spec.client_timeout_s,
        drain_s=spec.drain_s,
        cors_origins=list(spec.cors_origins),
        keys=load_keys(spec.keys) if spec.keys else [],
        access_log=log_folder if spec.access_log else None,
        log_bodies=spec.log_bodies,
        otlp_endpoint=spec.otlp_endpoint,
    )


def _model_settings(version: Version, spec: ServeSpec, engine: SelectedEngine) -> ModelSettings:
    return ModelSettings(
        name=version.name,
        version=version.number,
        folder=str(version.folder),
        service=service_of(version),
        engine=engine.name,
        choice=engine.choice,
        awaited_choice=str(engine.awaited) if engine.awaited else None,
        awaited_tolerance=engine.tolerance,
        threads=max(1, int(spec.cpus_per_replica)),
        on_gpu=spec.gpus_per_replica > 0,
        max_batch_size=spec.max_batch_size,
        max_batch_tokens=spec.max_batch_tokens,
        max_inputs=spec.max_inputs,
        max_body_bytes=spec.max_body_bytes,
        max_queued=spec.max_queued,
        overlong=spec.overlong,
        slots=spec.generation.slots,
        cache_tokens=spec.generation.cache_tokens,
        max_length=spec.generation.max_length,
    )
