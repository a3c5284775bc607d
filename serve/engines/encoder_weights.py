"""The weights of BERT and similar encoders, for the engines that do not use the model's own forward pass.

Letters in shapes: V vocabulary, P positions, K token types, W the model's width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from serve.engines.base import EngineError
from trainer.inference.predictor import Predictor

if TYPE_CHECKING:
    import torch

# Supported model classes (their head reads the first token of the last layer) -> the attribute that holds the encoder.
_ENCODER_ATTRIBUTE = {
    "BertForSequenceClassification": "bert",
    "RobertaForSequenceClassification": "roberta",
    "XLMRobertaForSequenceClassification": "roberta",
    "CamembertForSequenceClassification": "roberta",
    "ElectraForSequenceClassification": "electra",
}


class LinearWeights(NamedTuple):
    """A linear layer and the activation after it."""

    weight: torch.Tensor
    """Shape (out, in)."""
    bias: torch.Tensor
    activation: str = ""
    """`gelu`, `tanh`, or "" for no activation."""


class NormWeights(NamedTuple):
    """A layer norm; weight and bias have shape (W,)."""

    weight: torch.Tensor
    bias: torch.Tensor
    eps: float


class LayerWeights(NamedTuple):
    """One encoder layer, in order of computation; each norm is applied after the residual is added."""

    query: LinearWeights
    key: LinearWeights
    value: LinearWeights
    attention_output: LinearWeights
    attention_norm: NormWeights
    intermediate: LinearWeights
    output: LinearWeights
    output_norm: NormWeights


class EncoderWeights(NamedTuple):
    """The weights of an encoder with its classification head, in fp32."""

    heads: int
    words: torch.Tensor
    """Shape (V, W)."""
    positions: torch.Tensor
    """Shape (P, W)."""
    padding: int | None
    """The id of the padding token. RoBERTa and similar models count positions from this id and skip padding tokens.
    None: positions count all tokens from 0."""
    token_types: torch.Tensor
    """Shape (K, W). The tokens of a single text, and of the first text of a pair, have type 0."""
    embedding_norm: NormWeights
    layers: list[LayerWeights]
    head: list[LinearWeights]
    """The linear layers, in order, that turn a row's first token into logits."""


def read_encoder(predictor: Predictor) -> EncoderWeights:
    """Return the weights of the predictor's model. Raises `EngineError` if its class or layout is not supported."""
    model = predictor.model
    attribute = _ENCODER_ATTRIBUTE.get(type(model).__name__)
    if attribute is None:
        raise EngineError(f"{type(model).__name__} is not one of {', '.join(_ENCODER_ATTRIBUTE)}")
    try:
        return _read_model(model, getattr(model, attribute))
    except AttributeError as error:  # another release of transformers may name the layers differently
        raise EngineError(f"the model's layers are not as expected: {error}") from error


def _read_model(model: Any, encoder: Any) -> EncoderWeights:
    embeddings, config = encoder.embeddings, model.config
    is_relative = getattr(config, "position_embedding_type", "absolute") != "absolute"
    is_decoder = getattr(config, "is_decoder", False)
    if config.hidden_act != "gelu" or hasattr(encoder, "embeddings_project") or is_relative or is_decoder:
        raise EngineError("the model's layers have options that this engine does not support")
    skips_padding = type(model).__name__.startswith(("Roberta", "XLMRoberta", "Camembert"))
    return EncoderWeights(
        heads=config.num_attention_heads,
        words=embeddings.word_embeddings.weight.detach().float(),
        positions=embeddings.position_embeddings.weight.detach().float(),
        padding=int(embeddings.padding_idx) if skips_padding else None,
        token_types=embeddings.token_type_embeddings.weight.detach().float(),
        embedding_norm=_read_norm(embeddings.LayerNorm),
        layers=[_read_layer(layer) for layer in encoder.encoder.layer],
        head=_read_head(model, getattr(encoder, "pooler", None)),
    )


def _read_layer(layer: Any) -> LayerWeights:
    attention, output = layer.attention.self, layer.attention.output
    return LayerWeights(
        query=_read_linear(attention.query),
        key=_read_linear(attention.key),
        value=_read_linear(attention.value),
        attention_output=_read_linear(output.dense),
        attention_norm=_read_norm(output.LayerNorm),
        intermediate=_read_linear(layer.intermediate.dense, "gelu"),
        output=_read_linear(layer.output.dense),
        output_norm=_read_norm(layer.output.LayerNorm),
    )


def _read_head(model: Any, pooler: Any) -> list[LinearWeights]:
    if pooler is not None:
        return [_read_linear(pooler.dense, "tanh"), _read_linear(model.classifier)]
    activation = "gelu" if type(model).__name__.startswith("Electra") else "tanh"
    return [_read_linear(model.classifier.dense, activation), _read_linear(model.classifier.out_proj)]


def _read_linear(module: Any, activation: str = "") -> LinearWeights:
    return LinearWeights(module.weight.detach().float(), module.bias.detach().float(), activation)


def _read_norm(module: Any) -> NormWeights:
    return NormWeights(module.weight.detach().float(), module.bias.detach().float(), module.eps)
