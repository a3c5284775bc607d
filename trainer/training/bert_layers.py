"""The layers of BERT and its relatives, computed with less work on a CPU: the same weights, names and numbers.

- A head that reads the first token needs of the last layer that token alone: one sixth of MiniLM's arithmetic goes almost
  altogether.
- Query, key and value are one multiplication, and what goes from layer to layer stays in the matrices' own precision.
- Dropout goes by the row (`trainer.training.dropout`).

The module takes the place of the model's own encoder, whose layers it keeps, so weights have the names they had; it is
compared with it before it stays. Letters in shapes: B rows, T tokens, Q tokens that are asked for, W the model's width,
H heads, D = W / H.
"""

from __future__ import annotations

from typing import Any

import torch

from trainer.training.dropout import Noise, RowDropout, attend

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
        sites = [module.site for module in layers.modules() if isinstance(module, RowDropout)]
        self._first_site = 1_000 + max(sites, default=0)

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any) -> Any:
        """Return the first token of the last layer, shape (B, 1, W), as transformers' encoders return their output."""
        from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else hidden_states.dtype
        values_BTW = hidden_states.to(dtype)
        mask = _added(attention_mask, dtype)
        for number, layer in enumerate(self.layer):
            last = number == len(self.layer) - 1
            values_BTW = self._layer(layer, self._first_site + number, values_BTW, mask, first_only=last)
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=values_BTW)

    def _layer(
        self, layer: Any, site: int, values_BTW: torch.Tensor, mask: torch.Tensor | None, *, first_only: bool
    ) -> torch.Tensor:
        asking_BQW = values_BTW[:, :1] if first_only else values_BTW
        found_BQW = self._attention(layer.attention.self, site, asking_BQW, values_BTW, mask)
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


def lean(model: torch.nn.Module, noise: Noise) -> bool:
    """Put `BertLayers` into a model it knows; returns whether it did. `noise` is that of the model's dropouts."""
    place = _FIRST_TOKEN.get(type(model).__name__)
    config = getattr(model, "config", None)
    inner: Any = getattr(model, place, None) if place else None
    layers = getattr(getattr(inner, "encoder", None), "layer", None)
    if layers is None or getattr(config, "is_decoder", False) or getattr(config, "chunk_size_feed_forward", 0):
        return False
    own = inner.encoder
    was_training = model.training
    model.eval()
    try:
        before = _of_a_sample(model)
        inner.encoder = BertLayers(layers, noise).eval()
        same = torch.allclose(before, _of_a_sample(model), atol=_ABSOLUTE, rtol=_RELATIVE)
    except (AttributeError, TypeError, RuntimeError):  # another layout than that of the release this was written for
        same = False
    if not same:
        inner.encoder = own
    model.train(was_training)
    return same


def _of_a_sample(model: torch.nn.Module) -> torch.Tensor:
    """Return the logits of two rows, one of them padded."""
    words = min(100, model.get_input_embeddings().num_embeddings)  # type: ignore[operator]
    ids = torch.arange(12).view(2, 6) % words
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=ids, attention_mask=mask).logits
    return logits
