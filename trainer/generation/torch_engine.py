"""The engine in torch: many requests at a time over one model, each step a forward pass over the tokens of all of them.

A step computes the next token of every request that decodes, and prompts in parts within a budget, so a long prompt does not
hold up the others. `docs/explanation/generation-engine.md` explains the design.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from trainer.generation.cache import KeyValueCache
from trainer.generation.cache_segments import CacheSegments, Span
from trainer.generation.engine import EngineFull, EngineStats, GenerationEvent, GenerationRequest, SamplingParams
from trainer.generation.forward import Forward
from trainer.generation.running import RunningRequest
from trainer.generation.sampling import token_logprobs

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class EngineOptions:
    """How large an engine is, and how it shares its time."""

    slots: int = 32
    """Requests that run at a time."""
    cache_tokens: int = 65_536
    """Tokens of keys and values that memory is used for: of running requests (with the answers they may reach) and prefixes."""
    max_length: int | None = None
    """The most tokens of a prompt and its answer; None: as many as the model and the cache allow."""
    max_waiting: int = 1024
    """Requests that wait for a slot; one more raises `EngineFull`."""
    prompt_tokens: int = 64
    """Tokens of prompts a step while other requests decode: more finish prompts sooner and delay others' next token."""
    idle_prompt_tokens: int = 512
    """The same while no request decodes."""


