"""The sizes of an encoder of the BERT family, from its config.json and the headers of its files."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NamedTuple

from trainer.models.model_facts import is_frozen, is_word_embedding, lora_weights, read_config, tensor_shapes
from trainer.planning.row_facts import RowFacts
from trainer.spec.run import RunSpec

#: Types whose layers raymill knows on CPUs (`trainer.optim.bert.encoder`), and whose memory has a closed formula.
BERT_FAMILY = frozenset({"bert", "roberta", "xlm-roberta", "camembert", "electra", "ernie"})
# As in `trainer.training.compact_vocabulary`.
_FIXED_IDS, _MOST_USED = 256, 0.7
_LAYER = re.compile(r"(?:^|\.)layer\.\d+\.")


class WeightCounts(NamedTuple):
    """Numbers of weights of a model in training, with its new head."""

    all: int
    trained: int
    """Weights that the optimizer changes, with all rows of the word embedding."""
    in_layers: int = 0
    """Weights of the repeated layers if all of them are trained, else 0."""
    word_embedding: int = 0
    """Weights of the word embedding; 0 if it is not known or not trained."""
    vocabulary: int = 0
    largest: int = 0
    """Weights of the largest trained matrix besides the word embedding."""
    adapters: int = 0
    """Weights of LoRA's matrices."""


class EncoderShape(NamedTuple):
    """The sizes that the activations of an encoder depend on."""

    layers: int
    width: int
    heads: int
    intermediate: int
    hidden_dropout: float
    attention_dropout: float


def read_encoder_shape(config: dict[str, object]) -> EncoderShape | None:
    """Return the sizes of a model of the BERT family, None for any other model."""
    if config.get("model_type") not in BERT_FAMILY:
        return None
    keys = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    sizes = [config.get(key) for key in keys]
    rates = [config.get(key, 0.1) for key in ("hidden_dropout_prob", "attention_probs_dropout_prob")]
    if not all(isinstance(size, int) for size in sizes):
        return None
    return EncoderShape(*sizes, *rates)  # type: ignore[arg-type]


def count_weights(folder: Path, spec: RunSpec, outputs: int) -> WeightCounts:
    """Return the numbers of weights of the base model in `folder` with a new head, as `spec` trains it.

    The head counts as one layer of the model's width and one of `outputs`.
    """
    config = read_config(folder)
    width = config.get("hidden_size") or config.get("dim") or 0
    head = (int(width) + outputs) * (int(width) + 1) if isinstance(width, int) else 0
    total = trained = layers = frozen_in_layers = embedding = vocabulary = largest = adapters = 0
    for name, shape in tensor_shapes(folder):
        size = math.prod(shape)
        total += size
        layers += size if _LAYER.search(name) else 0
        adapters += lora_weights(spec.model.lora, name, shape) if spec.model.lora else 0
        if spec.model.lora or is_frozen(name, spec.train.freeze):
            frozen_in_layers += size if _LAYER.search(name) else 0
            continue
        trained += size
        if is_word_embedding(folder, shape):
            embedding, vocabulary = size, shape[0]
        else:
            largest = max(largest, size)
    return WeightCounts(
        all=total + head + adapters,
        trained=trained + head + adapters,
        in_layers=0 if frozen_in_layers else layers,
        word_embedding=embedding,
        vocabulary=vocabulary,
        largest=largest,
        adapters=adapters,
    )


def count_used_rows(weights: WeightCounts, facts: RowFacts, spec: RunSpec) -> int | None:
    """Return the rows of the word embedding that are trained, as `trainer.training.compact_vocabulary` chooses them.

    None if all are, or if the tokens are not counted. If the rows are not known, the fewest.
    """
    if spec.cluster.strategy == "fsdp" or spec.data.mode == "streaming" or not weights.word_embedding:
        return None
    if not facts.is_known:
        return min(weights.vocabulary, _FIXED_IDS)
    if facts.used_tokens is None:
        return None
    used = min(weights.vocabulary, facts.used_tokens + _FIXED_IDS)
    return used if used <= _MOST_USED * weights.vocabulary else None
