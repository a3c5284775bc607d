"""What BERT and its relatives are made of, as the engines read it that compute these models in their own way.

Letters in shapes: V words, P positions, K kinds of token, W the model's width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from serve.engines.base import EngineError
from trainer.inference.predictor import Predictor

if TYPE_CHECKING:
    import torch

# Where the encoder is in the models whose head reads the first token of the last layer.
_PLACE = {
    "BertForSequenceClassification": "bert",
    "RobertaForSequenceClassification": "roberta",
    "XLMRobertaForSequenceClassification": "roberta",
    "CamembertForSequenceClassification": "roberta",
    "ElectraForSequenceClassification": "electra",
}


class Linear(NamedTuple):
    """A multiplication with a weight, and what follows it."""

    weight: torch.Tensor
    """Shape (out, in)."""
    bias: torch.Tensor
    then: str = ""
    """gelu, tanh or nothing."""


class Norm(NamedTuple):
    """A layer norm; both are of shape (W,)."""

    weight: torch.Tensor
    bias: torch.Tensor
    eps: float


class Layer(NamedTuple):
    """One layer, in the order in which it computes; after both norms' inputs what went into the layer is added."""

    query: Linear
    key: Linear
    value: Linear
    after_attention: Linear
    attention_norm: Norm
    widen: Linear
    narrow: Linear
    norm: Norm


class Encoder(NamedTuple):
    """The weights of a model, in fp32."""

    heads: int
    words: torch.Tensor
    """Shape (V, W)."""
    positions: torch.Tensor
    """Shape (P, W)."""
    padding: int | None
    """RoBERTa and its like count positions from this id on and leave out its tokens; None: from 0 on, all tokens."""
    kinds: torch.Tensor
    """Shape (K, W); tokens of a single text, or of a pair's first, are of kind 0."""
    words_norm: Norm
    layers: list[Layer]
    head: list[Linear]
    """What makes logits of a row's first token, one after the other."""


def encoder_of(predictor: Predictor) -> Encoder:
    """Return the weights of a model. Raises `EngineError` for one that it does not know."""
    model = predictor.model
    place = _PLACE.get(type(model).__name__)
    if place is None:
        raise EngineError(f"{type(model).__name__} is none of {', '.join(_PLACE)}")
    try:
        return _read(model, getattr(model, place))
    except AttributeError as error:  # another layout than that of the release this was written for
        raise EngineError(f"the model's layers are not as expected: {error}") from error


def _read(model: Any, encoder: Any) -> Encoder:
    words, config = encoder.embeddings, model.config
    relative = getattr(config, "position_embedding_type", "absolute") != "absolute"
    decodes = getattr(config, "is_decoder", False)
    if config.hidden_act != "gelu" or hasattr(encoder, "embeddings_project") or relative or decodes:
        raise EngineError("its layers are of another kind")
    counts = type(model).__name__.startswith(("Roberta", "XLMRoberta", "Camembert"))
    return Encoder(
        heads=config.num_attention_heads,
        words=words.word_embeddings.weight.detach().float(),
        positions=words.position_embeddings.weight.detach().float(),
        padding=int(words.padding_idx) if counts else None,
        kinds=words.token_type_embeddings.weight.detach().float(),
        words_norm=_norm(words.LayerNorm),
        layers=[_layer(layer) for layer in encoder.encoder.layer],
        head=_head(model, getattr(encoder, "pooler", None)),
    )


def _layer(layer: Any) -> Layer:
    own, output = layer.attention.self, layer.attention.output
    return Layer(
        query=_linear(own.query),
        key=_linear(own.key),
        value=_linear(own.value),
        after_attention=_linear(output.dense),
        attention_norm=_norm(output.LayerNorm),
        widen=_linear(layer.intermediate.dense, "gelu"),
        narrow=_linear(layer.output.dense),
        norm=_norm(layer.output.LayerNorm),
    )


def _head(model: Any, pooler: Any) -> list[Linear]:
    if pooler is not None:
        return [_linear(pooler.dense, "tanh"), _linear(model.classifier)]
    then = "gelu" if type(model).__name__.startswith("Electra") else "tanh"
    return [_linear(model.classifier.dense, then), _linear(model.classifier.out_proj)]


def _linear(module: Any, then: str = "") -> Linear:
    return Linear(module.weight.detach().float(), module.bias.detach().float(), then)


def _norm(module: Any) -> Norm:
    return Norm(module.weight.detach().float(), module.bias.detach().float(), module.eps)
