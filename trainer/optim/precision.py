"""What a training multiplies its matrices in, and whether that pays here."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["bf16", "fp16", "fp32"]

# Multiplications like those of a small encoder's training step; a bf16 that is less than this much faster is not worth
# its rounding.
_SHAPE = (512, 768, 768)
_WORTH = 1.3
_TRIES = 6


def chosen(wanted: Literal["auto", "bf16", "fp16", "fp32"], device_type: str, threads: int = 1) -> Precision:
    """Return the precision that `train.precision` means on this hardware."""
    if wanted != "auto":
        return wanted
    return "bf16" if has_fast_bf16(device_type, threads) else "fp32"


def has_fast_bf16(device_type: str, threads: int = 1) -> bool:
    """Whether bf16 pays: tensor cores on a GPU; on a CPU it is measured, in some 20 ms.

    What a CPU says of itself is no answer: of two with AVX512-BF16 one multiplied in bf16 at 161 GFLOP/s against 283 in
    fp32, the other at 900 against 216.
    """
    import torch

    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device_type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return False
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _seconds(torch.float32) > _WORTH * _seconds(torch.bfloat16)
    finally:
        torch.set_num_threads(before)


def _seconds(dtype: torch.dtype) -> float:
    """Return how long one multiplication takes, the best of some tries."""
    import torch

    rows, inner, outer = _SHAPE
    left, right = torch.ones(rows, inner, dtype=dtype), torch.ones(outer, inner, dtype=dtype)
    best = float("inf")
    for _ in range(_TRIES):
        started = time.perf_counter()
        torch.nn.functional.linear(left, right)
        best = min(best, time.perf_counter() - started)
    return best


def autocast(precision: Precision, device_type: str) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which a forward pass multiplies in `precision`."""
    import torch

    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device_type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def loss_scaler(precision: Precision, device_type: str) -> Any:
    """Return what scales the loss so that gradients in fp16 do not vanish; it does nothing in other precisions."""
    import torch

    return torch.amp.GradScaler(device_type, enabled=precision == "fp16")
