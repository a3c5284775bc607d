"""A faster encoder for BERT and similar models on CPUs, with the same weights, parameter names and results.

- If the head reads only the first token, the last layer computes only this token. That saves almost all work of the
  layer: one sixth of MiniLM's arithmetic.
- Query, key and value are computed in one multiplication, and activations between layers stay in the precision of the
  matrices.
- Dropout depends on the row alone (`trainer.optim.bert.dropout`).
- If a `FlatUpdater` holds all weights of the layers, training uses hand-written forward and backward passes
  (`trainer.optim.bert.layer`). Otherwise, for example with LoRA or frozen layers, it uses autograd.

`BertLayers` replaces the model's own encoder and keeps its layers, so weights keep their names. It is installed only if
the model then gives the same logits. Letters in shapes: B rows, T tokens, Q tokens whose output is needed, W the
model's width, H heads, D = W / H.
"""

from __future__ import annotations

from typing import Any

import torch

from trainer.optim.bert.dropout import RowMasks, attend
from trainer.optim.bert.layer import Layer, LayerFunction, Linear, Norm
from trainer.optim.flat_updater import FlatUpdater

F = torch.nn.functional

# Models whose head reads the first token of the last layer, and the attribute that holds their encoder.
_FIRST_TOKEN = {
    "BertForSequenceClassification": "bert",
    "RobertaForSequenceClassification": "roberta",
    "XLMRobertaForSequenceClassification": "roberta",
    "CamembertForSequenceClassification": "roberta",
    "ElectraForSequenceClassification": "electra",
    "ErnieForSequenceClassification": "ernie",
}
# The allowed difference between the logits with `BertLayers` and with the original encoder, both in fp32.
_ABSOLUTE, _RELATIVE = 2e-5, 1e-3


