"""How the next token is chosen from logits.

Each request draws from a generator of its own, one number a token, so an answer does not depend on what else the engine
computes. Letters in shapes: V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from trainer.generation.engine import SamplingParams, TokenLogprob

#: Candidates that are looked at before all tokens are sorted: most often they hold the whole of `top_p`.
_FIRST_CANDIDATES = 256


class TokenSampler:
    """Chooses the tokens of one request."""

    def __init__(self, params: SamplingParams, prompt_ids: Sequence[int]) -> None:
        self.params = params
        self._generator = np.random.Generator(np.random.PCG64(params.seed % 2**63))
        self._generated: Counter[int] = Counter()
        self._has_penalty = bool(params.presence_penalty or params.frequency_penalty)
        self._seen = set(prompt_ids) if params.repetition_penalty != 1.0 else set()
        self._bias = None
        if params.logit_bias:
            self._bias = (
                torch.tensor(list(params.logit_bias), dtype=torch.long),
                torch.tensor(list(params.logit_bias.values()), dtype=torch.float32),
            )
        #: Whether the answer is always the token of the largest logit, so that rows can be decided together.
        self.is_plain = (
            params.temperature == 0
            and not self._has_penalty
            and self._bias is None
            and params.repetition_penalty == 1.0
        )

    def choose(self, logits_V: torch.Tensor, mask_V: torch.Tensor | None = None) -> int:
        """Return the next token. `mask_V` is added to the logits: 0, or minus infinity for tokens that are not allowed."""
        logits_V = self._adjusted(logits_V)
        if mask_V is not None:
            logits_V = logits_V + mask_V
        if self.params.temperature == 0:
            return int(logits_V.argmax())
        return self._draw(logits_V.float() / self.params.temperature)

    def note(self, token_id: int) -> None:
        """Note that the token is part of the answer."""
        if self._has_penalty:
            self._generated[token_id] += 1
        if self.params.repetition_penalty != 1.0:
            self._seen.add(token_id)

    def _adjusted(self, logits_V: torch.Tensor) -> torch.Tensor:
        """Return the logits with bias and penalties."""
        params = self.params
        if self.is_plain or not (self._bias or self._seen or self._generated):
            return logits_V
        logits_V = logits_V.float().clone()
        if self._seen:
            ids = torch.tensor(sorted(self._seen), dtype=torch.long)
            values = logits_V[ids]
            factor = params.repetition_penalty
            logits_V[ids] = torch.where(values > 0, values / factor, values * factor)
        if self._generated:
            ids = torch.tensor(list(self._generated), dtype=torch.long)
            counts = torch.tensor(list(self._generated.values()), dtype=torch.float32)
            logits_V[ids] -= params.presence_penalty + params.frequency_penalty * counts
        if self._bias is not None:
            logits_V[self._bias[0]] += self._bias[1]
        return logits_V

    def _draw(self, logits_V: torch.Tensor) -> int:
        """Return a token drawn by its probability among those that `top_k`, `top_p` and `min_p` leave."""
        number = self._generator.random()
        top_k, top_p, min_p = self.params.top_k, self.params.top_p, self.params.min_p
        if not top_k and top_p >= 1 and min_p <= 0:
            return _invert(torch.softmax(logits_V, -1), number)
        total = torch.logsumexp(logits_V, -1)
        vocabulary = logits_V.shape[-1]
        count = min(top_k or vocabulary, vocabulary)
        size = min(count, _FIRST_CANDIDATES)
        while True:
            values, ids = logits_V.topk(size)
            probabilities = (values - total).exp()
            if size == count or _holds_all(probabilities, top_p if not top_k else 1.0, min_p):
                break
            size = count
        if top_k:
            probabilities = probabilities / probabilities.sum()
        return int(ids[_invert(_truncated(probabilities, top_p, min_p), number)])


def _holds_all(probabilities: torch.Tensor, top_p: float, min_p: float) -> bool:
    """Return whether the tokens after the given ones, the most probable first, are all left out."""
    if top_p < 1 and float(probabilities.double().sum()) >= top_p:
        return True
    return min_p > 0 and bool(probabilities[-1] < min_p * probabilities[0])


def _truncated(probabilities: torch.Tensor, top_p: float, min_p: float) -> torch.Tensor:
    """Return the probabilities, the largest first, with 0 for tokens that are left out."""
    if top_p < 1:  # the first token is always in, and the one that reaches `top_p` too
        before = probabilities.double().cumsum(0) - probabilities.double()
        probabilities = probabilities.masked_fill(before >= top_p, 0.0)
        if not bool(probabilities[0] > 0):
            probabilities = probabilities.clone()
            probabilities[0] = 1.0
    if min_p > 0:
        probabilities = probabilities.masked_fill(probabilities < min_p * probabilities[0], 0.0)
    return probabilities


def _invert(weights: torch.Tensor, number: float) -> int:
    """Return the index at which the running sum of `weights` passes the share `number` of their sum."""
    sums = weights.double().cumsum(0)
    index = int(torch.searchsorted(sums, number * float(sums[-1]), right=True))
    return min(index, len(weights) - 1)


def token_logprobs(logprobs_V: torch.Tensor, token_id: int, n_top: int) -> TokenLogprob:
    """Return the log-probability of a token, and the `n_top` most probable ones, the most probable first."""
    top: tuple[tuple[int, float], ...] = ()
    if n_top:
        values, ids = logprobs_V.topk(n_top)
        top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return TokenLogprob(token_id, float(logprobs_V[token_id]), top)
