"""The rate at which a worker multiplies matrices, against which the arithmetic of a training is held."""

from __future__ import annotations

import time
from typing import Literal

from trainer.optim.precision import Precision

# Rows, inner and outer size of the product: large enough for the full rate, and 0.1 s or less.
_SHAPES: dict[str, tuple[int, int, int]] = {"cpu": (1024, 1024, 1024), "cuda": (8192, 8192, 8192)}
_TRIES = 5


def matmul_rate(precision: Precision, device: str) -> float:
    """Return the floating-point operations per second of a matrix product on `device`: the best of a few tries.

    On a CPU it uses the threads that torch is set to.
    """
    import torch

    kind: Literal["cpu", "cuda"] = "cuda" if device.startswith("cuda") else "cpu"
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    rows, inner, outer = _SHAPES[kind]
    left, right = (torch.ones(size, dtype=dtype, device=device) for size in ((rows, inner), (outer, inner)))
    best = float("inf")
    for _ in range(_TRIES):
        started = time.perf_counter()
        torch.nn.functional.linear(left, right)
        if kind == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2.0 * rows * inner * outer / best
