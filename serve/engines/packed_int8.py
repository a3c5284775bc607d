"""The packed encoder with its multiplications in int8, twice as many numbers to an instruction and half the bytes to read.

A few channels of what BERT's layers multiply are far larger than the others, and one scale for all of them leaves these few
bits. So each channel is divided by a scale of its own and its weights are multiplied by it (SmoothQuant, Xiao et al., 2022),
and each output of a weight has a scale. The channels' scales come from sample rows once and do not change with the request:
what a text is answered does not depend on what else is in its batch.

N in a name: tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.torch import load_file, save_file

from serve.engines.base import EngineError
from serve.engines.by_torch import Native
from serve.engines.packed import Multiply, Packed, made, must_be_near
from serve.engines.smooth import channel_sizes
from trainer.precision import best_seconds
from trainer.predictor import Predictor

if TYPE_CHECKING:
    import torch

SCALES = "scales.safetensors"
# How much of a channel's size goes into its scale; the rest is left to its weights. The one that moves logits least is taken.
_SHARES = (0.65, 0.75, 0.85)
# From fewer rows a channel's largest value is a matter of luck.
_ROWS = 64
# How far the largest logit may move of what logits are apart; what it means for the metric is looked at later.
_NEAR = 0.25
# From here to twice that float32 has whole numbers alone: adding it rounds, and the last byte is the number. torch makes bytes
# of floats one at a time, of integers many at once.
_WHOLE = 1.5 * 2**23
# A channel, or a weight's input, that is never larger than this carries nothing.
_TINY = 1e-4


def build(name: str, predictor: Predictor, sample: list[np.ndarray], into: Path, scratch: Path) -> None:
    """Write the channels' scales. Raises `EngineError` for other models than `packed` knows, few rows, or a slow CPU."""
    if len(sample) < _ROWS:
        raise EngineError(f"its scales take {_ROWS} rows, and there are {len(sample)}")
    _must_be_fast(predictor.threads)
    seen = made(predictor, _Seeing)
    seen.logits(sample)
    own = Native(predictor).logits(sample)
    found = []
    for share in _SHARES:
        scales = {place: _scales(weight, largest, share) for place, (weight, largest) in seen.seen.items()}
        found.append((made(predictor, partial(PackedInt8, scales=scales)).logits(sample), scales))
    logits, scales = min(found, key=lambda one: float(np.abs(one[0] - own).mean()))
    must_be_near(logits, own, _NEAR)
    save_file(scales, into / SCALES)


def load(name: str, predictor: Predictor, built: Path) -> PackedInt8:
    """Return the engine with the scales in `built`."""
    return made(predictor, partial(PackedInt8, scales=load_file(built / SCALES)))


class PackedInt8(Packed):
    """`Packed` with multiplications in int8; between them it computes in fp32."""

    def __init__(self, predictor: Predictor, encoder: Any, *, scales: Mapping[str, torch.Tensor]) -> None:
        _must_be_exact()
        self._scales = scales
        super().__init__(predictor, encoder, "fp32")

    def _multiply(self, place: str, weight: torch.Tensor, bias: torch.Tensor, *, gelu: bool = False) -> Multiply:
        return _Int8Linear(weight, bias, self._scales[place], gelu=gelu)


class _Int8Linear:
    """A multiplication with an int8 weight, which oneDNN has laid out for itself beforehand.

    `scale`, shape (in,), makes of a value x the number x * scale + 128 of one byte.
    """

    _ZERO = 128

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, scale: torch.Tensor, *, gelu: bool) -> None:
        import torch

        self._scale, self._bias = scale, bias.float()
        self._offset = torch.tensor(_WHOLE + self._ZERO)
        scaled = weight.float() / scale
        self._out_scale = scaled.abs().amax(1).clamp_min(_TINY**2) / 127
        as_int8 = (scaled / self._out_scale[:, None]).round().to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(as_int8, None)
        self._out_zero = torch.zeros(len(weight), dtype=torch.int64)
        self._after: tuple[Any, ...] = ("gelu", [], "none") if gelu else ("none", [], "")
        self._multiply = torch.ops.onednn.qlinear_pointwise.default

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        import torch

        rounded = torch.addcmul(self._offset, values, self._scale).clamp_(_WHOLE, _WHOLE + 255)
        bytes_N = rounded.view(torch.int32).to(torch.uint8)
        found: torch.Tensor = self._multiply(
            bytes_N, 1.0, self._ZERO, self._weight, self._out_scale, self._out_zero, self._bias,
            1.0, 0, torch.float32, *self._after,
        )  # fmt: skip
        return found


class _Seeing(Packed):
    """`Packed` in fp32 that keeps the largest value of each channel that goes into a multiplication, and its weight."""

    def __init__(self, predictor: Predictor, encoder: Any) -> None:
        self.seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        super().__init__(predictor, encoder, "fp32")

    def _multiply(self, place: str, weight: torch.Tensor, bias: torch.Tensor, *, gelu: bool = False) -> Multiply:
        import torch

        itself = super()._multiply(place, weight, bias, gelu=gelu)
        self.seen[place] = weight, torch.zeros(weight.shape[1])

        def seeing(values: torch.Tensor) -> torch.Tensor:
            largest = self.seen[place][1]
            torch.maximum(largest, values.abs().amax(0), out=largest)
            return itself(values)

        return seeing

    def _spare(self, tokens: int) -> int:
        return 0  # what nobody reads must not be what a scale is made for


def _must_be_exact() -> None:
    """Raise `EngineError` where sums of bytes are cut off on their way, as without VNNI: by how much is up to the text."""
    import torch

    if not hasattr(torch.ops.onednn, "qlinear_pointwise") or not getattr(torch.cpu, "_is_vnni_supported", bool)():
        raise EngineError("this CPU, or this torch, does not multiply bytes whole")
    large = torch.full((64, 64), 127.0)
    found = _Int8Linear(large, torch.zeros(64), torch.ones(64), gelu=False)(large)
    if not torch.equal(found, torch.full((64, 64), 127.0 * 127 * 64)):
        raise EngineError("this CPU cuts off sums of bytes")


def _must_be_fast(threads: int) -> None:
    """Raise `EngineError` where oneDNN has no kernel for bytes: all that follows would take minutes."""
    import torch

    _must_be_exact()
    rows = torch.ones(64, 384)
    weight, bias = torch.ones(384, 384), torch.zeros(384)
    as_int8 = _Int8Linear(weight, bias, torch.ones(384), gelu=False)
    in_fp32 = best_seconds(lambda: torch.nn.functional.linear(rows, weight, bias), threads)
    if best_seconds(lambda: as_int8(rows), threads) > in_fp32:
        raise EngineError("multiplying in int8 is not faster on this hardware")


def _scales(weight: torch.Tensor, largest: torch.Tensor, share: float) -> torch.Tensor:
    """Return the scale of each channel, shape (in,): the largest value of all, scaled so, is 127."""
    import torch

    by_channel = torch.from_numpy(channel_sizes(largest.numpy(), weight.abs().amax(0).numpy(), share))
    return 127 / (largest / by_channel).max().clamp_min(_TINY) / by_channel
