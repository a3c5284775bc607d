"""One layer of BERT, forwards and backwards by hand: a third of the operations that autograd takes for the same numbers.

Weights are those of a `FlatUpdater`, and their gradients are written straight to their places there: nothing is cast,
concatenated, allocated or added up on the way. Query, key and value are one multiplication. Where only the first token of the
output is asked for, all but keys and values are computed for that token alone.

Letters in shapes: B rows, T tokens, Q tokens that are asked for, W the model's width, H heads, D = W / H, M = B * Q,
N = B * T, I the width between the two multiplications.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from trainer.optim.bert.dropout import Noise

_ops = torch.ops.aten


class Linear(NamedTuple):
    """A weight (out, in), its bias, and where their gradients go."""

    weight: torch.Tensor
    bias: torch.Tensor
    weight_gradient: torch.Tensor
    bias_gradient: torch.Tensor

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.bias, values, self.weight.t())

    def learn(self, gradient: torch.Tensor, values: torch.Tensor) -> None:
        """Write the gradients of weight and bias: of the output, and the values that went in."""
        torch.mm(gradient.t(), values, out=self.weight_gradient)
        torch.sum(gradient, 0, out=self.bias_gradient)

    def rows(self, start: int, end: int) -> Linear:
        """Return the part that makes the outputs from `start` to `end`."""
        return Linear(*(part[start:end] for part in self))


class Norm(NamedTuple):
    """A layer norm, and where its gradients go."""

    weight: torch.Tensor
    bias: torch.Tensor
    weight_gradient: torch.Tensor
    bias_gradient: torch.Tensor
    eps: float

    def __call__(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return normed values, mean and reciprocal deviation."""
        return torch.native_layer_norm(values, self.weight.shape, self.weight, self.bias, self.eps)

    def back(
        self, gradient: torch.Tensor, values: torch.Tensor, mean: torch.Tensor, rstd: torch.Tensor
    ) -> torch.Tensor:
        """Write the gradients of weight and bias; returns that of `values`."""
        found, weight, bias = _ops.native_layer_norm_backward(
            gradient, values, self.weight.shape, mean, rstd, self.weight, self.bias, [True, True, True]
        )
        self.weight_gradient.copy_(weight)
        self.bias_gradient.copy_(bias)
        return found


class Layer(NamedTuple):
    """The parts of one layer; rates are those of dropout."""

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
    """Their numbers among the model's: of attention, after it, and at the end."""


