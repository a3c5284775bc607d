"""The layers of BERT and its relatives, computed with less work on a CPU: the same weights, names and numbers.

- A head that reads the first token needs of the last layer that token alone: one sixth of MiniLM's arithmetic goes almost
  altogether.
- Query, key and value are one multiplication, and what goes from layer to layer stays in the matrices' own precision.
- Dropout goes by the row (`trainer.optim.bert.dropout`).
- While a `FlatUpdater` has all their weights, a layer is computed by hand (`trainer.optim.bert.layer`); else, as with LoRA
  or frozen layers, by autograd.

The module takes the place of the model's own encoder, whose layers it keeps, so weights have the names they had; it is
compared with it before it stays. Letters in shapes: B rows, T tokens, Q tokens that are asked for, W the model's width,
H heads, D = W / H.
"""

from __future__ import annotations

from typing import Any

import torch

from trainer.optim.bert.dropout import Noise, attend
from trainer.optim.bert.layer import Layer, LayerFunction, Linear, Norm
from trainer.optim.flat_updater import FlatUpdater

F = torch.nn.functional

# Models whose head reads the first token of the last layer, and where their encoder is.
_FIRST_TOKEN = {
    "BertForSequenceClassification": "bert",
    "RobertaForSequenceClassification": "roberta",
    "XLMRobertaForSequenceClassification": "roberta",
    "CamembertForSequenceClassification": "roberta",
    "ElectraForSequenceClassification": "electra",
    "ErnieForSequenceClassification": "ernie",
}
# How far the logits may be from the model's own, both in fp32: absolutely, and of themselves.
_ABSOLUTE, _RELATIVE = 2e-5, 1e-3


