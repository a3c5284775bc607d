"""Deterministic dropout for CPUs: a row's mask depends on the row alone. It takes a tenth of torch's time.

torch draws masks one number at a time from a stateful generator, on one core, which takes a seventh of a MiniLM
training step. Here the mask of a row is a hash of (seed, epoch, step, the row's position in the step, dropout site),
computed for eight units at a time. So a row drops the same units on any worker and in any batch, and a resumed run
needs no generator state. On GPUs, torch's own dropout is fast and stays in use.

The hash is SplitMix64 (Steele, Lea, Flood 2014: Fast splittable pseudorandom number generators).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from trainer.optim.torch_internals import attention_implementation

_GOLDEN = 0x9E3779B97F4A7C15
# One increment for each axis of a mask. A unit's hash input is its row's key plus index * increment for each axis,
# modulo 2**64. Increments are odd, so that no two indices of an axis add the same number, and far from each other, so
# that sums over the axes differ too. Two units with the same input would always be dropped together.
_AXES = (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03, 0xAEF17502108EF2D9, 0xF1357AEA2E62A9C5)
_WORD = 2**64 - 1
# A dropout rate is rounded to a multiple of 1/256 if the relative error is at most this, else to one of 1/65536.
_TOLERANCE = 0.05


def _mix(words: np.ndarray) -> np.ndarray:
    """Return SplitMix64's hash of each uint64, computed in place."""
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words


def make_row_keys(seed: int, epoch: int, step: int, positions: np.ndarray) -> np.ndarray:
    """Return a uint64 key for each row, shape (B,), from its position among the rows of all workers in a step."""
    base = 0
    for part in (seed, epoch, step):
        base = int(_mix(np.array([(base + part * _GOLDEN + _GOLDEN) & _WORD], np.uint64))[0])
    return _mix(np.uint64(base) + positions.astype(np.uint64) * np.uint64(_GOLDEN))


class RowMasks:
    """The dropout masks of the rows in the current forward and backward pass."""

    def __init__(self) -> None:
        self._keys_B: np.ndarray | None = None

    def set_rows(self, keys_B: np.ndarray) -> None:
        """Set the rows of the next forward pass and its backward pass, by the keys of `make_row_keys`."""
        self._keys_B = keys_B

    def mask(self, site: int, shape: torch.Size, rate: float, dtype: torch.dtype) -> torch.Tensor | None:
        """Return a mask with 0 for each dropped unit and 1 / (1 - rate) elsewhere.

        Return None if `shape` does not have 2 to 5 axes, or if its first axis is not the rows of `set_rows`.
        """
        keys_B = self._keys_B
        if keys_B is None or len(shape) < 2 or len(shape) > 1 + len(_AXES) or shape[0] != len(keys_B):
            return None
        by_byte = abs(round(rate * 256) / 256 - rate) <= _TOLERANCE * rate
        number, per_word = (np.uint8, 8) if by_byte else (np.uint16, 4)
        last = shape[-1]
        extents = [*shape[1:-1], -(-last // per_word)]
        words = _mix(keys_B ^ np.uint64((site * _AXES[2] + 1) & _WORD))
        for extent, increment in zip(extents, _AXES, strict=False):
            words = words[..., None] + np.arange(extent, dtype=np.uint64) * np.uint64(increment)
        draws = _mix(words).view(number)[..., :last]
        n_values = 256 if by_byte else 65536
        threshold = n_values - round(rate * n_values)
        if dtype is torch.bfloat16:
            # numpy has no bfloat16: build the mask from its bits.
            one = int(torch.tensor(n_values / threshold, dtype=dtype).view(torch.int16))
            return torch.from_numpy(np.multiply(draws < threshold, np.int16(one), dtype=np.int16)).view(dtype)
        scale = np.float32(n_values / threshold)
        return torch.from_numpy(np.multiply(draws < threshold, scale, dtype=np.float32)).to(dtype)

    def dropout(self, site: int, values: torch.Tensor, rate: float) -> torch.Tensor:
        """Return `values`, shape (B, ...), times the mask of this `site`."""
        if rate <= 0.0:
            return values
        mask = self.mask(site, values.shape, rate, values.dtype) if rate < 1.0 else None
        return torch.nn.functional.dropout(values, rate) if mask is None else values * mask


class RowDropout(torch.nn.Module):
    """A replacement of one `torch.nn.Dropout`. Layers that share a module also share its masks within a step."""

    def __init__(self, masks: RowMasks, site: int, p: float) -> None:
        super().__init__()
        self.masks, self.site, self.p = masks, site, p

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.masks.dropout(self.site, values, self.p) if self.training else values


def install_row_dropout(model: torch.nn.Module) -> RowMasks:
    """Replace every `torch.nn.Dropout` of `model`, and the dropout in transformers' attention; return their masks."""
    masks = RowMasks()
    site = 0
    replacements: dict[int, RowDropout] = {}
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Dropout:
                if id(child) not in replacements:
                    site += 1
                    replacements[id(child)] = RowDropout(masks, site, child.p).train(child.training)
                setattr(parent, name, replacements[id(child)])
    _install_attention(model, masks, site)
    return masks


def _install_attention(model: Any, masks: RowMasks, site: int) -> None:
    """Use `masks` in a transformers model's attention too, which takes a dropout rate and has no dropout module."""
    if not hasattr(model, "set_attn_implementation") or attention_implementation(model.config) != "sdpa":
        return
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    sites: dict[int, int] = {}

    def attention(
        module: torch.nn.Module,
        query_BHTD: torch.Tensor,
        key_BHSD: torch.Tensor,
        value_BHSD: torch.Tensor,
        attention_mask: torch.Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        **rest: Any,
    ) -> tuple[torch.Tensor, None]:
        if not dropout or query_BHTD.shape[1] != key_BHSD.shape[1] or rest.get("is_causal"):
            plain: tuple[torch.Tensor, None] = sdpa_attention_forward(
                module, query_BHTD, key_BHSD, value_BHSD, attention_mask, dropout=dropout, scaling=scaling, **rest
            )
            return plain
        own_site = sites.setdefault(id(module), site + 1 + len(sites))
        scale = query_BHTD.shape[-1] ** -0.5 if scaling is None else scaling
        output_BHTD = attend(query_BHTD * scale, key_BHSD, value_BHSD, attention_mask, masks, own_site, dropout)
        return output_BHTD.transpose(1, 2).contiguous(), None

    AttentionInterface.register("raymill", attention)
    AttentionMaskInterface.register("raymill", sdpa_mask)
    model.set_attn_implementation("raymill")


def attend(
    query_BHTD: torch.Tensor,
    key_BHSD: torch.Tensor,
    value_BHSD: torch.Tensor,
    mask: torch.Tensor | None,
    masks: RowMasks,
    site: int,
    rate: float,
) -> torch.Tensor:
    """Return attention (B, H, T, D) with dropout. The query is already scaled.

    `mask` is a bool tensor, True for tokens to attend to, or a float tensor that is added to the scores.
    """
    scores = torch.matmul(query_BHTD, key_BHSD.transpose(2, 3))
    if mask is not None:
        if mask.dtype is torch.bool:
            zeros = torch.zeros(mask.shape, dtype=scores.dtype, device=scores.device)
            mask = zeros.masked_fill_(~mask, torch.finfo(scores.dtype).min)
        scores = scores + mask
    weights = masks.dropout(site, torch.softmax(scores, -1), rate)
    return torch.matmul(weights, value_BHSD)
