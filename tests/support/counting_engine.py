"""A small deterministic engine: its answer to a prompt is a given text, or the prompt again, one token a step.

An implementation of `trainer.generation.engine.Engine` without a model, for tests of what is around engines.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from trainer.generation.engine import EngineFull, EngineStats, GenerationEvent, GenerationRequest, TokenLogprob
from trainer.generation.text import StopStrings, TokenText


class CountingEngine:
    """Answers every request with `text`, or with its own prompt, and counts steps."""

    def __init__(self, tokenizer: Tokenizer, text: str | None = None, *, max_length: int = 512, step_s: float = 0.0):
        self.tokenizer, self.text, self.max_length, self.step_s = tokenizer, text, max_length, step_s
        self.steps = 0
        self.added: list[str] = []
        self.requests: dict[str, GenerationRequest] = {}
        self.cancelled: list[str] = []
        self.failing = False
        self.stalled = False
        self.room = 1_000_000
        self._open: dict[str, tuple[list[int], TokenText, StopStrings]] = {}
        self._generated = self._prompt = 0

    @property
    def has_work(self) -> bool:
        return bool(self._open)

    def add(self, request: GenerationRequest) -> None:
        if len(self._open) >= self.room:
            raise EngineFull
        ids = list(request.prompt_ids) if self.text is None else self.tokenizer.encode(self.text).ids
        self._open[request.id] = (ids, TokenText(self.tokenizer), StopStrings(request.params.stop))
        self.requests[request.id] = request
        self.added.append(request.id)
        self._prompt += len(request.prompt_ids)

    def cancel(self, request_id: str) -> None:
        if self._open.pop(request_id, None):
            self.cancelled.append(request_id)

    def step(self) -> list[GenerationEvent]:
        self.steps += 1
        time.sleep(self.step_s)
        if self.failing:
            raise RuntimeError("a broken engine")
        if self.stalled:
            time.sleep(0.01)
            return []
        return [self._advance(request_id) for request_id in list(self._open)]

    def _advance(self, request_id: str) -> GenerationEvent:
        ids, text, stops = self._open[request_id]
        request = self.requests[request_id]
        params = request.params
        is_first = len(ids) == len(request.prompt_ids if self.text is None else self.tokenizer.encode(self.text).ids)
        known = None
        if is_first and params.prompt_logprobs:
            known = [None, *[TokenLogprob(token, -1.0, ((token, -1.0),)) for token in request.prompt_ids[1:]]]
        if params.max_tokens == 0:
            del self._open[request_id]
            return GenerationEvent(request_id, finish_reason="length", prompt_logprobs=known)
        token = ids.pop(0)
        piece = stops.add(text.add(token))
        n_new = len(request.prompt_ids) if self.text is None else len(self.tokenizer.encode(self.text).ids)
        reason = None
        if stops.is_complete or not ids:
            reason = "stop"
        elif n_new - len(ids) >= params.max_tokens:
            reason = "length"
        if reason:
            del self._open[request_id]
            piece += "" if stops.is_complete else stops.add(text.finish()) + stops.finish()
        self._generated += 1
        top = tuple((token + shift, -0.5 - shift) for shift in range(params.logprobs or 0))
        logprobs = [TokenLogprob(token, -0.5, top)] if params.logprobs is not None else []
        return GenerationEvent(request_id, [token], piece, logprobs, reason, prompt_logprobs=known)

    def score(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        return [np.full(len(sequence) - 1, -1.0, np.float32) for sequence in sequences]

    def stats(self) -> EngineStats:
        return EngineStats(len(self._open), 0, 7 * len(self._open), 1000, self._prompt, 0, self._generated)

    def close(self) -> None:
        self._open.clear()