class BertLayers(torch.nn.Module):
    """In the place of `BertEncoder` and the like, in a model that reads the first token of its output."""

    def __init__(self, layers: torch.nn.ModuleList, noise: Noise) -> None:
        super().__init__()
        self.layer = layers
        self._noise = noise
        self._by_hand: list[Layer] = []

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any) -> Any:
        """Return the first token of the last layer, shape (B, 1, W), as transformers' encoders return their output."""
        from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

        values_BTW = hidden_states.to(self._dtype(hidden_states))
        mask = _added(attention_mask, values_BTW.dtype)
        by_hand = self._by_hand if self.training and torch.is_grad_enabled() else []
        if by_hand and not values_BTW.requires_grad:  # autograd must come by, whoever learns below
            values_BTW = values_BTW.detach().requires_grad_()
        for number, layer in enumerate(self.layer):
            last = number == len(self.layer) - 1
            if by_hand:
                values_BTW = LayerFunction.apply(values_BTW, mask, by_hand[number], self._noise, last)
            else:
                values_BTW = self._by_autograd(layer, number, values_BTW, mask, first_only=last)
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=values_BTW)

    def _dtype(self, hidden_states: torch.Tensor) -> torch.dtype:
        if self._by_hand:
            return self._by_hand[0].norm.weight.dtype
        return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else hidden_states.dtype

    def direct(self) -> list[torch.nn.Parameter]:
        """Return the parameters that `use` could compute the gradients of; none where some layer is not a plain one."""
        parameters = list(self.layer.parameters())
        plain = all(_is_plain(layer) for layer in self.layer) and all(value.requires_grad for value in parameters)
        return parameters if plain else []

    def use(self, updater: FlatUpdater) -> None:
        """Compute layers by hand from now on while training, if `updater` has their weights side by side."""
        found = [_by_hand(layer, updater, number) for number, layer in enumerate(self.layer)]
        self._by_hand = [layer for layer in found if layer is not None] if None not in found else []

    def _by_autograd(
        self, layer: Any, number: int, values_BTW: torch.Tensor, mask: torch.Tensor | None, *, first_only: bool
    ) -> torch.Tensor:
        asking_BQW = values_BTW[:, :1] if first_only else values_BTW
        found_BQW = self._attention(layer.attention.self, _site(number), asking_BQW, values_BTW, mask)
        after_BQW = _added_and_normed(layer.attention.output, found_BQW, asking_BQW)
        return _added_and_normed(layer.output, layer.intermediate(after_BQW), after_BQW)

    def _attention(
        self, own: Any, site: int, asking_BQW: torch.Tensor, values_BTW: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        if asking_BQW is values_BTW:
            query, key, value = _multiplied([own.query, own.key, own.value], values_BTW)
        else:
            (query,) = _multiplied([own.query], asking_BQW)
            key, value = _multiplied([own.key, own.value], values_BTW)
        by_head = (-1, own.num_attention_heads, own.attention_head_size)
        query_BHQD, key_BHTD, value_BHTD = (
            part.unflatten(-1, by_head[1:]).transpose(1, 2) for part in (query, key, value)
        )
        query_BHQD = query_BHQD * own.attention_head_size**-0.5
        rate = own.dropout.p if self.training else 0.0
        found_BHQD = attend(query_BHQD, key_BHTD, value_BHTD, mask, self._noise, site, rate)
        return found_BHQD.transpose(1, 2).flatten(2)


def _site(layer: int) -> int:
    """Return the number of a layer's attention among a model's dropouts: those of its modules are below."""
    return 100_000 + layer


def _is_plain(layer: Any) -> bool:
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


def _by_hand(layer: Any, updater: FlatUpdater, number: int) -> Layer | None:
    """Return the parts of a layer where `updater` has them; None where they do not lie as they must."""
    own, output = layer.attention.self, layer.attention.output
    linears = {
        "query_key_value": [own.query, own.key, own.value],
        "after_attention": [output.dense],
        "widen": [layer.intermediate.dense],
        "narrow": [layer.output.dense],
    }
    parts: dict[str, Any] = {}
    for name, modules in linears.items():
        weight = updater.beside([module.weight for module in modules])
        bias = updater.beside([module.bias for module in modules])
        if weight is None or bias is None:
            return None
        parts[name] = Linear(weight[0], bias[0], weight[1], bias[1])
    for name, module in {"attention_norm": output.LayerNorm, "norm": layer.output.LayerNorm}.items():
        weight, bias = updater.beside([module.weight]), updater.beside([module.bias])
        if weight is None or bias is None:
            return None
        parts[name] = Norm(weight[0], bias[0], weight[1], bias[1], module.eps)
    rates = {"attention_rate": own.dropout.p, "hidden_rate": output.dropout.p}
    after, at_end = (getattr(each.dropout, "site", 0) for each in (output, layer.output))
    return Layer(**parts, **rates, heads=own.num_attention_heads, sites=(_site(number), after, at_end))


def _added(mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """Return transformers' mask as what is added to scores."""
    if mask is None or mask.dtype is not torch.bool:
        return None if mask is None else mask.to(dtype)
    # All rows of a mask in both directions are alike: one is enough.
    mask = mask[:, :, :1]
    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


def _multiplied(linears: list[Any], values: torch.Tensor) -> list[torch.Tensor]:
    """Return what each of the layers makes of `values`, in one multiplication where they are plain ones."""
    if any(type(linear) is not torch.nn.Linear for linear in linears):  # with LoRA beside it, say
        return [linear(values) for linear in linears]
    weight = torch.cat([linear.weight.to(values.dtype) for linear in linears])
    bias = torch.cat([linear.bias.to(values.dtype) for linear in linears])
    return list(F.linear(values, weight, bias).split([linear.out_features for linear in linears], dim=-1))


def _added_and_normed(own: Any, values: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    """Return what `BertOutput` and `BertSelfOutput` do, without leaving the dtype of the residual."""
    summed = own.dropout(own.dense(values)) + residual
    norm = own.LayerNorm
    return F.layer_norm(
        summed, norm.normalized_shape, norm.weight.to(summed.dtype), norm.bias.to(summed.dtype), norm.eps
    )


def lean(model: torch.nn.Module, noise: Noise) -> BertLayers | None:
    """Put `BertLayers` into a model it knows and return them, else None. `noise` is that of the model's dropouts."""
    place = _FIRST_TOKEN.get(type(model).__name__)
    config = getattr(model, "config", None)
    inner: Any = getattr(model, place, None) if place else None
    layers = getattr(getattr(inner, "encoder", None), "layer", None)
    if layers is None or getattr(config, "is_decoder", False) or getattr(config, "chunk_size_feed_forward", 0):
        return None
    own = inner.encoder
    was_training = model.training
    model.eval()
    ours = BertLayers(layers, noise).eval()
    try:
        before = _of_a_sample(model)
        inner.encoder = ours
        same = torch.allclose(before, _of_a_sample(model), atol=_ABSOLUTE, rtol=_RELATIVE)
    except (AttributeError, TypeError, RuntimeError):  # another layout than that of the release this was written for
        same = False
    if not same:
        inner.encoder = own
    model.train(was_training)
    return ours if same else None


def _of_a_sample(model: torch.nn.Module) -> torch.Tensor:
    """Return the logits of two rows, one of them padded."""
    words = min(100, model.get_input_embeddings().num_embeddings)  # type: ignore[operator]
    ids = torch.arange(12).view(2, 6) % words
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=ids, attention_mask=mask).logits
    return logits
