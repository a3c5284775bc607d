"""The body of POST /v1/completions: prompts as texts or token ids, without a chat template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from serve.openai.errors import ParameterError
from serve.openai.parse import Unsupported
from serve.openai.sampling import MAX_TOP_LOGPROBS, UNSUPPORTED, SamplingRequest

_MAX_PROMPTS = 256
#: OpenAI's default for this path.
DEFAULT_TOKENS = 16
TokenIds = list[Annotated[int, Field(ge=0)]]


class CompletionRequest(SamplingRequest):
    """The body of POST /v1/completions. Parameters of OpenAI's that are not listed are refused by name."""

    unsupported: ClassVar[Mapping[str, Unsupported]] = {
        **UNSUPPORTED,
        "suffix": Unsupported("the models continue a prompt only", ("",)),
        "best_of": Unsupported("send 'n', and choose by 'logprobs'", (1,)),
    }

    prompt: str | TokenIds | list[str] | list[TokenIds]
    """A text or token ids, or several of them. The text is not put into a chat template."""
    max_tokens: Annotated[int, Field(ge=0)] = DEFAULT_TOKENS
    """Most tokens of an answer; 0 only with `echo`."""
    echo: bool = False
    """Whether the answer begins with the prompt; with `logprobs`, with its log-probabilities too."""
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    """Number of most probable tokens at each position, with the log-probability of each token. Default: none."""

    def prompts(self) -> list[str] | list[list[int]]:
        """Return the prompts as a list. Raises `ParameterError`."""
        prompt: Any = self.prompt
        is_one = isinstance(prompt, str) or (bool(prompt) and isinstance(prompt[0], int))
        prompts: list[str] | list[list[int]] = [prompt] if is_one else prompt
        if not prompts or len(prompts) > _MAX_PROMPTS:
            raise ParameterError("prompt", f"'prompt' has {len(prompts)} prompts; send 1 to {_MAX_PROMPTS}")
        if self.max_tokens == 0 and not self.echo:
            raise ParameterError("max_tokens", "'max_tokens' is 0 without 'echo': there is nothing to answer")
        return prompts
