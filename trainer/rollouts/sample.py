"""Answers to prompts, sampled with the model that is being trained, in its own process. Token ids in, token ids out.

An answer's draws depend on the seed, the step, the prompt and the number of the sample alone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trainer.generation.engine import GenerationRequest, SamplingParams, complete_all
from trainer.spec.method import RolloutSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Requests that the engine computes at a time, and tokens of prompts that it computes in a step beside running answers.
_SLOTS, _PROMPT_TOKENS = 128, 2048


class SampledAnswer(NamedTuple):
    """One answer to one prompt, in JSON values."""

    position: int
    """The position of the prompt in its step."""
    sample: int
    ids: list[int]
    """The answer's tokens, with the one that ends it."""
    is_finished: bool
    """Whether the answer ended by itself, and not at the limit."""
    text: str
    reward: float = 0.0
    log_probs: tuple[float, ...] = ()
    """The log-probability of each token of `ids` under the model that sampled them, if the loss needs it."""


def sample_answers(
    model: Any,
    prompts: Sequence[np.ndarray],
    positions: Sequence[int],
    spec: RolloutSpec,
    stop_ids: Collection[int],
    tokenizer: Tokenizer,
    *,
    seeds: Sequence[int],
    n_samples: int,
    temperature: float | None = None,
) -> list[SampledAnswer]:
    """Return `n_samples` answers to each prompt, in order, without rewards.

    `prompts` are token ids; `positions` number them; `seeds` identify the step. `model` is in training mode afterwards if
    it was before.
    """
    from trainer.generation.load import make_engine
    from trainer.generation.torch_engine import EngineOptions

    if not len(prompts):
        return []
    longest = max(map(len, prompts)) + spec.max_tokens
    slots = min(_SLOTS, len(prompts) * n_samples)
    options = EngineOptions(
        slots=slots, cache_tokens=slots * longest, max_length=longest, prompt_tokens=_PROMPT_TOKENS,
        idle_prompt_tokens=_PROMPT_TOKENS,
    )  # fmt: skip
    was_training = model.training
    # A new engine for each step: its cache holds keys and values of the old weights.
    engine = make_engine(model, eos_ids=stop_ids, options=options)
    requests = [
        GenerationRequest(
            f"{position}-{sample}",
            prompt.tolist(),
            SamplingParams(
                max_tokens=spec.max_tokens,
                temperature=spec.temperature if temperature is None else temperature,
                top_p=spec.top_p,
                top_k=spec.top_k,
                seed=_seed(*seeds, position, sample),
            ),
        )
        for prompt, position in zip(prompts, positions, strict=True)
        for sample in range(n_samples)
    ]
    try:
        completions = complete_all(engine, requests)
    finally:
        engine.close()
        model.train(was_training)
    numbers = [(position, sample) for position in positions for sample in range(n_samples)]
    stops = set(stop_ids)
    return [
        SampledAnswer(
            int(position),
            sample,
            list(map(int, completion.token_ids)),
            completion.finish_reason == "stop",
            tokenizer.decode([token for token in completion.token_ids if token not in stops]),
        )
        for (position, sample), completion in zip(numbers, completions, strict=True)
    ]


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence([int(part) for part in parts]).generate_state(1, np.uint64)[0] >> 1)
