"""The precision of matrix multiplications in training, and whether bf16 is faster on this hardware.

The names are `train.precision` in trainer/spec/train.py.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Literal

from trainer.optim.torch_internals import cpu_has_bf16_instructions

if TYPE_CHECKING:
    import torch

Precision = Literal["bf16", "fp16", "fp32"]

# The shape of a matrix multiplication in a small encoder's training step.
_SHAPE = (512, 768, 768)
# bf16 rounds more, so it is used only if it is faster than fp32 by at least this factor.
_MIN_SPEEDUP = 1.3
_TRIES = 6


def resolve_precision(
    requested: Literal["auto", "bf16", "fp16", "fp32"], device_type: str, threads: int = 1
) -> Precision:
    """Return the precision to use on this hardware if `train.precision` is `requested`."""
    if requested != "auto":
        return requested
    return "bf16" if has_fast_bf16(device_type, threads) else "fp32"


def has_fast_bf16(device_type: str, threads: int = 1) -> bool:
    """Return whether bf16 pays off. A GPU needs tensor cores for bf16; on a CPU, a measurement of about 20 ms decides.

    A CPU's feature flags are not enough. Two CPUs with AVX512-BF16 were measured: one multiplied at 161 GFLOP/s in bf16
    and 283 in fp32, the other at 900 in bf16 and 216 in fp32.
    """
    import torch

    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device_type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not cpu_has_bf16_instructions():
        return False
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _time_matmul(torch.float32) > _MIN_SPEEDUP * _time_matmul(torch.bfloat16)
    finally:
        torch.set_num_threads(before)


def _time_matmul(dtype: torch.dtype) -> float:
    """Return the seconds that one matrix multiplication takes: the best of several tries."""
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
    """Return a context manager; a forward pass in it computes matrix products in `precision`."""
    import torch

    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device_type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def build_loss_scaler(precision: Precision, device_type: str) -> Any:
    """Return a gradient scaler, which keeps fp16 gradients from vanishing. In other precisions it does nothing."""
    import torch

    return torch.amp.GradScaler(device_type, enabled=precision == "fp16")