class LayerFunction(torch.autograd.Function):
    """Values (B, T, W) to values (B, Q, W); `mask` (B, 1, 1, T) is added to scores, or None."""

    @staticmethod
    def forward(
        ctx: Any, values_BTW: torch.Tensor, mask: torch.Tensor | None, layer: Layer, noise: Noise, first_only: bool
    ) -> torch.Tensor:
        rows, tokens, width = values_BTW.shape
        asked = 1 if first_only else tokens
        head = width // layer.heads
        values_NW = values_BTW.reshape(rows * tokens, width)
        asking_MW = values_BTW[:, 0].contiguous() if first_only else values_NW

        def by_head(flat: torch.Tensor, parts: int, of: int) -> torch.Tensor:
            """(B * of, parts * W) to (parts, B * H, of, D)."""
            apart = flat.view(rows, of, parts, layer.heads, head).permute(2, 0, 3, 1, 4).contiguous()
            return apart.view(parts, rows * layer.heads, of, head)

        if first_only:
            (query,) = by_head(layer.query_key_value.rows(0, width)(asking_MW), 1, 1)
            key, value = by_head(layer.query_key_value.rows(width, 3 * width)(values_NW), 2, tokens)
        else:
            query, key, value = by_head(layer.query_key_value(values_NW), 3, tokens)
        scores = torch.bmm(query, key.transpose(1, 2)).mul_(head**-0.5)
        if mask is not None:
            scores.view(rows, layer.heads, asked, tokens).add_(mask)
        weights = torch.softmax(scores, -1)

        def kept(place: int, shape: tuple[int, ...], rate: float) -> torch.Tensor | None:
            return noise.mask(layer.sites[place], torch.Size(shape), rate, values_BTW.dtype) if rate else None

        attention_kept = kept(0, (rows, layer.heads, asked, tokens), layer.attention_rate)
        if attention_kept is not None:
            attention_kept = attention_kept.view(weights.shape)
        used = weights if attention_kept is None else weights * attention_kept
        found_MW = torch.bmm(used, value).view(rows, layer.heads, asked, head).transpose(1, 2).reshape(-1, width)
        first_kept = kept(1, (rows, asked, width), layer.hidden_rate)
        first_sum = _dropped(layer.after_attention(found_MW), first_kept).add_(asking_MW)
        between, *first_stats = layer.attention_norm(first_sum)
        wide_MI = layer.widen(between)
        active_MI = torch.nn.functional.gelu(wide_MI)
        second_kept = kept(2, (rows, asked, width), layer.hidden_rate)
        second_sum = _dropped(layer.narrow(active_MI), second_kept).add_(between)
        out_MW, *second_stats = layer.norm(second_sum)
        ctx.layer, ctx.sizes, ctx.first_only = layer, (rows, tokens, asked, width, head), first_only
        ctx.kept = (
            (values_NW, asking_MW, query, key, value),
            (weights, used, attention_kept, found_MW, first_kept, first_sum, first_stats),
            (between, wide_MI, active_MI, second_kept, second_sum, second_stats),
        )
        return out_MW.view(rows, asked, width)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        layer, (rows, tokens, asked, width, head) = ctx.layer, ctx.sizes
        (values_NW, asking_MW, query, key, value), attention, after = ctx.kept
        ctx.kept = None
        weights, used, attention_kept, found_MW, first_kept, first_sum, first_stats = attention
        between, wide_MI, active_MI, second_kept, second_sum, second_stats = after
        residual = layer.norm.back(gradients[0].reshape(-1, width), second_sum, *second_stats)
        narrow = _of_kept(residual, second_kept)
        layer.narrow.learn(narrow, active_MI)
        wide = _ops.gelu_backward(narrow @ layer.narrow.weight, wide_MI)
        layer.widen.learn(wide, between)
        residual = layer.attention_norm.back(torch.addmm(residual, wide, layer.widen.weight), first_sum, *first_stats)
        output = _of_kept(residual, first_kept)
        layer.after_attention.learn(output, found_MW)
        found = (output @ layer.after_attention.weight).view(rows, asked, layer.heads, head)
        found = found.transpose(1, 2).reshape(rows * layer.heads, asked, head)
        scores = torch.bmm(found, value.transpose(1, 2))
        scores = scores if attention_kept is None else scores.mul_(attention_kept)
        scores = _ops._softmax_backward_data(scores, weights, -1, weights.dtype).mul_(head**-0.5)

        def flat(parts: list[torch.Tensor], of: int) -> torch.Tensor:
            """(B * H, of, D) each to (B * of, parts * W) together."""
            together = torch.stack(parts).view(len(parts), rows, layer.heads, of, head)
            return together.permute(1, 3, 0, 2, 4).reshape(rows * of, len(parts) * width)

        d_query = torch.bmm(scores, key)
        d_key, d_value = torch.bmm(scores.transpose(1, 2), query), torch.bmm(used.transpose(1, 2), found)
        if not ctx.first_only:
            together = flat([d_query, d_key, d_value], tokens)
            layer.query_key_value.learn(together, values_NW)
            return torch.addmm(residual, together, layer.query_key_value.weight).view(
                rows, tokens, width
            ), *_NO_GRADIENTS
        asking, telling = layer.query_key_value.rows(0, width), layer.query_key_value.rows(width, 3 * width)
        asked_MW, told = flat([d_query], 1), flat([d_key, d_value], tokens)
        asking.learn(asked_MW, asking_MW)
        telling.learn(told, values_NW)
        into = (told @ telling.weight).view(rows, tokens, width)
        into[:, 0] += torch.addmm(residual, asked_MW, asking.weight)
        return into, *_NO_GRADIENTS


_NO_GRADIENTS = (None, None, None, None)


def _dropped(values_MW: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
    """Return the values that are kept; the values given are used up."""
    return values_MW if kept is None else values_MW.mul_(kept.view(values_MW.shape))


def _of_kept(gradient_MW: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
    """Return the gradient of values of which some were dropped; the one given is needed further on."""
    return gradient_MW if kept is None else gradient_MW * kept.view(gradient_MW.shape)
