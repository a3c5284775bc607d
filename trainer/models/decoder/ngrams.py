"""Hashes of the last n tokens, which choose rows of a decoder's n-gram tables.

A hash depends on nothing but the ids, so a model that is saved and loaded finds the same rows on any machine.

Letters in shapes: B batch, T tokens, N tokens of history.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

#: The id in a history where the sequence has no token yet.
NO_TOKEN = -1

# Odd multipliers below 2**31. Hashes are cut to 31 bits before each product, so int64 never overflows.
_IDS, _MIX = 0x1E3779B1, 0x45EBCA6B
_BITS = 0x7FFFFFFF


def packed_history(ids_BT: torch.Tensor, position_ids: torch.Tensor, n_tokens: int) -> torch.Tensor:
    """Return the `n_tokens` tokens before each token of its own sequence, the nearest first: int64, (B, T, N).

    `position_ids` (1 or B, T) counts from 0 in each of the sequences that lie side by side; where a sequence has no
    token yet, the history is `NO_TOKEN`.
    """
    before = [
        torch.nn.functional.pad(ids_BT, (distance, 0), value=NO_TOKEN)[:, : ids_BT.shape[1]].masked_fill(
            position_ids < distance, NO_TOKEN
        )
        for distance in range(1, n_tokens + 1)
    ]
    return torch.stack(before, -1) if before else ids_BT.new_empty((*ids_BT.shape, 0))


def history_of(ids: Sequence[int], start: int, end: int, n_tokens: int) -> list[list[int]]:
    """Return the `n_tokens` tokens before each token of `ids[start:end]` as rows, the nearest first.

    The rows of a chunk's tokens are `history_ids` of a decoder that continues a sequence.
    """
    return [
        [ids[at - distance] if at >= distance else NO_TOKEN for distance in range(1, n_tokens + 1)]
        for at in range(start, end)
    ]


def ngram_rows(
    ids_BT: torch.Tensor, history_BTN: torch.Tensor, sizes: Sequence[int], n_rows: Sequence[int]
) -> list[torch.Tensor]:
    """Return the table rows (B, T) of the n-grams that end at each token, for each n of `sizes`, ascending.

    `n_rows` are the rows of each table.
    """
    rows = []
    mixed = _mix(ids_BT + 2)
    length = 1
    for size, count in zip(sizes, n_rows, strict=True):
        for distance in range(length, size):
            mixed = _mix(mixed * _IDS + history_BTN[..., distance - 1] + 2)
        length = size
        rows.append(mixed % count)
    return rows


def _mix(values: torch.Tensor) -> torch.Tensor:
    """Return 31 well-mixed bits of each value."""
    low = (values ^ (values >> 31)) & _BITS
    product = low * _MIX
    return (product ^ (product >> 29)) & _BITS
