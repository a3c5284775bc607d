"""One BERT layer with hand-written forward and backward passes: a third of autograd's operations, the same results.

Weights are views of a `FlatUpdater`'s tensors, and gradients are written directly into its gradient tensor: nothing is
cast, concatenated, allocated or accumulated on the way. Query, key and value are computed in one multiplication. If
only the first token of the output is needed, everything but keys and values is computed for that token alone.

Letters in shapes: B rows, T tokens, Q tokens whose output is needed, W the model's width, H heads, D = W / H,
M = B * Q, N = B * T, I the intermediate width of the feed-forward block.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from trainer.optim.bert.dropout import RowMasks
from trainer.optim.torch_internals import gelu_backward, layer_norm_backward, layer_norm_forward, softmax_backward


class Linear(NamedTuple):
    """A weight (out, in), its bias, and the tensors that their gradients are written to."""

    weight: torch.Tensor
    bias: torch.Tensor
    weight_gradient: torch.Tensor
    bias_gradient: torch.Tensor

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.bias, values, self.weight.t())

    def write_gradients(self, gradient: torch.Tensor, values: torch.Tensor) -> None:
        """Write the gradients of weight and bias, from the output's `gradient` and the input `values`."""
        torch.mm(gradient.t(), values, out=self.weight_gradient)
        torch.sum(gradient, 0, out=self.bias_gradient)

    def slice_outputs(self, start: int, end: int) -> Linear:
        """Return views of the rows that compute the outputs from `start` to `end`."""
        return Linear(*(part[start:end] for part in self))


