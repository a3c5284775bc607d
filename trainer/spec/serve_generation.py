"""The section `serve.generation:` of a spec: how models that write text are served."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trainer.spec.section import Positive, SpecSection


class GenerationServeSpec(SpecSection):
    """The endpoint of models that write text. Other models do not use it."""

    slots: Positive = 32
    """Answers that one replica computes at a time; further ones wait, up to `serve.max_queued`."""
    cache_tokens: Positive = 65536
    """Tokens whose keys and values one replica holds in memory: those of running answers, and beginnings of prompts that
    may come again."""
    max_length: Positive | None = None
    """Most tokens of a prompt and its answer together. Default: as many as the model takes, and the cache."""
    first_token_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds until a request without its first token gets a 504. Default: `serve.timeout_s`."""
    between_tokens_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which an answer without a further token is ended with an error. Default: `serve.timeout_s`."""
