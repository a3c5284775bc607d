"""Which sampling parameters an engine computes exactly as the model's own engine does."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields

from trainer.generation.engine import GenerationRequest, SamplingParams

_DEFAULTS = SamplingParams()
#: The name under which `unsupported` reports a request for an adapter.
ADAPTER = "adapter"
#: The name under which `unsupported` reports log-probabilities of other tokens than the chosen one.
TOP_LOGPROBS = "logprobs above 0"


def unsupported(request: GenerationRequest, exact: Collection[str]) -> list[str]:
    """Return the parameters of a request that differ from their defaults and are not in `exact`.

    `exact` has names of `SamplingParams`' fields, and may have `ADAPTER` and `TOP_LOGPROBS`.
    """
    changed = [
        field.name
        for field in fields(SamplingParams)
        if getattr(request.params, field.name) != getattr(_DEFAULTS, field.name)
    ]
    if request.adapter is not None:
        changed.append(ADAPTER)
    if request.params.logprobs:
        changed.append(TOP_LOGPROBS)
    return [name for name in changed if name not in exact]


def refuse_unsupported(request: GenerationRequest, exact: Collection[str], engine: str) -> None:
    """Raise `ValueError` with the names of the parameters that the engine does not compute exactly."""
    names = unsupported(request, exact)
    if names:
        raise ValueError(f"the engine {engine} does not support {', '.join(names)}")