class Norm(NamedTuple):
    """A layer norm, and the tensors that its gradients are written to."""

    weight: torch.Tensor
    bias: torch.Tensor
    weight_gradient: torch.Tensor
    bias_gradient: torch.Tensor
    eps: float

    def __call__(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the normalized values, their mean and their reciprocal standard deviation."""
        return layer_norm_forward(values, self.weight, self.bias, self.eps)

    def backward(
        self, gradient: torch.Tensor, values: torch.Tensor, mean: torch.Tensor, rstd: torch.Tensor
    ) -> torch.Tensor:
        """Write the gradients of weight and bias; return the gradient of `values`."""
        of_values, of_weight, of_bias = layer_norm_backward(gradient, values, mean, rstd, self.weight, self.bias)
        self.weight_gradient.copy_(of_weight)
        self.bias_gradient.copy_(of_bias)
        return of_values


class Layer(NamedTuple):
    """The weights and dropout rates of one layer."""

    query_key_value: Linear
    """(3 W, W)"""
    after_attention: Linear
    attention_norm: Norm
    widen: Linear
    narrow: Linear
    norm: Norm
    heads: int
    attention_rate: float
    hidden_rate: float
    sites: tuple[int, int, int]
    """The dropout sites: in attention, after attention, and at the end of the layer."""


class LayerFunction(torch.autograd.Function):
    """Maps values (B, T, W) to values (B, Q, W). `mask`, shape (B, 1, 1, T) or None, is added to the scores."""

    @staticmethod
    def forward(
        ctx: Any, values_BTW: torch.Tensor, mask: torch.Tensor | None, layer: Layer, masks: RowMasks, first_only: bool
    ) -> torch.Tensor:
        rows, tokens, width = values_BTW.shape
        queries = 1 if first_only else tokens
        head = width // layer.heads
        values_NW = values_BTW.reshape(rows * tokens, width)
        residual_MW = values_BTW[:, 0].contiguous() if first_only else values_NW

        def split_heads(flat: torch.Tensor, parts: int, length: int) -> torch.Tensor:
            """Rearrange (B * length, parts * W) to (parts, B * H, length, D)."""
            split = flat.view(rows, length, parts, layer.heads, head).permute(2, 0, 3, 1, 4).contiguous()
            return split.view(parts, rows * layer.heads, length, head)

        if first_only:
            (query,) = split_heads(layer.query_key_value.slice_outputs(0, width)(residual_MW), 1, 1)
            key, value = split_heads(layer.query_key_value.slice_outputs(width, 3 * width)(values_NW), 2, tokens)
        else:
            query, key, value = split_heads(layer.query_key_value(values_NW), 3, tokens)
        scores = torch.bmm(query, key.transpose(1, 2)).mul_(head**-0.5)
        if mask is not None:
            scores.view(rows, layer.heads, queries, tokens).add_(mask)
        weights = torch.softmax(scores, -1)

        def dropout_mask(number: int, shape: tuple[int, ...], rate: float) -> torch.Tensor | None:
            return masks.mask(layer.sites[number], torch.Size(shape), rate, values_BTW.dtype) if rate else None

        attention_mask = dropout_mask(0, (rows, layer.heads, queries, tokens), layer.attention_rate)
        if attention_mask is not None:
            attention_mask = attention_mask.view(weights.shape)
        dropped = weights if attention_mask is None else weights * attention_mask
        attended_MW = torch.bmm(dropped, value).view(rows, layer.heads, queries, head).transpose(1, 2)
        attended_MW = attended_MW.reshape(-1, width)
        first_mask = dropout_mask(1, (rows, queries, width), layer.hidden_rate)
        first_sum = _drop_in_place(layer.after_attention(attended_MW), first_mask).add_(residual_MW)
        between, *first_stats = layer.attention_norm(first_sum)
        wide_MI = layer.widen(between)
        active_MI = torch.nn.functional.gelu(wide_MI)
        second_mask = dropout_mask(2, (rows, queries, width), layer.hidden_rate)
        second_sum = _drop_in_place(layer.narrow(active_MI), second_mask).add_(between)
        output_MW, *second_stats = layer.norm(second_sum)
        ctx.layer, ctx.sizes, ctx.first_only = layer, (rows, tokens, queries, width, head), first_only
        ctx.saved = (
            (values_NW, residual_MW, query, key, value),
            (weights, dropped, attention_mask, attended_MW, first_mask, first_sum, first_stats),
            (between, wide_MI, active_MI, second_mask, second_sum, second_stats),
        )
        return output_MW.view(rows, queries, width)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        layer, (rows, tokens, queries, width, head) = ctx.layer, ctx.sizes
        (values_NW, residual_MW, query, key, value), attention, feed_forward = ctx.saved
        ctx.saved = None
        weights, dropped, attention_mask, attended_MW, first_mask, first_sum, first_stats = attention
        between, wide_MI, active_MI, second_mask, second_sum, second_stats = feed_forward
        residual = layer.norm.backward(gradients[0].reshape(-1, width), second_sum, *second_stats)
        narrow = _masked(residual, second_mask)
        layer.narrow.write_gradients(narrow, active_MI)
        wide = gelu_backward(narrow @ layer.narrow.weight, wide_MI)
        layer.widen.write_gradients(wide, between)
        residual = torch.addmm(residual, wide, layer.widen.weight)
        residual = layer.attention_norm.backward(residual, first_sum, *first_stats)
        output = _masked(residual, first_mask)
        layer.after_attention.write_gradients(output, attended_MW)
        attended = (output @ layer.after_attention.weight).view(rows, queries, layer.heads, head)
        attended = attended.transpose(1, 2).reshape(rows * layer.heads, queries, head)
        scores = torch.bmm(attended, value.transpose(1, 2))
        scores = scores if attention_mask is None else scores.mul_(attention_mask)
        scores = softmax_backward(scores, weights).mul_(head**-0.5)

        def merge_heads(parts: list[torch.Tensor], length: int) -> torch.Tensor:
            """Rearrange parts of shape (B * H, length, D) to one tensor (B * length, parts * W)."""
            stacked = torch.stack(parts).view(len(parts), rows, layer.heads, length, head)
            return stacked.permute(1, 3, 0, 2, 4).reshape(rows * length, len(parts) * width)

        d_query = torch.bmm(scores, key)
        d_key, d_value = torch.bmm(scores.transpose(1, 2), query), torch.bmm(dropped.transpose(1, 2), attended)
        if not ctx.first_only:
            d_merged = merge_heads([d_query, d_key, d_value], tokens)
            layer.query_key_value.write_gradients(d_merged, values_NW)
            d_values_NW = torch.addmm(residual, d_merged, layer.query_key_value.weight)
            return d_values_NW.view(rows, tokens, width), *_NO_GRADIENTS
        query_linear = layer.query_key_value.slice_outputs(0, width)
        key_value_linear = layer.query_key_value.slice_outputs(width, 3 * width)
        d_query_MW, d_key_value = merge_heads([d_query], 1), merge_heads([d_key, d_value], tokens)
        query_linear.write_gradients(d_query_MW, residual_MW)
        key_value_linear.write_gradients(d_key_value, values_NW)
        d_values_BTW = (d_key_value @ key_value_linear.weight).view(rows, tokens, width)
        d_values_BTW[:, 0] += torch.addmm(residual, d_query_MW, query_linear.weight)
        return d_values_BTW, *_NO_GRADIENTS


_NO_GRADIENTS = (None, None, None, None)


def _drop_in_place(values_MW: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Multiply `values_MW` by the dropout mask in place, and return it."""
    return values_MW if mask is None else values_MW.mul_(mask.view(values_MW.shape))


def _masked(gradient_MW: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return the gradient times the dropout mask, as a new tensor: the caller still needs the original."""
    return gradient_MW if mask is None else gradient_MW * mask.view(gradient_MW.shape)
