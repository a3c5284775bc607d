"""The answer to one request while an engine of another library writes it: where it ends, and its text so far."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from trainer.generation.engine import FinishReason, GenerationEvent, GenerationRequest, TokenLogprob
from trainer.generation.text import StopStrings, TokenText

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class GrowingAnswer:
    """Turns an engine's tokens into events that end where the model's own engine would end them."""

    def __init__(self, request: GenerationRequest, tokenizer: Tokenizer | None, eos_ids: Collection[int]) -> None:
        self.request = request
        self._eos_ids = eos_ids
        self._text = TokenText(tokenizer) if tokenizer is not None else None
        self._stops = StopStrings(request.params.stop)
        self.n_tokens = 0
        self.is_finished = False

    def add(self, token_id: int, logprob: TokenLogprob | None = None) -> GenerationEvent:
        """Return the event of the next token."""
        self.n_tokens += 1
        params = self.request.params
        text, reason = "", None
        if token_id in self._eos_ids and not params.ignore_eos:
            text, reason = self._end("stop")
        else:
            if self._text is not None:
                text = self._stops.add(self._text.add(token_id))
            if self._stops.is_complete:
                reason = "stop"
            elif self.n_tokens >= params.max_tokens:
                rest, reason = self._end("length")
                text += rest
        self.is_finished = reason is not None
        logprobs = () if logprob is None else (logprob,)
        return GenerationEvent(self.request.id, (token_id,), text, logprobs, reason)

    def fail(self, problem: str) -> GenerationEvent:
        """Return the last event of an answer that the engine could not finish."""
        self.is_finished = True
        return GenerationEvent(self.request.id, finish_reason="error", error=problem)

    def _end(self, reason: FinishReason) -> tuple[str, FinishReason]:
        """Return the text that was held back, and the reason."""
        if self._text is None:
            return "", reason
        text = self._stops.add(self._text.finish())
        if self._stops.is_complete:
            return text, "stop"
        return text + self._stops.finish(), reason
