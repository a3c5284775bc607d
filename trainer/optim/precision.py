"""The precision of matrix multiplications in training, and whether bf16 is faster on this hardware."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Literal

from trainer.optim.torch_internals import cpu_has_bf16_instructions

if TYPE_CHECKING:
    import torch

Precision = Literal["bf16", "fp16", "fp32"]

# The shape of a matrix multiplication in a small encoder's training step. bf16 is used only if it is at least this much
# faster; otherwise its rounding is not worth it.
_SHAPE = (512, 768, 768)
_MIN_SPEEDUP = 1.3
_TRIES = 6


def resolve_precision(
    requested: Literal["auto", "bf16", "fp16", "fp32"], device_type: str, threads: int = 1
) -> Precision:
    """Return the precision that `train.precision` means on this hardware."""
    if requested != "auto":
        return requested
    return "bf16" if has_fast_bf16(device_type, threads) else "fp32"


def has_fast_bf16(device_type: str, threads: int = 1) -> bool:
    """Return whether bf16 pays off: on a GPU if it has tensor cores for it; on a CPU it is measured in about 20 ms.

    The CPU's feature flags alone do not decide: of two CPUs with AVX512-BF16, one multiplied in bf16 at 161 GFLOP/s
    against 283 in fp32, the other at 900 against 216.
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
    """Return the context in which a forward pass multiplies in `precision`."""
    import torch

    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device_type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def build_loss_scaler(precision: Precision, device_type: str) -> Any:
    """Return a gradient scaler, which keeps fp16 gradients from vanishing. In other precisions it does nothing."""
    import torch

    return torch.amp.GradScaler(device_type, enabled=precision == "fp16")
