"""Sequences side by side in one row, without padding: the attention of training and evaluation.

Letters in shapes: T tokens of all sequences, H heads, K heads of keys and values, D width of a head, S sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch

from trainer.models.causal.varlen import varlen_attention
from trainer.models.causal.windowed import windowed_attention


class PackedSegments:
    """Sequences of the given lengths, one after the other. Implements `trainer.models.causal.attention.Segments`."""

    def __init__(self, lengths: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.lengths = tuple(lengths)
        self.longest = max(self.lengths)
        self.device = torch.device(device)
        # Neighbors of one length are computed in one call: (number of sequences, length).
        self._runs = [(len(list(run)), length) for length, run in groupby(self.lengths)]
        self._borders: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> PackedSegments:
        """Return the same segments for tensors on `device`."""
        return self if torch.device(device) == self.device else PackedSegments(self.lengths, device)

    @property
    def borders(self) -> torch.Tensor:
        """Where each sequence starts, and the end of the last one: int32, shape (S + 1,)."""
        if self._borders is None:
            ends = torch.tensor([0, *self.lengths]).cumsum(0)
            self._borders = ends.to(self.device, torch.int32)
        return self._borders

    def attend(
        self,
        layer: int,
        query_HTD: torch.Tensor,
        key_KTD: torch.Tensor,
        value_KTD: torch.Tensor,
        scale: float,
        window: int | None,
    ) -> torch.Tensor:
        """Return the attention's output, shape (T, H, D). A token sees its own sequence up to itself."""
        if query_HTD.is_cuda:
            return varlen_attention(query_HTD, key_KTD, value_KTD, self.borders, self.longest, scale, window)
        return self._attend_by_sequence(query_HTD, key_KTD, value_KTD, scale, window)

    def _attend_by_sequence(
        self, query_HTD: torch.Tensor, key_KTD: torch.Tensor, value_KTD: torch.Tensor, scale: float, window: int | None
    ) -> torch.Tensor:
        # `split` and `cat`, not slices: the gradient of a slice is a tensor of the whole length.
        sizes = [count * length for count, length in self._runs]
        parts = zip(
            query_HTD.split(sizes, 1), key_KTD.split(sizes, 1), value_KTD.split(sizes, 1), self._runs, strict=True
        )
        outputs = [_attend_equal(query, key, value, run[0], scale, window) for query, key, value, run in parts]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _attend_equal(
    query_HTD: torch.Tensor,
    key_KTD: torch.Tensor,
    value_KTD: torch.Tensor,
    count: int,
    scale: float,
    window: int | None,
) -> torch.Tensor:
    """Return the output (T, H, D) of `count` sequences of equal length."""
    length = query_HTD.shape[1] // count
    query, key, value = (
        states.unflatten(1, (count, length)).transpose(0, 1) for states in (query_HTD, key_KTD, value_KTD)
    )
    if window is not None and length >= 2 * window:
        return windowed_attention(query, key, value, window, scale).transpose(1, 2).flatten(0, 1)
    mask = None if window is None or window >= length else window_mask(length, window, query_HTD.device)
    if query.is_meta:  # there, torch would choose attention with scores in memory, which no device uses
        groups = query.shape[1] // key.shape[1]
        keys, values = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        output = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, keys, values, 0.0, True)[0]
        return output.transpose(1, 2).flatten(0, 1)
    output_SHTD = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, mask, is_causal=mask is None, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )
    return output_SHTD.transpose(1, 2).flatten(0, 1)


def window_mask(length: int, window: int, device: torch.device | str) -> torch.Tensor:
    """Return which keys each query sees, bool of shape (length, length): the last `window` ones up to itself."""
    positions = torch.arange(length, device=device)
    distances = positions[:, None] - positions[None]
    return (distances >= 0) & (distances < window)


def position_ids(lengths: Sequence[int]) -> Any:
    """Return the position of each token in its own sequence, int64, shape (1, T)."""
    return torch.cat([torch.arange(length) for length in lengths])[None]
