"""Attention of sequences of different lengths side by side on a GPU: flash-attn if it is installed, else torch's own.

Letters in shapes: T tokens of all sequences, H heads, K heads of keys and values, D width of a head, S sequences.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

_KERNEL_TYPES = (torch.bfloat16, torch.float16)


def varlen_attention(
    query_HTD: torch.Tensor,
    key_KTD: torch.Tensor,
    value_KTD: torch.Tensor,
    borders: torch.Tensor,
    longest: int,
    scale: float,
    window: int | None,
) -> torch.Tensor:
    """Return the causal attention within each sequence, shape (T, H, D).

    `borders` (S + 1,) int32 are the ends of the sequences, beginning with 0; `longest` is the longest one. A token sees
    itself and the `window - 1` tokens before it; all before it if `window` is None. The kernels compute in 16 bits:
    fp32 states go through a mask of blocks instead.
    """
    if query_HTD.dtype not in _KERNEL_TYPES:
        return _block_mask_attention(query_HTD, key_KTD, value_KTD, borders, scale, window)
    query_THD, key_TKD, value_TKD = (states.transpose(0, 1) for states in (query_HTD, key_KTD, value_KTD))
    sides = (-1 if window is None else window - 1, 0)
    flash = _flash_attention()
    if flash is not None:
        output: torch.Tensor = flash(
            query_THD, key_TKD, value_TKD, borders, borders, longest, longest,
            softmax_scale=scale, causal=True, window_size=sides,
        )  # fmt: skip
        return output
    from torch.nn.attention.varlen import varlen_attn

    result: torch.Tensor = varlen_attn(  # type: ignore[assignment]  # a pair only if it is asked for
        query_THD, key_TKD, value_TKD, borders, borders, longest, longest,
        scale=scale, window_size=sides, enable_gqa=query_THD.shape[1] != key_TKD.shape[1],
    )  # fmt: skip
    return result


@functools.cache
def _flash_attention() -> Any:
    """Return flash-attn's function for sequences of different lengths; None if the package is not installed."""
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError:
        return None
    return flash_attn_varlen_func


def _block_mask_attention(
    query_HTD: torch.Tensor,
    key_KTD: torch.Tensor,
    value_KTD: torch.Tensor,
    borders: torch.Tensor,
    scale: float,
    window: int | None,
) -> torch.Tensor:
    """Return the same with torch's own attention and a mask of all tokens: exact in any precision, and slower."""
    n_tokens = query_HTD.shape[1]
    positions = torch.arange(n_tokens, device=query_HTD.device)
    sequence = torch.searchsorted(borders, positions.to(torch.int32), right=True)
    distances = positions[:, None] - positions[None]
    mask = (sequence[:, None] == sequence[None]) & (distances >= 0)
    if window is not None:
        mask &= distances < window
    output_HTD = torch.nn.functional.scaled_dot_product_attention(
        query_HTD[None], key_KTD[None], value_KTD[None], mask, scale=scale,
        enable_gqa=query_HTD.shape[0] != key_KTD.shape[0],
    )[0]  # fmt: skip
    return output_HTD.transpose(0, 1)
