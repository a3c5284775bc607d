"""The settings of a replica and of its models: plain values, so that a Serve config file can hold them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

#: Services whose answers may be streams.
STREAMING = frozenset({"generation"})


class ModelSettings(BaseModel):
    """A replica's settings for one model."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    name: str
    version: int
    folder: str
    service: str = "answers"
    """How the version's task is served; see `trainer.tasks.request_options`."""
    engine: str = "native"
    choice: dict[str, Any] | None = None
    """The stored choice of `serve.engines.choose`."""
    awaited_choice: str | None = None
    """The file of a choice that is still being made. The replica takes its engine over once the file exists."""
    awaited_tolerance: float | None = None
    """The tolerance with which the awaited choice is made; a file with another one is older. None for any."""
    threads: int = 1
    on_gpu: bool = False
    max_batch_size: int = 32
    max_batch_tokens: int = 8192
    max_inputs: int = 256
    max_body_bytes: int | None = None
    """Maximum size of a request body; None for the task's own limit."""
    max_queued: int = 1000
    overlong: str = "truncate"
    slots: int = 32
    cache_tokens: int = 65536
    max_length: int | None = None


class ReplicaSettings(BaseModel):
    """A replica's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    models: list[ModelSettings]
    """/predict uses the first model."""
    replicas: int = 1
    """Minimum number of replicas of the endpoint. Each replica enforces its share of a key's rate."""
    max_replicas: int = 1
    is_open: bool = False
    """Whether everybody who reaches the endpoint may change its models: it has no keys, and only this machine reaches it."""
    timeout_s: float = 30
    first_token_s: float = 30
    between_tokens_s: float = 30
    client_timeout_s: float = 30
    drain_s: float = 25
    cors_origins: list[str] = []
    keys: list[dict[str, Any]] = []
    """API keys, hashed."""
    access_log: str | None = None
    """The folder of the access log; None for no access log."""
    log_bodies: bool = False
    otlp_endpoint: str | None = None

    @property
    def streams(self) -> bool:
        """Whether answers may be sent while they are computed, for any length of time."""
        return any(model.service in STREAMING for model in self.models)
