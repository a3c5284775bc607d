"""The `serve:` section of a spec: the HTTP endpoint of a model."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from trainer.spec.section import IntRangeFromZero, Positive, SpecSection, range_ends
from trainer.spec.serve_generation import GenerationServeSpec

#: Engines of a replica. `auto` and `auto-latency` choose one of the others by measuring.
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
#: The same for the task text-generation. The precision of the weights follows the library.
GenerationEngineName = Literal[
    "native",
    "native-int8",
    "llama-q8_0",
    "llama-q4_0",
    "openvino-f16",
    "openvino-q8_0",
    "vllm",
]


# A scheme and a host, with a port if it is not the scheme's own.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#@,*\"]+", re.IGNORECASE)


def _check_origin(origin: str) -> str:
    """Return a web origin in lower case. Raises `ValueError` for anything else, for example an address with a path."""
    if origin != "*" and not _ORIGIN.fullmatch(origin):
        raise ValueError(f"'{origin}' is no origin; write scheme and host only, for example https://app.example.com")
    return origin.lower()


class ServeSpec(SpecSection):
    """The HTTP endpoint."""

    host: str = "127.0.0.1"
    """Address to listen on. An address other than this machine's loopback requires `keys`, or `insecure`."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port to listen on."""
    keys: str | None = None
    """File of hashed API keys, written by `raymill keys`. Without it, everybody who can reach the address may send
    requests."""
    insecure: bool = False
    """Allow an address other than loopback without `keys`."""
    proxy: Literal["auto", "haproxy", "python"] = "auto"
    """`haproxy`: Ray Serve behind HAProxy, in its throughput mode; `python`: Ray Serve with its own proxy. `auto`: one
    process without Ray for one replica without a GPU, else Ray Serve, with HAProxy if it is installed."""
    cors_origins: tuple[Annotated[str, AfterValidator(_check_origin)], ...] = ()
    """Origins of web pages whose scripts may send requests, for example `[https://app.example.com]`; `["*"]` for all.
    Default: none, so browsers let only the endpoint's own pages do it."""
    models: tuple[str, ...] = ()
    """More models (name, name@alias, name@7) that the same endpoint serves under their own names."""

    replicas: IntRangeFromZero = 1
    """Number of replicas. `[1, 4]`: as many as the load requires; from 0, the first request starts a replica."""
    target_ongoing_requests: Positive = 64
    """With a range of `replicas`: the number of requests in flight per replica to aim for."""
    downscale_delay_s: Annotated[float, Field(ge=0)] = 60
    """With a range of `replicas`: seconds after which a replica stops if the load does not require it."""
    cpus_per_replica: Annotated[float, Field(ge=0)] = 1
    """CPU cores of one replica."""
    gpus_per_replica: Annotated[float, Field(ge=0)] = 0
    """GPUs of one replica."""

    engine: EngineName | GenerationEngineName = "auto"
    """The software that computes the forward pass. `auto`: measure all engines once on this hardware and use the one
    that is fastest in batches; `auto-latency`: the one that is fastest for a single input. Both skip engines that
    exceed `max_metric_drop`. `raymill optimize` does this in advance."""
    max_metric_drop: Annotated[float, Field(ge=0, le=100)] = 0.3
    """How much worse `evaluate.metric` may be with a faster engine, in percentage points: 0.3 allows 0.900 to become
    0.897. For metrics where lower is better: in percent of the metric."""
    max_batch_size: Positive = 32
    """Maximum number of inputs in one forward pass. A batch never waits to be full."""
    max_batch_tokens: Positive = 8192
    """Maximum number of tokens of texts in one forward pass. It does not limit images and table rows."""

    generation: GenerationServeSpec = Field(default_factory=GenerationServeSpec)
    """Models that write text: limits of answers, streams and the engine's cache."""

    max_inputs: Positive = 256
    """Maximum number of inputs in one request; a larger request gets a 413."""
    max_body_bytes: Positive | None = None
    """Maximum size of a request body in bytes; a larger body gets a 413. Default: 1 MiB, for images 16 MiB."""
    overlong: Literal["truncate", "reject"] = "truncate"
    """A text with more tokens than `data.max_length` is cut as in training (`truncate`) or gets a 422 (`reject`)."""
    timeout_s: Annotated[float, Field(gt=0)] = 30
    """Seconds until an unanswered request gets a 504."""
    client_timeout_s: Annotated[float, Field(gt=0)] = 30
    """Seconds in which a client must send a request's headers, and then its body; it gets a 408 otherwise. A large body
    gets one second more for each 64 KiB. A client that takes nothing of its answer for so long is disconnected."""
    drain_s: Annotated[float, Field(ge=0)] = 25
    """Seconds in which an endpoint that is stopped still answers the requests that it has accepted; what is unanswered
    then gets a 503. New connections are refused. Kubernetes kills a process after 30 s by default."""
    max_queued: Positive = 1000
    """Maximum number of inputs that wait in one replica; a request beyond it gets a 429 with Retry-After at once."""
    retries: Annotated[int, Field(ge=0, le=3)] = 0
    """How many times HAProxy sends a request to another replica if a replica disappears without an answer, or says
    nothing for 2 s longer than `timeout_s`."""

    access_log: bool = False
    """Write a JSON line for each request into the run's folder."""
    log_bodies: bool = False
    """Write the request's body into its line of the access log. It may hold personal data."""
    otlp_endpoint: str | None = None
    """URL that OpenTelemetry traces are sent to, for example http://host:4318/v1/traces."""

    @property
    def min_replicas(self) -> int:
        """Minimum number of replicas."""
        return range_ends(self.replicas)[0]

    @property
    def max_replicas(self) -> int:
        """Maximum number of replicas."""
        return range_ends(self.replicas)[1]
