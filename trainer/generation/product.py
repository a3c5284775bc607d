"""One product in place of several linear layers of the same input, in float32 or int8, with what adapters add to it.

Letters in shapes: T tokens, I inputs, O outputs of all layers side by side, r rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from trainer.generation.adapters import AdapterSpan, Layers, LowRank
from trainer.generation.int8 import Int8Weight


class Product:
    """The linear layers by name, in the order of their outputs."""

    def __init__(
        self,
        layers: Mapping[str, Any],
        norm_I: torch.Tensor | None = None,
        orders: Mapping[str, torch.Tensor] | None = None,
        *,
        int8: bool = False,
    ) -> None:
        """`norm_I` is a factor of the input. `orders` are orders of a layer's outputs within each head."""
        self._norm_I = None if norm_I is None else norm_I.detach()
        self._orders = orders or {}
        self._sizes = {name: layer.out_features for name, layer in layers.items()}
        weight_OI = torch.cat([self._ordered(name, layer.weight.detach()) for name, layer in layers.items()])
        self._bias_O: torch.Tensor | None = None
        if any(layer.bias is not None for layer in layers.values()):
            biases = {
                name: torch.zeros_like(layer.weight[:, 0]) if layer.bias is None else layer.bias.detach()
                for name, layer in layers.items()
            }
            self._bias_O = torch.cat([self._ordered(name, bias) for name, bias in biases.items()])
        # In int8 the norm's weight stays apart: without it, the numbers of a token differ more, and int8 loses more of them.
        self._int8 = Int8Weight(weight_OI) if int8 else None
        self._float = None if int8 else _FloatWeight(weight_OI if self._norm_I is None else weight_OI * self._norm_I)
        self.adapters: dict[int, LowRank] = {}
        """By number, with the norm's weight folded in."""

    def __call__(
        self, values_TI: torch.Tensor, factors_T1: torch.Tensor, adapters: Sequence[AdapterSpan] = ()
    ) -> torch.Tensor:
        """Return the product with the values times a factor for each token, (T, O)."""
        if self._int8 is None:
            assert self._float is not None
            output_TO = self._float.product(values_TI * factors_T1, self._bias_O)
        else:
            output_TO, scales = self._int8.unscaled(values_TI if self._norm_I is None else values_TI * self._norm_I)
            scales = scales.mul_(factors_T1)
            output_TO = output_TO.mul_(scales)
            if self._bias_O is not None:
                output_TO.add_(self._bias_O)
        for span in adapters:
            if span.adapter in self.adapters:
                rows = slice(span.start, span.stop)
                self.adapters[span.adapter].add(output_TO[rows], values_TI[rows] * factors_T1[rows])
        return output_TO

    def add(self, sums_TO: torch.Tensor, values_TI: torch.Tensor, adapters: Sequence[AdapterSpan] = ()) -> None:
        """Add the product with the values to `sums_TO`."""
        if self._int8 is None:
            assert self._float is not None
            self._float.add(sums_TO, values_TI)
        else:
            output_TO, scales = self._int8.unscaled(values_TI)
            sums_TO.addcmul_(output_TO, scales)
        if self._bias_O is not None:
            sums_TO.add_(self._bias_O)
        for span in adapters:
            if span.adapter in self.adapters:
                self.adapters[span.adapter].add(sums_TO[span.start : span.stop], values_TI[span.start : span.stop])

    def add_adapter(self, number: int, low_ranks: Layers, prefix: str) -> None:
        """Add the parts of an adapter that belong to these layers, whose names in the adapter begin with `prefix`."""
        parts = {name: low_ranks.get(prefix + name) for name in self._sizes}
        downs = [part.down_rI for part in parts.values() if part is not None]
        if not downs:
            return
        down_rI = torch.cat(downs)
        up_Or = down_rI.new_zeros(sum(self._sizes.values()), len(down_rI))
        row = column = 0
        for name, part in parts.items():
            if part is not None:
                rank = part.up_Or.shape[1]
                up_Or[row : row + self._sizes[name], column : column + rank] = self._ordered(name, part.up_Or)
                column += rank
            row += self._sizes[name]
        self.adapters[number] = LowRank(down_rI if self._norm_I is None else down_rI * self._norm_I, up_Or)

    def _ordered(self, name: str, rows: torch.Tensor) -> torch.Tensor:
        """Return weights or biases (O, ...) of a layer with the outputs of each head in its order."""
        order = self._orders.get(name)
        return rows if order is None else rows.unflatten(0, (-1, len(order)))[:, order].flatten(0, 1)


class _FloatWeight:
    """A weight in float32, (O, I); on CPUs a large one lies in oneDNN's own layout.

    That takes half the time for 4 to 32 tokens, and as long for others. Uses `torch.ops.mkldnn._reorder_linear_weight` and
    `torch.ops.mkldnn._linear_pointwise`, as `serve/engines/torch_internals.py` does; without them, `torch.nn.functional`.
    """

    _LARGE = 2048

    def __init__(self, weight_OI: torch.Tensor) -> None:
        ops = torch.ops.mkldnn
        self._linear: Any = None
        if len(weight_OI) >= self._LARGE and weight_OI.device.type == "cpu" and hasattr(ops, "_linear_pointwise"):
            self._linear = ops._linear_pointwise
            weight_OI = ops._reorder_linear_weight(weight_OI, None)
        self._weight_OI = weight_OI

    def product(self, values_TI: torch.Tensor, bias_O: torch.Tensor | None) -> torch.Tensor:
        """Return the product, (T, O)."""
        if self._linear is None:
            return torch.nn.functional.linear(values_TI, self._weight_OI, bias_O)
        output_TO: torch.Tensor = self._linear(values_TI, self._weight_OI, bias_O, "none", [], "")
        return output_TO

    def add(self, sums_TO: torch.Tensor, values_TI: torch.Tensor) -> None:
        """Add the product to `sums_TO`."""
        if self._linear is None:
            sums_TO.addmm_(values_TI, self._weight_OI.T)
        else:
            sums_TO.add_(self.product(values_TI, None))
