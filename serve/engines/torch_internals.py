"""The private names of torch that serving uses: two oneDNN operations that torch's inductor emits.

They have no public counterpart. `tests/unit/test_serve_internals.py` has a test for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class PackedWeight:
    """A weight in oneDNN's own layout, prepared once.

    Without this, oneDNN reorders the weight in each call, which takes longer than the product for one short text.

    Uses `torch.ops.mkldnn._reorder_linear_weight` and `torch.ops.mkldnn._linear_pointwise`.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, *, gelu: bool) -> None:
        """`weight` has shape (out, in), `bias` shape (out,)."""
        import torch

        self._weight, self._bias = torch.ops.mkldnn._reorder_linear_weight(weight, None), bias
        self._epilogue: tuple[Any, ...] = ("gelu", [], "none") if gelu else ("none", [], "")
        self._linear: Any = torch.ops.mkldnn._linear_pointwise

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Return the linear layer's output, shape (N, out), for `values`, shape (N, in).

        The bias is added; with `gelu`, GELU is applied too.
        """
        product: torch.Tensor = self._linear(values, self._weight, self._bias, *self._epilogue)
        return product


def has_packed_weights() -> bool:
    """Whether this torch has the oneDNN operations that `PackedWeight` needs."""
    import torch

    ops = torch.ops.mkldnn
    return hasattr(ops, "_reorder_linear_weight") and hasattr(ops, "_linear_pointwise")
