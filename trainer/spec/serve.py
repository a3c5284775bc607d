"""The spec's section `serve:`: how a model is put behind HTTP."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from trainer.spec.section import Positive, Section, rising

#: What a replica may compute with; `auto` is the fastest of them here that keeps the metric, in batches, `auto-latency` for one input.
EngineName = Literal[
    "auto",
    "auto-latency",
    "native",
    "torch-packed",
    "torch-bf16",
    "torch-compile",
    "onnx-fp32",
    "onnx-int8",
    "openvino-bf16",
    "openvino-int8",
]

_AtLeastNone = Annotated[int, Field(ge=0)]


class Serve(Section):
    """The HTTP endpoint."""

    host: str = "127.0.0.1"
    """Address to listen on. Any but this machine's own takes `keys`, or `insecure`."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port to listen on."""
    keys: str | None = None
    """File of API keys, hashed, as `raymill keys` writes it. Without one everybody may ask who reaches the address."""
    insecure: bool = False
    """Listen on other addresses without keys."""
    proxy: Literal["auto", "haproxy", "python"] = "auto"
    """What listens: HAProxy with Ray Serve's throughput mode where they are there (`auto`), else Ray Serve's own proxy."""
    models: tuple[str, ...] = ()
    """More models (name, name@alias, name@7) that the same process answers for, under their own names."""

    replicas: Positive | tuple[_AtLeastNone, Positive] = 1
    """How many copies of the model answer. `[1, 4]`: so many as the load takes; from 0 the first request starts one."""
    target_inputs: Positive = 64
    """With a range of `replicas`: requests in flight that one replica is meant to have."""
    idle_s: Annotated[float, Field(ge=0)] = 60
    """With a range of `replicas`: how long one more than the load takes stays."""
    cpus_per_replica: Annotated[float, Field(ge=0)] = 1
    """CPU cores of one replica."""
    gpus_per_replica: Annotated[float, Field(ge=0)] = 0
    """GPUs of one replica."""

    engine: EngineName = "auto"
    """What computes. `auto`: candidates are timed on this hardware once, and the one is taken that is the fastest in batches of those
    that keep the metric; `auto-latency`: the fastest for a single input. `raymill optimize` does it beforehand."""
    max_metric_drop: Annotated[float, Field(ge=0, le=100)] = 0.3
    """By how many points of 100 `evaluate.metric` may be worse with a faster engine; of errors by how many percent."""
    max_batch_size: Positive = 32
    """Most inputs in one forward pass. A batch never waits to be full."""
    max_batch_tokens: Positive = 8192
    """Most tokens of texts in one forward pass; images and table rows count their numbers, and are not held to it."""

    max_inputs: Positive = 256
    """Most inputs in one request; more are refused with 413."""
    max_body_bytes: Positive | None = None
    """Largest request body; a larger one is refused with 413. Default: 1 MiB, for images 16 MiB."""
    too_long: Literal["truncate", "refuse"] = "truncate"
    """What becomes of a text with more tokens than `data.max_length`: cut, as in training, or refused with 422."""
    timeout_s: Annotated[float, Field(gt=0)] = 30
    """Longest time a request may take before it gets a 504."""
    max_queued: Positive = 1000
    """Inputs that may wait in one replica; a request that would make more gets 429 with Retry-After at once."""
    retries: Annotated[int, Field(ge=0, le=3)] = 0
    """How often HAProxy asks another replica where one went away without an answer."""

    access_log: bool = False
    """Write a JSON line for each request into the run's folder."""
    log_bodies: bool = False
    """Put the request's body into its line: it may hold what nobody should keep."""
    otlp: str | None = None
    """Where OpenTelemetry traces go, as http://host:4318/v1/traces."""

    @field_validator("replicas")
    @classmethod
    def _rises(cls, given: int | tuple[int, int]) -> int | tuple[int, int]:
        return rising(given)

    @property
    def fewest_replicas(self) -> int:
        """The fewest copies that are there at a time."""
        return self.replicas if isinstance(self.replicas, int) else self.replicas[0]

    @property
    def most_replicas(self) -> int:
        """The most copies that are there at a time."""
        return self.replicas if isinstance(self.replicas, int) else self.replicas[1]
