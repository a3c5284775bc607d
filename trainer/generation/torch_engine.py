"""The engine in torch: many requests at a time over one model, each step a forward pass over the tokens of all of them.

A step computes the next token of every request that decodes, and prompts in parts within a budget, so a long prompt does not
hold up the others. `docs/explanation/generation-engine.md` explains the design.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from trainer.generation.adapters import AdapterSpan
from trainer.generation.cache import KeyValueCache
from trainer.generation.cache_segments import CacheSegments, Span
from trainer.generation.engine import (
    EngineFull,
    EngineStats,
    GenerationEvent,
    GenerationRequest,
    SamplingParams,
    check_request,
)
from trainer.generation.forward import Forward
from trainer.generation.grammar import Grammars, GrammarState
from trainer.generation.prefixes import BLOCK, PrefixCache
from trainer.generation.running import RunningRequest

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SCORE = "score "  # how the ids of the engine's own requests begin


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
    prefix_cache: bool = True
    """Whether keys and values of prompts and answers stay, for prompts that begin alike."""
    draft_tokens: int = 4
    """The most tokens a request drafts for a step by prompt lookup; 0: one token a step."""
    step_tokens: int = 16
    """Requests draft only as far as a step has no more tokens than this: beyond, drafts cost more than they save."""


class TorchEngine:
    """An `Engine` over a `Forward`. One thread uses it."""

    def __init__(
        self,
        forward: Forward,
        tokenizer: Tokenizer | None = None,
        eos_ids: Collection[int] = (),
        options: EngineOptions | None = None,
    ) -> None:
        """`tokenizer` may be None: then events have no text, and stop strings and grammars are refused."""
        self.options = options or EngineOptions()
        self._forward, self._tokenizer, self._eos_ids = forward, tokenizer, frozenset(eos_ids)
        self.max_length = min(
            forward.max_length, self.options.max_length or forward.max_length, self.options.cache_tokens
        )
        self.cache = KeyValueCache(
            forward.cache_shape, self.options.slots, self.max_length, self.options.cache_tokens, forward.device
        )
        self._prefixes = PrefixCache(self.cache)
        self._grammars: Grammars | None = None
        self._adapters: dict[str, int] = {}
        self._n_adapters = 0
        self._waiting: deque[RunningRequest] = deque()
        self._running: list[RunningRequest] = []
        self._postponed: list[GenerationEvent] = []  # of steps within `score`
        self._prompt_tokens = self._cached_prompt_tokens = self._generated_tokens = 0

    @property
    def has_work(self) -> bool:
        """Whether a request runs or waits."""
        return bool(self._running or self._waiting or self._postponed)

    @property
    def adapters(self) -> list[str]:
        """The names of the adapters that requests may use."""
        return list(self._adapters)

    def add_adapter(self, name: str, folder: Path) -> None:
        """Load a LoRA adapter of peft. Requests that run go on; one of the same name is replaced for new requests.

        Raises `ModelError` for an adapter that does not fit the model.
        """
        number = self._n_adapters + 1
        self._forward.add_adapter(number, Path(folder))
        self._n_adapters = number
        if name in self._adapters:
            self.remove_adapter(name)
        self._adapters[name] = number

    def remove_adapter(self, name: str) -> None:
        """Let no new request use an adapter. Requests that use it finish; then its memory is free. Raises `KeyError`."""
        self._free_adapter(self._adapters.pop(name))

    def _free_adapter(self, number: int) -> None:
        """Drop an adapter that was removed, unless a request uses it."""
        in_use = any(state.root == number for state in [*self._running, *self._waiting])
        if number and number not in self._adapters.values() and not in_use:
            self._forward.drop_adapter(number)

    def add(self, request: GenerationRequest) -> None:
        """Queue a request. Raises `EngineFull`, `ValueError` for a prompt that is empty or too long, and bad parameters."""
        self._check(request)
        if len(self._waiting) >= self.options.max_waiting:
            raise EngineFull(f"{len(self._waiting)} requests wait already")
        root = self._adapters[request.adapter] if request.adapter is not None else 0
        grammar = self._start_grammar(request.params)
        self._waiting.append(RunningRequest(request, self._eos_ids, self._tokenizer, grammar, root))

    def _start_grammar(self, params: SamplingParams) -> GrammarState | None:
        if params.grammar is None:
            return None
        if self._grammars is None:
            if self._tokenizer is None or not self._eos_ids:
                raise ValueError("grammars need a tokenizer and an end-of-turn token")
            self._grammars = Grammars(self._tokenizer, min(self._eos_ids), self._forward.vocabulary)
        return self._grammars.start(params.grammar)

    def _check(self, request: GenerationRequest) -> None:
        check_request(request, self.max_length, has_tokenizer=self._tokenizer is not None)
        params = request.params
        if params.max_tokens < 0 or (params.max_tokens == 0 and not params.prompt_logprobs):
            raise ValueError("max_tokens is at least 1, or 0 with prompt_logprobs")
        if request.adapter is not None and request.adapter not in self._adapters:
            raise ValueError(f"there is no adapter {request.adapter!r}")
        top = max([*request.prompt_ids, *params.logit_bias])
        if top >= self._forward.vocabulary or min([*request.prompt_ids, *params.logit_bias]) < 0:
            raise ValueError(f"token ids are from 0 to {self._forward.vocabulary - 1}")

    def cancel(self, request_id: str) -> None:
        """Drop a request and free its slot. No event follows. Unknown ids are ignored."""
        waiting = [state for state in self._waiting if state.request.id == request_id]
        for state in waiting:
            self._waiting.remove(state)
            self._free_adapter(state.root)
        for state in [state for state in self._running if state.request.id == request_id]:
            self._release(state)
        self._postponed = [event for event in self._postponed if event.request_id != request_id]

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
        """Give slots to waiting requests, first come first served, while the cache has room for all that they may reach."""
        while self._waiting:
            needed = self._waiting[0].length_limit
            missing = self.cache.reserved + self._prefixes.tokens + needed - self.cache.capacity
            if missing > 0 and self.cache.has_free_slot:
                self._prefixes.drop(missing)
            slot = self.cache.reserve(needed, self._prefixes.tokens)
            if slot is None:
                return
            state = self._waiting.popleft()
            state.slot = slot
            self._running.append(state)
            self._prompt_tokens += state.n_prompt

    def _plan(self) -> list[tuple[RunningRequest, int]]:
        """Return the requests of this step with the number of their tokens to compute, by adapter."""
        decoding = [state for state in self._running if state.is_decoding]
        plan = []
        n_drafts = min(self.options.draft_tokens, self.options.step_tokens // len(decoding) - 1) if decoding else 0
        for state in decoding:
            state.draft(n_drafts)
            plan.append((state, 1 + len(state.drafts)))
        budget = self.options.prompt_tokens if decoding else self.options.idle_prompt_tokens
        plan += self._plan_prompts(budget)
        return sorted(plan, key=lambda item: item[0].root) if self._n_adapters else plan

    def _plan_prompts(self, budget: int) -> list[tuple[RunningRequest, int]]:
        """Return parts of prompts, the oldest first. A prompt waits while another one that begins alike is computed."""
        plan: list[tuple[RunningRequest, int]] = []
        for state in self._running:
            if state.is_decoding:
                continue
            if budget <= 0:
                break
            if self.options.prefix_cache and state.prompt_logprobs is None and not state.n_computed:
                if self._waits_for_prefix(state, [other for other, _ in plan]):
                    continue
                self._load_prefix(state)
            count = min(budget, state.n_prompt - state.n_computed)
            plan.append((state, count))
            budget -= count
        return plan

    def _waits_for_prefix(self, state: RunningRequest, others: Sequence[RunningRequest]) -> bool:
        """Whether one of `others`, whose prompts are being computed, will give `state` more than the prefix cache has."""
        end = self._prefixes.known(state.tokens, state.root) + BLOCK
        beginning = state.tokens[:end]
        return end < state.n_prompt and any(
            other.root == state.root and other.n_prompt >= end and other.tokens[:end] == beginning for other in others
        )

    def _load_prefix(self, state: RunningRequest) -> None:
        """Copy what the prefix cache has of a prompt into its slot."""
        state.cached_tokens = state.n_computed = self._prefixes.load(state.tokens, state.root, state.slot)
        self._cached_prompt_tokens += state.cached_tokens
        self.cache.touch(state.slot, state.n_computed)

    def _compute(self, plan: Sequence[tuple[RunningRequest, int]]) -> None:
        """Compute the tokens of the plan, and what follows from their logits."""
        ids: list[int] = []
        rows: list[int] = []
        row_counts = []
        for state, count in plan:
            first = state.n_computed
            ids += (state.tokens[first : first + count] + state.drafts)[:count]
            row_counts.append(_rows_needed(state, count))
            rows += range(len(ids) - row_counts[-1], len(ids))
            self.cache.touch(state.slot, first + count)
        segments = CacheSegments(self.cache, [Span(state.slot, state.n_computed, count) for state, count in plan])
        segments.adapters = _adapter_spans(plan)
        device = self._forward.device
        if self._forward.history_tokens:
            segments.history_TN = torch.tensor(_histories(plan, self._forward.history_tokens), device=device)
        ids_T, rows_R = torch.tensor(ids, device=device), torch.tensor(rows, dtype=torch.long, device=device)
        self._use(plan, self._forward(ids_T, segments, rows_R).cpu(), row_counts)

    def _use(self, plan: Sequence[tuple[RunningRequest, int]], logits_RV: torch.Tensor, row_counts: list[int]) -> None:
        """Take each request's next tokens from its rows of logits."""
        values, indices = logits_RV.max(-1)
        is_finite, best = torch.isfinite(values).tolist(), indices.tolist()
        row = 0
        for (state, count), n_rows in zip(plan, row_counts, strict=True):
            logits, likeliest = logits_RV[row : row + n_rows], best[row : row + n_rows]
            is_sound = all(is_finite[row : row + n_rows])
            row += n_rows
            state.n_computed += count - len(state.drafts)
            if not is_sound:
                state.fail("the model's logits are not finite")
                self.cache.clear(state.slot)
                continue
            needs_logprobs = n_rows and (state.params.logprobs is not None or state.prompt_logprobs is not None)
            logprobs = torch.log_softmax(logits, -1) if needs_logprobs else None
            if state.prompt_logprobs is not None and logprobs is not None:
                state.note_prompt_rows(logprobs)
            if state.n_computed < len(state.tokens):
                continue
            if state.n_computed == state.n_prompt:
                self._store_prefix(state)
            if state.params.max_tokens == 0:
                state.finish_reason = "length"
                continue
            n_last = len(state.drafts) + 1
            logprobs = None if logprobs is None else logprobs[-n_last:]
            self._generated_tokens += state.verify(logits[-n_last:], likeliest[-n_last:], logprobs)

    def _collect(self, plan: Sequence[tuple[RunningRequest, int]]) -> list[GenerationEvent]:
        """Return an event for each request that got a token, and free the slots of those that ended."""
        events = []
        for state, _ in plan:
            if state.has_news:
                events.append(state.take_event())
            if state.finish_reason is not None:
                self._release(state)
        return events

    def _store_prefix(self, state: RunningRequest) -> None:
        """Copy what is computed of a request to the prefix cache."""
        if self.options.prefix_cache and not state.request.id.startswith(_SCORE):
            self._prefixes.store(state.tokens[: state.n_computed], state.root, state.slot)

    def _release(self, state: RunningRequest) -> None:
        """Free the slot of a request, and remember its answer as the beginning of prompts that go on from it."""
        if state.is_decoding and state.finish_reason != "error":
            self._store_prefix(state)
        self._running.remove(state)
        self.cache.free(state.slot)
        self._free_adapter(state.root)

    def score(self, sequences: Sequence[Sequence[int]], adapter: str | None = None) -> list[np.ndarray]:
        """Return the log-probability of each token after the first, given those before it: float32, (T - 1,) each.

        Requests that run get their tokens meanwhile; the next `step` returns them.
        """
        params = SamplingParams(max_tokens=0, prompt_logprobs=True)
        requests = [GenerationRequest(f"{_SCORE}{index}", ids, params, adapter) for index, ids in enumerate(sequences)]
        for request in requests:
            self._check(request)
        root = self._adapters[adapter] if adapter is not None else 0
        states = [RunningRequest(request, root=root) for request in requests]
        self._waiting.extend(states)
        while any(state.finish_reason is None for state in states):
            self._postponed += [event for event in self._step() if not event.request_id.startswith(_SCORE)]
        return [
            np.array([entry.logprob for entry in state.prompt_logprobs or () if entry is not None], np.float32)
            for state in states
        ]

    def stats(self) -> EngineStats:
        """Return the load and the counts."""
        return EngineStats(
            running=len(self._running),
            waiting=len(self._waiting),
            cache_tokens=sum(state.n_computed for state in self._running) + self._prefixes.tokens,
            cache_capacity=self.options.cache_tokens,
            prompt_tokens=self._prompt_tokens,
            cached_prompt_tokens=self._cached_prompt_tokens,
            generated_tokens=self._generated_tokens,
        )

    def close(self) -> None:
        """Drop all requests and free the model."""
        self._waiting.clear()
        self._running.clear()
        self._postponed.clear()
        del self._forward, self._prefixes, self.cache


def _rows_needed(state: RunningRequest, count: int) -> int:
    """Return how many of the last tokens of a span need logits."""
    if state.is_decoding or (state.prompt_logprobs is not None and state.n_computed < state.n_prompt):
        return count
    return 1 if state.n_computed + count == len(state.tokens) else 0


def _adapter_spans(plan: Sequence[tuple[RunningRequest, int]]) -> list[AdapterSpan]:
    """Return the tokens of each adapter."""
    spans = []
    start = 0
    for root, items in groupby(plan, key=lambda item: item[0].root):
        stop = start + sum(count for _, count in items)
        if root:
            spans.append(AdapterSpan(root, start, stop))
        start = stop
    return spans


def _histories(plan: Sequence[tuple[RunningRequest, int]], n_tokens: int) -> list[list[int]]:
    """Return the tokens before each token of the step, the nearest first, -1 where there is none."""
    histories = []
    for state, count in plan:
        tokens = state.tokens + state.drafts
        for position in range(state.n_computed, state.n_computed + count):
            before = tokens[max(0, position - n_tokens) : position][::-1]
            histories.append(before + [-1] * (n_tokens - len(before)))
    return histories
