"""The state of one request in the engine: its tokens, what of them is computed, and how its answer grows."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import torch

from trainer.generation.engine import FinishReason, GenerationEvent, GenerationRequest, TokenLogprob
from trainer.generation.lookup import PromptLookup
from trainer.generation.sampling import TokenSampler, token_logprobs
from trainer.generation.text import StopStrings, TokenText

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from trainer.generation.grammar import GrammarState


class RunningRequest:
    """A request that waits or runs."""

    def __init__(
        self,
        request: GenerationRequest,
        eos_ids: Collection[int] = (),
        tokenizer: Tokenizer | None = None,
        grammar: GrammarState | None = None,
        root: int = 0,
    ) -> None:
        """`root` is the number of the request's adapter; 0 for the base."""
        self.request, self.params = request, request.params
        self.tokens = [int(token) for token in request.prompt_ids]
        """The prompt, and the answer so far."""
        self.n_prompt = len(self.tokens)
        self.n_computed = 0
        """Tokens whose keys and values are in the slot. A request decodes once one token is left to compute."""
        self.slot = -1
        self.root = root
        self.lookup = PromptLookup()
        self.sampler = TokenSampler(request.params, request.prompt_ids)
        self.grammar = grammar
        self.drafts: list[int] = []
        """Tokens that may follow, to be verified in the next step."""
        self._eos_ids = eos_ids
        self._text = TokenText(tokenizer) if tokenizer is not None else None
        self._stops = StopStrings(request.params.stop)
        self.cached_tokens = 0
        self.prompt_logprobs: list[TokenLogprob | None] | None = [None] if request.params.prompt_logprobs else None
        self._is_first_event = True
        self.finish_reason: FinishReason | None = None
        self.error = ""
        self._new_ids: list[int] = []
        self._new_text = ""
        self._new_logprobs: list[TokenLogprob] = []

    @property
    def length_limit(self) -> int:
        """The most tokens that the slot must hold."""
        return self.n_prompt + self.params.max_tokens

    @property
    def is_decoding(self) -> bool:
        """Whether the prompt is computed, except for the last token."""
        return self.n_computed >= self.n_prompt

    def draft(self, n_most: int) -> None:
        """Choose up to `n_most` tokens to verify in the next step."""
        n_most = min(n_most, self.length_limit - len(self.tokens) - 1)
        self.drafts = []
        if n_most < 1:
            return
        if self.grammar is not None:
            self.drafts = self.grammar.forced()[:n_most]
        self.drafts = self.drafts or self.lookup.draft(self.tokens, n_most)

    def note_prompt_rows(self, logprobs_RV: torch.Tensor) -> None:
        """Note the prompt's log-probabilities from the rows of the tokens that were just computed."""
        assert self.prompt_logprobs is not None
        first = len(self.prompt_logprobs) - 1
        for row in logprobs_RV[: self.n_prompt - 1 - first]:
            token = self.tokens[len(self.prompt_logprobs)]
            self.prompt_logprobs.append(token_logprobs(row, token, self.params.logprobs or 0))

    def verify(self, logits_RV: torch.Tensor, best: list[int], logprobs_RV: torch.Tensor | None) -> int:
        """Choose the next token, and go on while it is the drafted one. Return how many tokens were added.

        Row 0 follows the last token, row n the n-th draft.
        """
        drafts, self.drafts = self.drafts, []
        n_added = 0
        for row in range(len(drafts) + 1):
            logprobs_V = None if logprobs_RV is None else logprobs_RV[row]
            token = self.accept(logits_RV[row], best[row], logprobs_V)
            n_added += 1
            if self.finish_reason is not None or row == len(drafts) or drafts[row] != token:
                break
        self.lookup.note(len(drafts), n_added - 1)
        self.n_computed += n_added - 1
        return n_added

    def fail(self, message: str) -> None:
        """End the request with an error."""
        self.finish_reason, self.error = "error", message

    @property
    def is_plain(self) -> bool:
        """Whether each token is the one of the largest logit, whatever came before."""
        return self.sampler.is_plain and self.grammar is None

    def accept(self, logits_V: torch.Tensor, best: int, logprobs_V: torch.Tensor | None) -> int:
        """Choose the next token and add it to the answer; return it. `best` is the token of the largest logit."""
        if self.is_plain:
            token = best
        else:
            token = self.sampler.choose(logits_V, None if self.grammar is None else self.grammar.mask())
        self.sampler.note(token)
        self.tokens.append(token)
        self._new_ids.append(token)
        if logprobs_V is not None:
            self._new_logprobs.append(token_logprobs(logprobs_V, token, self.params.logprobs or 0))
        self._grow(token)
        return token

    def _grow(self, token: int) -> None:
        """Add the token's text, and decide whether the answer ends."""
        if self.grammar is not None:
            self.grammar.accept(token)
        if token in self._eos_ids and not self.params.ignore_eos:
            self._finish("stop")
            return
        if self._text is not None:
            self._new_text += self._stops.add(self._text.add(token))
        if self._stops.is_complete:
            self.finish_reason = "stop"
        elif self.grammar is not None and self.grammar.is_complete:
            self._finish("stop")
        elif len(self.tokens) >= self.length_limit:
            self._finish("length")

    def _finish(self, reason: FinishReason) -> None:
        if self._text is not None:
            self._new_text += self._stops.add(self._text.finish())
            if not self._stops.is_complete:
                self._new_text += self._stops.finish()
        self.finish_reason = "stop" if self._stops.is_complete else reason

    @property
    def has_news(self) -> bool:
        """Whether an event is due."""
        return bool(self._new_ids) or self.finish_reason is not None

    def take_event(self) -> GenerationEvent:
        """Return what was added since the last event."""
        event = GenerationEvent(
            self.request.id,
            self._new_ids,
            self._new_text,
            self._new_logprobs,
            self.finish_reason,
            self.error,
            prompt_logprobs=self.prompt_logprobs if self._is_first_event else None,
            cached_tokens=self.cached_tokens if self._is_first_event else 0,
        )
        self._is_first_event = False
        self._new_ids, self._new_text, self._new_logprobs = [], "", []
        return event
