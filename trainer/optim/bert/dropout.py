"""Dropout on CPUs that goes by the row alone, and is a tenth of the work of torch's.

torch draws masks one number after the other from a generator with state, on one core: a seventh of a MiniLM training
step. Here the mask of a row is a hash of (seed, epoch, step, the row's place in the step, which dropout it is), computed for
eight units at a time. So a row drops the same units whichever worker computes it and whatever is beside it, and a run that
goes on after an interruption needs no generator's state. On GPUs, where torch's own is fast, it stays in place.

SplitMix64 is the hash (Steele, Lea, Flood 2014: Fast splittable pseudorandom number generators).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

_GOLDEN = 0x9E3779B97F4A7C15
# Odd and far from each other: the step along each axis of a mask.
_AXES = (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03, 0xAEF17502108EF2D9, 0xF1357AEA2E62A9C5)
_WORD = 2**64 - 1
# A rate is rounded to 1/256 where that is this near to it, else to 1/65536.
_NEAR = 0.05


def _mix(words: np.ndarray) -> np.ndarray:
    """Return SplitMix64's hash of each uint64, in place."""
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words


def row_keys(seed: int, epoch: int, step: int, places: np.ndarray) -> np.ndarray:
    """Return a uint64 key for each of the rows at `places` of one step over all workers, shape (B,)."""
    base = 0
    for part in (seed, epoch, step):
        base = int(_mix(np.array([(base + part * _GOLDEN + _GOLDEN) & _WORD], np.uint64))[0])
    return _mix(np.uint64(base) + places.astype(np.uint64) * np.uint64(_GOLDEN))


class Noise:
    """The rows that go through the model now, and their masks."""

    def __init__(self) -> None:
        self._keys_B: np.ndarray | None = None

    def begin(self, keys_B: np.ndarray) -> None:
        """Say which rows the next forward pass has, and its backward pass."""
        self._keys_B = keys_B

    def mask(self, site: int, shape: torch.Size, rate: float, dtype: torch.dtype) -> torch.Tensor | None:
        """Return 0 where a unit is dropped and 1 / (1 - rate) elsewhere; None if `shape` does not begin with the rows."""
        keys_B = self._keys_B
        if keys_B is None or len(shape) < 2 or len(shape) > 1 + len(_AXES) or shape[0] != len(keys_B):
            return None
        by_byte = abs(round(rate * 256) / 256 - rate) <= _NEAR * rate
        number, per_word = (np.uint8, 8) if by_byte else (np.uint16, 4)
        last = shape[-1]
        extents = [*shape[1:-1], -(-last // per_word)]
        words = _mix(keys_B ^ np.uint64((site * _AXES[2] + 1) & _WORD))
        for extent, along in zip(extents, _AXES, strict=False):
            words = words[..., None] + np.arange(extent, dtype=np.uint64) * np.uint64(along)
        drawn = _mix(words).view(number)[..., :last]
        range_ = 256 if by_byte else 65536
        kept = range_ - round(rate * range_)
        if dtype is torch.bfloat16:
            # numpy has no bfloat16: the mask is made of its bits.
            one = int(torch.tensor(range_ / kept, dtype=dtype).view(torch.int16))
            return torch.from_numpy(np.multiply(drawn < kept, np.int16(one), dtype=np.int16)).view(dtype)
        return torch.from_numpy(np.multiply(drawn < kept, np.float32(range_ / kept), dtype=np.float32)).to(dtype)

    def dropped(self, site: int, values: torch.Tensor, rate: float) -> torch.Tensor:
        """Return `values`, shape (B, ...), with the units of this `site` dropped."""
        if rate <= 0.0:
            return values
        mask = self.mask(site, values.shape, rate, values.dtype) if rate < 1.0 else None
        return torch.nn.functional.dropout(values, rate) if mask is None else values * mask


class RowDropout(torch.nn.Module):
    """In the place of one `torch.nn.Dropout`. Layers that share one share its masks within a step."""

    def __init__(self, noise: Noise, site: int, p: float) -> None:
        super().__init__()
        self.noise, self.site, self.p = noise, site, p

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.noise.dropped(self.site, values, self.p) if self.training else values


def by_row(model: torch.nn.Module) -> Noise:
    """Replace every `torch.nn.Dropout` of `model`, those of transformers' attention included; returns their noise."""
    noise = Noise()
    site = 0
    made: dict[int, RowDropout] = {}
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Dropout:
                if id(child) not in made:
                    site += 1
                    made[id(child)] = RowDropout(noise, site, child.p).train(child.training)
                setattr(parent, name, made[id(child)])
    _attention(model, noise, site)
    return noise


def _attention(model: Any, noise: Noise, site: int) -> None:
    """Give the attention of a transformers model the same noise: it is told a rate, and has no module for it."""
    if not hasattr(model, "set_attn_implementation") or getattr(model.config, "_attn_implementation", "") != "sdpa":
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
        plain = not dropout or query_BHTD.shape[1] != key_BHSD.shape[1] or rest.get("is_causal")
        if plain:
            as_it_is: tuple[torch.Tensor, None] = sdpa_attention_forward(
                module, query_BHTD, key_BHSD, value_BHSD, attention_mask, dropout=dropout, scaling=scaling, **rest
            )
            return as_it_is
        here = sites.setdefault(id(module), site + 1 + len(sites))
        scale = query_BHTD.shape[-1] ** -0.5 if scaling is None else scaling
        found = attend(query_BHTD * scale, key_BHSD, value_BHSD, attention_mask, noise, here, dropout)
        return found.transpose(1, 2).contiguous(), None

    AttentionInterface.register("raymill", attention)
    AttentionMaskInterface.register("raymill", sdpa_mask)
    model.set_attn_implementation("raymill")


def attend(
    query_BHTD: torch.Tensor,
    key_BHSD: torch.Tensor,
    value_BHSD: torch.Tensor,
    mask: torch.Tensor | None,
    noise: Noise,
    site: int,
    rate: float,
) -> torch.Tensor:
    """Return attention (B, H, T, D) with dropout; the query is scaled already, `mask` is True where to look, or added."""
    scores = torch.matmul(query_BHTD, key_BHSD.transpose(2, 3))
    if mask is not None:
        if mask.dtype is torch.bool:
            mask = torch.zeros(mask.shape, dtype=scores.dtype).masked_fill_(~mask, torch.finfo(scores.dtype).min)
        scores = scores + mask
    weights = noise.dropped(site, torch.softmax(scores, -1), rate)
    return torch.matmul(weights, value_BHSD)