class TorchEngine:
    """An `Engine` over a `Forward`. One thread uses it."""

    def __init__(
        self,
        forward: Forward,
        tokenizer: Tokenizer | None = None,
        eos_ids: Collection[int] = (),
        options: EngineOptions | None = None,
    ) -> None:
        """`tokenizer` may be None: then events have no text, and stop strings are refused."""
        self.options = options or EngineOptions()
        self._forward, self._tokenizer, self._eos_ids = forward, tokenizer, frozenset(eos_ids)
        self.max_length = min(
            forward.max_length, self.options.max_length or forward.max_length, self.options.cache_tokens
        )
        self.cache = KeyValueCache(
            forward.cache_shape, self.options.slots, self.max_length, self.options.cache_tokens, forward.device
        )
        self._waiting: deque[RunningRequest] = deque()
        self._running: list[RunningRequest] = []
        self._postponed: list[GenerationEvent] = []  # of steps within `score`
        self._prompt_tokens = self._cached_prompt_tokens = self._generated_tokens = 0

    @property
    def has_work(self) -> bool:
        """Whether a request runs or waits."""
        return bool(self._running or self._waiting or self._postponed)

    def add(self, request: GenerationRequest) -> None:
        """Queue a request. Raises `EngineFull`, `ValueError` for a prompt that is empty or too long, and bad parameters."""
        self._check(request)
        if len(self._waiting) >= self.options.max_waiting:
            raise EngineFull(f"{len(self._waiting)} requests wait already")
        self._waiting.append(RunningRequest(request, self._eos_ids, self._tokenizer, None))

    def _check(self, request: GenerationRequest) -> None:
        params, n_prompt = request.params, len(request.prompt_ids)
        if not n_prompt:
            raise ValueError("the prompt has no tokens")
        if n_prompt + params.max_tokens > self.max_length:
            raise ValueError(
                f"the prompt has {n_prompt} tokens and the answer up to {params.max_tokens}; "
                f"together at most {self.max_length} are possible"
            )
        if params.max_tokens < 0 or (params.max_tokens == 0 and not params.prompt_logprobs):
            raise ValueError("max_tokens is at least 1, or 0 with prompt_logprobs")
        if params.stop and self._tokenizer is None:
            raise ValueError("stop strings need a tokenizer")
        top = max([*request.prompt_ids, *params.logit_bias])
        if top >= self._forward.vocabulary or min([*request.prompt_ids, *params.logit_bias]) < 0:
            raise ValueError(f"token ids are from 0 to {self._forward.vocabulary - 1}")

    def cancel(self, request_id: str) -> None:
        """Drop a request and free its slot. No event follows. Unknown ids are ignored."""
        self._waiting = deque(state for state in self._waiting if state.request.id != request_id)
        for state in [state for state in self._running if state.request.id == request_id]:
            self._release(state)

    def step(self) -> list[GenerationEvent]:
        """Compute one step for all running requests, and return what it added. Returns at once if there is no work."""
        postponed, self._postponed = self._postponed, []
        return postponed + self._step()

    def _step(self) -> list[GenerationEvent]:
        self._admit()
        plan = self._plan()
        if not plan:
            return []
        with torch.inference_mode():
            self._compute(plan)
        return self._collect(plan)

    def _admit(self) -> None:
        """Give slots to waiting requests, first come first served, while the cache has room."""
        while self._waiting:
            slot = self.cache.reserve(self._waiting[0].length_limit)
            if slot is None:
                return
            state = self._waiting.popleft()
            state.slot = slot
            self._running.append(state)
            self._prompt_tokens += state.n_prompt

    def _plan(self) -> list[tuple[RunningRequest, int]]:
        """Return the requests of this step with the number of their tokens to compute."""
        decoding = [(state, len(state.tokens) - state.n_computed) for state in self._running if state.is_decoding]
        budget = self.options.prompt_tokens if decoding else self.options.idle_prompt_tokens
        prompts = []
        for state in self._running:
            if not state.is_decoding and budget > 0:
                count = min(budget, state.n_prompt - state.n_computed)
                prompts.append((state, count))
                budget -= count
        return decoding + prompts

    def _compute(self, plan: Sequence[tuple[RunningRequest, int]]) -> None:
        ids: list[int] = []
        rows: list[int] = []
        row_counts = []
        for state, count in plan:
            first = state.n_computed
            ids += state.tokens[first : first + count]
            n_rows = self._rows_needed(state, count)
            rows += range(len(ids) - n_rows, len(ids))
            row_counts.append(n_rows)
            self.cache.touch(state.slot, first + count)
        spans = [Span(state.slot, state.n_computed, count) for state, count in plan]
        device = self._forward.device
        segments = CacheSegments(self.cache, spans)
        logits_RV = self._forward(
            torch.tensor(ids, device=device), segments, torch.tensor(rows, dtype=torch.long, device=device)
        )
        self._use(plan, logits_RV.cpu(), row_counts)

    def _rows_needed(self, state: RunningRequest, count: int) -> int:
        """Return how many of the last tokens of a span need logits."""
        if state.prompt_logprobs is not None and not state.is_decoding:
            return count
        return 1 if state.n_computed + count == len(state.tokens) else 0

    def _use(self, plan: Sequence[tuple[RunningRequest, int]], logits_RV: torch.Tensor, row_counts: list[int]) -> None:
        """Take each request's next token from its rows of logits."""
        best = logits_RV.argmax(-1).tolist()
        row = 0
        for (state, count), n_rows in zip(plan, row_counts, strict=True):
            logits, first = logits_RV[row : row + n_rows], state.n_computed
            row += n_rows
            needs_logprobs = n_rows and (state.params.logprobs is not None or state.prompt_logprobs is not None)
            logprobs = torch.log_softmax(logits.float(), -1) if needs_logprobs else None
            state.n_computed += count
            if logprobs is not None and state.prompt_logprobs is not None and first < state.n_prompt:
                for offset in range(min(n_rows, state.n_prompt - 1 - first)):
                    token = state.tokens[first + offset + 1]
                    state.prompt_logprobs.append(token_logprobs(logprobs[offset], token, state.params.logprobs or 0))
            if state.n_computed < len(state.tokens):
                continue
            if state.params.max_tokens == 0:
                state.finish_reason = "length"
                continue
            state.accept(logits[-1], best[row - 1], None if logprobs is None else logprobs[-1])
            self._generated_tokens += 1

    def _collect(self, plan: Sequence[tuple[RunningRequest, int]]) -> list[GenerationEvent]:
        """Return an event for each request that got a token, and free the slots of those that ended."""
        events = []
        for state, _ in plan:
            if state.has_news:
                events.append(state.take_event())
            if state.finish_reason is not None:
                self._release(state)
        return events

    def _release(self, state: RunningRequest) -> None:
        self._running.remove(state)
        self.cache.free(state.slot)

    def score(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Return the log-probability of each token after the first, given those before it: float32, (T - 1,) each."""
        params = SamplingParams(max_tokens=0, prompt_logprobs=True)
        requests = [GenerationRequest(f"score-{index}", ids, params) for index, ids in enumerate(sequences)]
        for request in requests:
            self._check(request)
        states = [RunningRequest(request, (), None, None) for request in requests]
        self._waiting.extend(states)
        while any(state.finish_reason is None for state in states):
            others = [event for event in self._step() if not event.request_id.startswith("score-")]
            self._postponed += others
        return [
            np.array([entry.logprob for entry in state.prompt_logprobs or () if entry is not None], np.float32)
            for state in states
        ]

    def stats(self) -> EngineStats:
        """Return the load and the counts."""
        return EngineStats(
            running=len(self._running),
            waiting=len(self._waiting),
            cache_tokens=sum(state.n_computed for state in self._running),
            cache_capacity=self.options.cache_tokens,
            prompt_tokens=self._prompt_tokens,
            cached_prompt_tokens=self._cached_prompt_tokens,
            generated_tokens=self._generated_tokens,
        )

    def close(self) -> None:
        """Drop all requests and free the model."""
        self._waiting.clear()
        self._running.clear()
        del self._forward, self.cache
