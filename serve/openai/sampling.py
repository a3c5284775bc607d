"""The parameters that all requests share: how tokens are chosen, how many, and how the answer is sent."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from cluster.text import is_unicode
from serve.openai.errors import ParameterError
from serve.openai.parse import OpenAiModel, OpenAiRequest, Unsupported
from trainer.generation.engine import SamplingParams

MAX_CHOICES, MAX_TOP_LOGPROBS, _MAX_STOPS, _MAX_STOP_LENGTH = 64, 20, 16, 1000
_ONE_MODEL = "one engine serves all requests alike"

#: OpenAI's code for a prompt that does not fit; its clients know it.
TOO_LONG = "context_length_exceeded"
#: Parameters of OpenAI's that no path of this endpoint has.
UNSUPPORTED: Mapping[str, Unsupported] = {
    "service_tier": Unsupported(_ONE_MODEL, ("auto", "default")),
    "store": Unsupported("it stores no answers", (False,)),
    "metadata": Unsupported("it stores no answers", ({},)),
    "safety_identifier": Unsupported("it reports nobody; use 'user'"),
    "prompt_cache_key": Unsupported("the cache finds equal beginnings of prompts by itself"),
    "prompt_cache_retention": Unsupported("the cache finds equal beginnings of prompts by itself"),
    "moderation": Unsupported("it has no moderation"),
}


class StreamOptions(OpenAiModel):
    """Options of a streamed answer."""

    include_usage: bool | None = None
    """Whether the last chunk before `[DONE]` has the counts of tokens."""
    include_obfuscation: Annotated[bool | None, Field(json_schema_extra={"const": False})] = None
    """Only false: chunks are not padded."""

    @field_validator("include_obfuscation")
    @classmethod
    def _check_padding(cls, value: bool | None) -> bool | None:
        if value:
            raise ValueError("chunks are not padded here; leave it out or send false")
        return value


class SamplingRequest(OpenAiRequest):
    """The parameters of chat and text completions alike."""

    unsupported: ClassVar[Mapping[str, Unsupported]] = UNSUPPORTED

    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    """0 takes the most probable token."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Only the most probable tokens that have this probability together."""
    top_k: Annotated[int, Field(ge=-1)] = 0
    """Only this number of the most probable tokens; 0 and -1: all."""
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Only tokens with at least this share of the most probable one's probability."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    """What a token that the answer has already loses of its logit."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    """What a token loses of its logit for each time that the answer has it."""
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] = 1.0
    """What the logit of a token that prompt or answer have already is divided by; 1 changes nothing."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """The same request with the same seed has the same answer. Default: another one for each request."""
    stop: str | list[str] = Field(default_factory=list)
    """Texts that end the answer, which does not contain them."""
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] = Field(default_factory=dict)
    """Token id -> what is added to its logit."""
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    """Number of answers."""
    stream_options: StreamOptions | None = None
    """Options of a streamed answer."""

    def stop_texts(self) -> tuple[str, ...]:
        """Return the texts that end the answer. Raises `ParameterError`."""
        texts = [self.stop] if isinstance(self.stop, str) else self.stop
        if len(texts) > _MAX_STOPS:
            raise ParameterError("stop", f"'stop' has {len(texts)} texts; send at most {_MAX_STOPS}")
        for text in texts:
            if not text or len(text) > _MAX_STOP_LENGTH or not is_unicode(text):
                raise ParameterError(
                    "stop", f"'stop' has a text of {len(text)} characters; send 1 to {_MAX_STOP_LENGTH}"
                )
        return tuple(texts)

    def bias(self, n_tokens: int) -> dict[int, float]:
        """Return token id -> bias for a vocabulary of `n_tokens`. Raises `ParameterError`."""
        for token in self.logit_bias:
            if not (token.isascii() and token.isdigit() and int(token) < n_tokens):
                raise ParameterError("logit_bias", f"'logit_bias': {token[:20]!a} is no token id below {n_tokens}")
        return {int(token): value for token, value in self.logit_bias.items()}

    @property
    def sends_usage(self) -> bool:
        """Whether a streamed answer ends with the counts of tokens. Raises `ParameterError`."""
        if self.stream_options is not None and not self.stream:
            raise ParameterError("stream_options", "'stream_options' is only allowed with 'stream': true")
        return bool(self.stream_options and self.stream_options.include_usage)

    def sampling_params(self, n_tokens: int, **others: Any) -> SamplingParams:
        """Return the engine's parameters for a vocabulary of `n_tokens`. Raises `ParameterError`."""
        return SamplingParams(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=max(0, self.top_k),
            min_p=self.min_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed if self.seed is not None else secrets.randbits(62),
            stop=self.stop_texts(),
            logit_bias=self.bias(n_tokens),
            **others,
        )


def answer_length(asked: int | None, param: str, prompt: int, prompt_param: str, max_length: int) -> int:
    """Return the most tokens of an answer: `asked`, or without it all that fit. `param` names the request's parameter.

    Raises `ParameterError` with the counts if they do not fit beside `prompt` tokens: a prompt is never cut.
    """
    if prompt >= max_length:
        raise ParameterError(
            prompt_param,
            f"'{prompt_param}' has {prompt} tokens, and the model takes {max_length} with the answer; shorten it",
            TOO_LONG,
        )
    if asked is not None and prompt + asked > max_length:
        raise ParameterError(
            param,
            f"'{prompt_param}' has {prompt} tokens and '{param}' asks for {asked}: {prompt + asked} together, and the "
            f"model takes {max_length}; ask for at most {max_length - prompt}",
            TOO_LONG,
        )
    return asked if asked is not None else max_length - prompt
