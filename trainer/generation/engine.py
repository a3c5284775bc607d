"""The interface of a generation engine: requests in, tokens out, one step at a time.

Evaluation, batch prediction and endpoints use it; every engine implements it. An engine is used by one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

FinishReason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True)
class SamplingParams:
    """How the tokens of an answer are chosen, with OpenAI's names and meanings."""

    max_tokens: int = 16
    temperature: float = 1.0
    """0 takes the most probable token."""
    top_p: float = 1.0
    top_k: int = 0
    """0: all tokens."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    """The same request with the same seed gives the same answer, whatever else the engine computes."""
    stop: tuple[str, ...] = ()
    """Strings that end the answer; they are not part of it."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Token id -> what is added to its logit."""
    logprobs: int | None = None
    """How many alternatives each token is reported with, from 0; None: no log-probabilities."""
    prompt_logprobs: bool = False
    """Whether the log-probabilities of the prompt's tokens are reported too (`logprobs` alternatives each)."""
    grammar: str | None = None
    """A grammar of llguidance that the answer must follow, as JSON; see `trainer.generation.grammar`."""
    ignore_eos: bool = False
    """Whether the end-of-turn tokens do not end the answer; for benchmarks."""


@dataclass(frozen=True)
class GenerationRequest:
    """A prompt to be continued."""

    id: str
    prompt_ids: Sequence[int]
    params: SamplingParams
    adapter: str | None = None
    """The name of an adapter that the engine has loaded; None for the base model."""


class TokenLogprob(NamedTuple):
    """The log-probability of a token before temperature and penalties, and of the most probable ones in its place."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class GenerationEvent(NamedTuple):
    """What one step added to one request."""

    request_id: str
    token_ids: Sequence[int] = ()
    text: str = ""
    """New text that is sure to belong to the answer: no half of a character, no start of a stop string."""
    logprobs: Sequence[TokenLogprob] = ()
    finish_reason: FinishReason | None = None
    """None while the request goes on. `stop` includes the end of the turn."""
    error: str = ""
    prompt_logprobs: Sequence[TokenLogprob | None] | None = None
    """In the first event, if asked for; None for the first token of the prompt."""
    cached_tokens: int = 0
    """In the first event: tokens of the prompt that the prefix cache had."""


class EngineStats(NamedTuple):
    """The load of an engine now, and counts since it started."""

    running: int
    waiting: int
    cache_tokens: int
    """Tokens that the cache holds for running requests and prefixes."""
    cache_capacity: int
    prompt_tokens: int
    cached_prompt_tokens: int
    generated_tokens: int


class EngineFull(RuntimeError):
    """The engine takes no more requests now."""


class Engine(Protocol):
    """A model that continues many prompts at a time."""

    max_length: int
    """The most tokens of a prompt and its answer together."""

    def add(self, request: GenerationRequest) -> None:
        """Queue a request. Raises `EngineFull`, `ValueError` for a prompt that is empty or too long."""

    def cancel(self, request_id: str) -> None:
        """Drop a request and free its memory. No event follows. Unknown ids are ignored."""

    def step(self) -> list[GenerationEvent]:
        """Compute one step for all running requests, and return what it added. Returns at once if there is no work."""

    @property
    def has_work(self) -> bool:
        """Whether a request runs or waits."""

    def score(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Return the log-probability of each token after the first, given those before it: float32, (T - 1,) each."""

    def stats(self) -> EngineStats:
        """Return the load and the counts."""

    def close(self) -> None:
        """Free the model. Requests that still run are dropped."""


def check_request(request: GenerationRequest, max_length: int, *, has_tokenizer: bool) -> None:
    """Raise `ValueError` for a prompt that is empty or too long, and for stop strings that nothing can look for."""
    n_prompt, params = len(request.prompt_ids), request.params
    if not n_prompt:
        raise ValueError("the prompt has no tokens")
    if n_prompt + params.max_tokens > max_length:
        raise ValueError(
            f"the prompt has {n_prompt} tokens and the answer up to {params.max_tokens}; "
            f"together at most {max_length} are possible"
        )
    if params.stop and not has_tokenizer:
        raise ValueError("stop strings need a tokenizer")


@dataclass
class Completion:
    """A finished answer."""

    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: FinishReason | None = None
    error: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


def complete_all(
    engine: Engine,
    requests: Sequence[GenerationRequest],
    on_progress: Callable[[int], None] = lambda done: None,
    max_open: int = 256,
) -> list[Completion]:
    """Return the answer to each request, in order. The engine gets at most `max_open` requests at a time.

    `on_progress` gets the number of finished answers whenever one finishes.
    """
    answers = {request.id: Completion() for request in requests}
    waiting = list(reversed(requests))
    n_open = 0
    while waiting or n_open:
        while waiting and n_open < max_open:
            try:
                engine.add(waiting[-1])
            except EngineFull:
                break
            waiting.pop()
            n_open += 1
        for event in engine.step():
            answer = answers[event.request_id]
            answer.token_ids += event.token_ids
            answer.text += event.text
            answer.logprobs += event.logprobs
            if event.finish_reason:
                answer.finish_reason, answer.error = event.finish_reason, event.error
                n_open -= 1
                on_progress(len(requests) - len(waiting) - n_open)
    return [answers[request.id] for request in requests]
