"""The private names of torch that serving uses, in one file: `tests/unit/test_serve_internals.py` has a test for each.

Both are operations of oneDNN that torch's inductor emits and that have no public counterpart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class PackedWeight:
    """A weight in oneDNN's own layout, prepared once. Otherwise oneDNN reorders it in each call, which for one short
    text takes longer than the product.

    Uses `torch.ops.mkldnn._reorder_linear_weight` and `torch.ops.mkldnn._linear_pointwise`.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, *, gelu: bool) -> None:
        """`weight` has shape (out, in), `bias` shape (out,)."""
        import torch

        self._weight, self._bias = torch.ops.mkldnn._reorder_linear_weight(weight, None), bias
        self._epilogue: tuple[Any, ...] = ("gelu", [], "none") if gelu else ("none", [], "")
        self._linear: Any = torch.ops.mkldnn._linear_pointwise

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Return the product of `values`, shape (N, in), with the bias added and GELU applied if asked: shape (N,
        out)."""
        product: torch.Tensor = self._linear(values, self._weight, self._bias, *self._epilogue)
        return product


def has_packed_weights() -> bool:
    """Whether this torch has the two operations: builds without oneDNN do not."""
    import torch

    ops = torch.ops.mkldnn
    return hasattr(ops, "_reorder_linear_weight") and hasattr(ops, "_linear_pointwise")
