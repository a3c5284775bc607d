"""The tokens of one step of the engine, side by side, over the slots of the cache.

Letters in shapes: T tokens of the step, H heads, K heads of keys and values, G = H / K, D width of a head, S slots,
Q tokens of one slot, N tokens of a slot in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from trainer.generation.adapters import AdapterSpan
from trainer.generation.cache import KeyValueCache

#: What is added to the score of a key that a query does not see. Finite: a row without any key must not become NaN.
_HIDDEN = -1e30


class Span(NamedTuple):
    """Tokens of one slot that the step computes: those at positions `start` to `start + n_tokens`."""

    slot: int
    start: int
    n_tokens: int


class CacheSegments:
    """The spans of a step, in order. Implements `trainer.models.causal.attention.Segments`.

    Spans of up to `max_batched` tokens are computed together, padded to the longest of them; a longer one (a part of a
    prompt), or one whose slot holds far more tokens than the others', is computed alone.
    """

    def __init__(self, cache: KeyValueCache, spans: Sequence[Span], max_batched: int = 8) -> None:
        self.cache, self.spans = cache, spans
        device = cache.tensor.device
        self.slots_T = torch.tensor([span.slot for span in spans for _ in range(span.n_tokens)], device=device)
        self.positions_T = torch.tensor(
            [position for span in spans for position in range(span.start, span.start + span.n_tokens)], device=device
        )
        shape = cache.shape
        heads = torch.arange(shape.heads, device=device)
        #: Where the key of each token goes among the rows of the layer's cache, (T * K,); the value's rows come after.
        self.key_rows = (
            (self.slots_T[:, None] * shape.heads + heads) * cache.max_length + self.positions_T[:, None]
        ).view(-1)
        self._value_offset = cache.n_slots * shape.heads * cache.max_length
        self.value_rows = self.key_rows + self._value_offset
        #: The rows of keys and then values by token, (T * 2 * K,).
        self.joint_rows = torch.stack(
            [rows.view(-1, shape.heads) for rows in (self.key_rows, self.value_rows)], 1
        ).view(-1)
        self._choose_batch(max_batched)
        self._masks: dict[tuple[int, int | None], torch.Tensor | None] = {}
        self.adapters: Sequence[AdapterSpan] = ()
        """The tokens that adapters compute; the base computes the others."""
        self.history_TN: torch.Tensor | None = None
        """The tokens before each one, the nearest first and -1 where there is none, for models that need them."""

    def _choose_batch(self, max_batched: int) -> None:
        """Split the spans into those computed together and those computed alone."""
        starts = [0]
        for span in self.spans:
            starts.append(starts[-1] + span.n_tokens)
        short = [index for index, span in enumerate(self.spans) if span.n_tokens <= max_batched]
        self.length = _padded_length([self.spans[index].start + self.spans[index].n_tokens for index in short])
        batch = [index for index in short if self.spans[index].start + self.spans[index].n_tokens <= self.length]
        alone = set(range(len(self.spans))) - set(batch)
        self.alone = [(self.spans[index], starts[index]) for index in sorted(alone)]
        self.batch = [self.spans[index] for index in batch]
        self.n_slots = max((span.slot for span in self.batch), default=-1) + 1
        self.queries = max((span.n_tokens for span in self.batch), default=0)
        # Token of each (slot, query) of the padded batch, and back.
        tokens, targets = [], []
        for index, span in zip(batch, self.batch, strict=True):
            for offset in range(span.n_tokens):
                tokens.append(starts[index] + offset)
                targets.append(span.slot * self.queries + offset)
        self._whole = not self.alone and targets == list(range(self.n_slots * self.queries)) == tokens
        self._tokens = torch.tensor(tokens, dtype=torch.long, device=self.cache.tensor.device)
        self._targets = torch.tensor(targets, dtype=torch.long, device=self.cache.tensor.device)

    def attend(
        self,
        layer: int,
        query_HTD: torch.Tensor,
        key_KTD: torch.Tensor,
        value_KTD: torch.Tensor,
        scale: float,
        window: int | None,
    ) -> torch.Tensor:
        """Write keys and values to the cache and return the attention's output, shape (T, H, D)."""
        rows, width = self.cache.rows[layer], self.cache.shape.width
        rows.index_copy_(0, self.key_rows, key_KTD.transpose(0, 1).reshape(-1, width))
        rows.index_copy_(0, self.value_rows, value_KTD.transpose(0, 1).reshape(-1, width))
        return self.attend_cached(layer, query_HTD.transpose(0, 1), scale, window)

    def attend_cached(self, layer: int, query_THD: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
        """Return the attention's output, shape (T, H, D), over keys and values that are in the cache already."""
        if self._whole:
            return self._attend_batch(layer, query_THD, scale, window)
        output_THD = torch.empty_like(query_THD, memory_format=torch.contiguous_format)
        if self.batch:
            padded = query_THD.new_zeros(self.n_slots * self.queries, *query_THD.shape[1:])
            padded.index_copy_(0, self._targets, query_THD.index_select(0, self._tokens))
            batch = self._attend_batch(layer, padded, scale, window)
            output_THD.index_copy_(0, self._tokens, batch.index_select(0, self._targets))
        for span, first in self.alone:
            query = query_THD[first : first + span.n_tokens]
            output_THD[first : first + span.n_tokens] = self._attend_span(layer, span, query, scale, window)
        return output_THD

    def _attend_batch(self, layer: int, query: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
        """Return the output (S * Q, H, D) of the first S slots with Q queries each."""
        heads, width = self.cache.shape.heads, self.cache.shape.width
        slots, queries, length = self.n_slots, self.queries, self.length
        states = self.cache.layers[layer][:, :slots, :, :length].flatten(1, 2)  # (2, S * K, N, D), no copy
        grouped = query.view(slots, queries, heads, -1, width).transpose(1, 2)
        grouped = grouped.reshape(slots * heads, -1, width)  # (S * K, Q * G, D)
        scores = torch.baddbmm(
            self._batch_mask(window, grouped.shape[1]), grouped, states[0].transpose(1, 2), alpha=scale
        )
        output = torch.bmm(torch.softmax(scores, -1), states[1])
        return output.view(slots, heads, queries, -1, width).transpose(1, 2).reshape(slots * queries, -1, width)

    def _batch_mask(self, window: int | None, rows: int) -> torch.Tensor:
        """Return what is added to the scores: shape (S * K, Q * G, N)."""
        mask = self._masks.get((-1, window))
        if mask is None:
            last = torch.full((self.n_slots, self.queries), -1)
            for span in self.batch:
                last[span.slot, : span.n_tokens] = torch.arange(span.start, span.start + span.n_tokens)
            distance = last[..., None] - torch.arange(self.length)
            seen = distance >= 0 if window is None else (distance >= 0) & (distance < window)
            heads = self.cache.shape.heads
            mask = torch.where(seen, 0.0, _HIDDEN)[:, None, :, None]
            mask = mask.expand(-1, heads, -1, rows // self.queries, -1).reshape(-1, rows, self.length)
            self._masks[-1, window] = mask = mask.to(self.cache.tensor)
        return mask

    def _attend_span(
        self, layer: int, span: Span, query_QHD: torch.Tensor, scale: float, window: int | None
    ) -> torch.Tensor:
        """Return the output (Q, H, D) of one span."""
        end = span.start + span.n_tokens
        first = 0 if window is None else max(0, span.start + 1 - window)
        key, value = self.cache.layers[layer][:, span.slot, :, first:end]
        query = query_QHD.transpose(0, 1)
        mask = self._span_mask(span, first, window)
        output = torch.nn.functional.scaled_dot_product_attention(
            query[None],
            key[None],
            value[None],
            mask,
            is_causal=mask is None and span.n_tokens > 1,
            scale=scale,
            enable_gqa=query.shape[0] != key.shape[0],
        )
        return output[0].transpose(0, 1)

    def _span_mask(self, span: Span, first: int, window: int | None) -> torch.Tensor | None:
        """Return which keys from `first` on each query of a span sees, bool (Q, N); None if all before it."""
        if span.n_tokens == 1 or (not span.start and window is None):
            return None
        if (span.slot, window) not in self._masks:
            positions = torch.arange(first, span.start + span.n_tokens, device=self.cache.tensor.device)
            distance = positions[span.start - first :, None] - positions
            self._masks[span.slot, window] = distance >= 0 if window is None else (distance >= 0) & (distance < window)
        return self._masks[span.slot, window]


def _padded_length(lengths: Sequence[int], call: int = 64) -> int:
    """Return the length to which spans are padded together; longer ones are computed alone.

    It makes the work smallest: `len(lengths)` times the padded length, and the longer spans alone, with `call` tokens' worth
    of work for each call.
    """
    ordered = sorted(lengths)
    best, alone, work = 0, 0, None
    for count in range(len(ordered), 0, -1):
        cost = ordered[count - 1] * len(ordered) + alone
        if work is None or cost < work:
            best, work = ordered[count - 1], cost
        alone += ordered[count - 1] + call
    return best
