"""Attention in which a token sees the last few tokens only, in time and memory that grow with the length, not its square.

Queries are cut into blocks as long as the window. A block's queries see keys of their own block and of the one before.

Letters in shapes: S sequences of one length, H heads, K heads of keys and values, T tokens, D width of a head, N blocks,
W tokens of the window.
"""

from __future__ import annotations

import torch


def windowed_attention(
    query_SHTD: torch.Tensor, key_SKTD: torch.Tensor, value_SKTD: torch.Tensor, window: int, scale: float
) -> torch.Tensor:
    """Return the output (S, H, T, D). A token sees the last `window` tokens, itself included."""
    length = query_SHTD.shape[2]
    query = _blocks(query_SHTD, window)
    key, value = (_pairs(_blocks(states, window)) for states in (key_SKTD, value_SKTD))
    n_blocks = query.shape[1]
    mask = _block_mask(window, n_blocks, query.device)
    mask = mask.expand(len(query_SHTD), n_blocks, window, 2 * window).flatten(0, 1)[:, None]
    output = torch.nn.functional.scaled_dot_product_attention(
        query.flatten(0, 1),
        key.flatten(0, 1),
        value.flatten(0, 1),
        mask,
        scale=scale,
        enable_gqa=query.shape[2] != key.shape[2],
    )
    blocks_SNHWD = output.unflatten(0, (-1, n_blocks))
    return blocks_SNHWD.transpose(1, 2).flatten(2, 3)[:, :, :length]


def _blocks(states_SHTD: torch.Tensor, window: int) -> torch.Tensor:
    """Return the states in blocks (S, N, H, W, D); the last one is filled with zeros."""
    missing = -states_SHTD.shape[2] % window
    padded = torch.nn.functional.pad(states_SHTD, (0, 0, 0, missing)) if missing else states_SHTD
    return padded.unflatten(2, (-1, window)).transpose(1, 2)


def _pairs(blocks_SNHWD: torch.Tensor) -> torch.Tensor:
    """Return each block behind the one before it: (S, N, H, 2 W, D). Before the first one are zeros."""
    before = torch.nn.functional.pad(blocks_SNHWD[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
    return torch.cat([before, blocks_SNHWD], 3)


def _block_mask(window: int, n_blocks: int, device: torch.device) -> torch.Tensor:
    """Return which of the keys of two blocks the queries of the second one see: bool, (N, W, 2 W)."""
    queries = torch.arange(window, 2 * window, device=device)
    keys = torch.arange(2 * window, device=device)
    distances = queries[:, None] - keys[None]
    mask = ((distances >= 0) & (distances < window)).repeat(n_blocks, 1, 1)
    mask[0, :, :window] = False
    return mask