class BertLayers(torch.nn.Module):
    """A replacement of `BertEncoder`, or a similar encoder, in a model whose head reads only the first token."""

    def __init__(self, layers: torch.nn.ModuleList, masks: RowMasks) -> None:
        super().__init__()
        self.layer = layers
        self._masks = masks
        self._by_hand: list[Layer] = []

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any) -> Any:
        """Return the first token of the last layer, shape (B, 1, W), in the output class of transformers' encoders."""
        from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

        values_BTW = hidden_states.to(self._dtype(hidden_states))
        mask = _additive_mask(attention_mask, values_BTW.dtype)
        by_hand = self._by_hand if self.training and torch.is_grad_enabled() else []
        if by_hand and not values_BTW.requires_grad:  # LayerFunction's backward runs only if its input needs a gradient
            values_BTW = values_BTW.detach().requires_grad_()
        for number, layer in enumerate(self.layer):
            last = number == len(self.layer) - 1
            if by_hand:
                values_BTW = LayerFunction.apply(values_BTW, mask, by_hand[number], self._masks, last)
            else:
                values_BTW = self._by_autograd(layer, number, values_BTW, mask, first_only=last)
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=values_BTW)

    def _dtype(self, hidden_states: torch.Tensor) -> torch.dtype:
        if self._by_hand:
            return self._by_hand[0].norm.weight.dtype
        return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else hidden_states.dtype

    def direct_parameters(self) -> list[torch.nn.Parameter]:
        """Return the parameters for the hand-written passes; [] if a layer is not standard or a parameter is frozen."""
        parameters = list(self.layer.parameters())
        standard = all(_is_standard(layer) for layer in self.layer)
        return parameters if standard and all(value.requires_grad for value in parameters) else []

    def attach(self, updater: FlatUpdater) -> None:
        """Use the hand-written passes in training, if `updater` holds the weights of each layer in adjacent memory."""
        layers = [_layer_views(layer, updater, number) for number, layer in enumerate(self.layer)]
        self._by_hand = [layer for layer in layers if layer is not None] if None not in layers else []

    def _by_autograd(
        self, layer: Any, number: int, values_BTW: torch.Tensor, mask: torch.Tensor | None, *, first_only: bool
    ) -> torch.Tensor:
        residual_BQW = values_BTW[:, :1] if first_only else values_BTW
        attended_BQW = self._attention(layer.attention.self, _attention_site(number), residual_BQW, values_BTW, mask)
        between_BQW = _add_and_norm(layer.attention.output, attended_BQW, residual_BQW)
        return _add_and_norm(layer.output, layer.intermediate(between_BQW), between_BQW)

    def _attention(
        self, own: Any, site: int, query_BQW: torch.Tensor, values_BTW: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        if query_BQW is values_BTW:
            query, key, value = _apply_linears([own.query, own.key, own.value], values_BTW)
        else:
            (query,) = _apply_linears([own.query], query_BQW)
            key, value = _apply_linears([own.key, own.value], values_BTW)
        heads = (own.num_attention_heads, own.attention_head_size)
        query_BHQD, key_BHTD, value_BHTD = (part.unflatten(-1, heads).transpose(1, 2) for part in (query, key, value))
        query_BHQD = query_BHQD * own.attention_head_size**-0.5
        rate = own.dropout.p if self.training else 0.0
        output_BHQD = attend(query_BHQD, key_BHTD, value_BHTD, mask, self._masks, site, rate)
        return output_BHQD.transpose(1, 2).flatten(2)


def _attention_site(layer: int) -> int:
    """Return the dropout site of a layer's attention: a number above the sites of all dropout modules."""
    return 100_000 + layer


def _is_standard(layer: Any) -> bool:
    linears = [
        layer.attention.self.query,
        layer.attention.self.key,
        layer.attention.self.value,
        layer.attention.output.dense,
        layer.intermediate.dense,
        layer.output.dense,
    ]
    gelu = type(layer.intermediate.intermediate_act_fn).__name__ == "GELUActivation"
    return gelu and all(type(linear) is torch.nn.Linear and linear.bias is not None for linear in linears)


def _layer_views(layer: Any, updater: FlatUpdater, number: int) -> Layer | None:
    """Return a layer's weights as views of the updater's tensors; None if they are not adjacent in these."""
    own, output = layer.attention.self, layer.attention.output
    linears = {
        "query_key_value": [own.query, own.key, own.value],
        "after_attention": [output.dense],
        "widen": [layer.intermediate.dense],
        "narrow": [layer.output.dense],
    }
    parts: dict[str, Any] = {}
    for name, modules in linears.items():
        weight = updater.adjacent_views([module.weight for module in modules])
        bias = updater.adjacent_views([module.bias for module in modules])
        if weight is None or bias is None:
            return None
        parts[name] = Linear(weight[0], bias[0], weight[1], bias[1])
    for name, module in {"attention_norm": output.LayerNorm, "norm": layer.output.LayerNorm}.items():
        weight, bias = updater.adjacent_views([module.weight]), updater.adjacent_views([module.bias])
        if weight is None or bias is None:
            return None
        parts[name] = Norm(weight[0], bias[0], weight[1], bias[1], module.eps)
    rates = {"attention_rate": own.dropout.p, "hidden_rate": output.dropout.p}
    after, last = (getattr(block.dropout, "site", 0) for block in (output, layer.output))
    return Layer(**parts, **rates, heads=own.num_attention_heads, sites=(_attention_site(number), after, last))


def _additive_mask(mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """Return transformers' mask as a float tensor to add to the scores."""
    if mask is None or mask.dtype is not torch.bool:
        return None if mask is None else mask.to(dtype)
    # All rows of a bidirectional mask are equal: one is enough.
    mask = mask[:, :, :1]
    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


def _apply_linears(linears: list[Any], values: torch.Tensor) -> list[torch.Tensor]:
    """Return the output of each layer for `values`, in one multiplication if all are plain linear layers."""
    if any(type(linear) is not torch.nn.Linear for linear in linears):  # for example with LoRA
        return [linear(values) for linear in linears]
    weight = torch.cat([linear.weight.to(values.dtype) for linear in linears])
    bias = torch.cat([linear.bias.to(values.dtype) for linear in linears])
    return list(F.linear(values, weight, bias).split([linear.out_features for linear in linears], dim=-1))


def _add_and_norm(own: Any, values: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    """Compute `BertOutput` or `BertSelfOutput` in the dtype of the residual."""
    summed = own.dropout(own.dense(values)) + residual
    norm = own.LayerNorm
    return F.layer_norm(
        summed, norm.normalized_shape, norm.weight.to(summed.dtype), norm.bias.to(summed.dtype), norm.eps
    )


def install_bert_layers(model: torch.nn.Module, masks: RowMasks) -> BertLayers | None:
    """Install `BertLayers` in a supported model and return them; return None for any other model.

    `masks` is what `install_row_dropout` returned for the model.
    """
    attribute = _FIRST_TOKEN.get(type(model).__name__)
    config = getattr(model, "config", None)
    inner: Any = getattr(model, attribute, None) if attribute else None
    layers = getattr(getattr(inner, "encoder", None), "layer", None)
    if layers is None or getattr(config, "is_decoder", False) or getattr(config, "chunk_size_feed_forward", 0):
        return None
    original = inner.encoder
    was_training = model.training
    model.eval()
    replacement = BertLayers(layers, masks).eval()
    try:
        expected = _sample_logits(model)
        inner.encoder = replacement
        same = torch.allclose(expected, _sample_logits(model), atol=_ABSOLUTE, rtol=_RELATIVE)
    except (AttributeError, TypeError, RuntimeError):  # a transformers release with another layout
        same = False
    if not same:
        inner.encoder = original
    model.train(was_training)
    return replacement if same else None


def _sample_logits(model: torch.nn.Module) -> torch.Tensor:
    """Return the logits of two rows, one of them padded."""
    words = min(100, model.get_input_embeddings().num_embeddings)  # type: ignore[operator]
    ids = torch.arange(12).view(2, 6) % words
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=ids, attention_mask=mask).logits
    return logits
