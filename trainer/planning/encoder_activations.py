"""The activations of an encoder of the BERT family in training: what the backward pass needs of each operation.

The formula counts the tensors that `trainer.optim.bert.layer` saves. A layer computed by autograd, as with LoRA, saves
tensors of the same sizes: the input of each matrix product whose weight or other input needs a gradient, the output of
softmax, dropout masks as numbers, and the inputs of GELU and of layer norms.

Letters: B rows of a pass, T tokens, N = B x T, W the model's width, H heads, I the intermediate width, L layers, s bytes of
a number.
"""

from __future__ import annotations

from typing import NamedTuple

from trainer.planning.encoder_shape import EncoderShape
from trainer.planning.term import Term, times, without_empty

_FP32, _IDS = 4, 8


class PassSize(NamedTuple):
    """The size of one forward and backward pass."""

    rows: int
    tokens: int
    """Tokens of the longest row: shorter rows are padded to it."""
    number_bytes: int = _FP32
    """Bytes of a number in the layers: 4 in fp32, 2 in bf16 and fp16."""
    is_bound: bool = False
    """Whether the size is an upper bound."""


class EncoderOptions(NamedTuple):
    """How an encoder is trained."""

    on_gpu: bool = False
    """Fused attention keeps no scores, and dropout masks are bytes."""
    checkpointed: bool = False
    """Whether layers are computed again in the backward pass."""
    embeddings_learn: bool = True
    adapter_outputs: int = 0
    """Sum of the ranks of LoRA's matrices in one layer."""


def encoder_activations(shape: EncoderShape, size: PassSize, options: EncoderOptions) -> tuple[Term, ...]:
    """Return the terms of what a pass keeps until its backward pass, and of what the backward pass works with."""
    rows, tokens, number_bytes, is_bound = size
    n_tokens = rows * tokens
    per_width = n_tokens * shape.width * number_bytes
    saved = _layer_bytes(shape, size, options)
    terms = [
        times(
            "embeddings: inputs of norm, dropout mask, token ids",
            "N tokens x (W x 4 bytes x (1 + dropout) + 3 x 8)",
            n_tokens,
            (shape.width * _FP32 * (1 + _on(shape.hidden_dropout)) if options.embeddings_learn else 0) + 3 * _IDS,
            is_bound=is_bound,
        )
    ]
    if options.checkpointed:
        terms += [
            times(
                "layers: their inputs, and the last output",
                "(L + 1) x N x W x s",
                shape.layers + 1,
                per_width,
                is_bound=is_bound,
            ),
            _layer_term("one layer, computed again", 1, shape, size, options, saved),
        ]
    else:
        # The last layer computes its first token only, so it keeps its input, keys and values.
        terms += [
            _layer_term("layers but the last", shape.layers - 1, shape, size, options, saved),
            times("last layer: input, keys and values", "3 x N x W x s", 3, per_width, is_bound=is_bound),
        ]
    return without_empty([*terms, _working_term(shape, size, options)])


def _on(rate: float) -> int:
    return 1 if rate > 0 else 0


def _layer_bytes(shape: EncoderShape, size: PassSize, options: EncoderOptions) -> int:
    """Return the bytes that one layer keeps for its backward pass."""
    s, n_tokens = size.number_bytes, size.rows * size.tokens
    mask_bytes = 1 if options.on_gpu else s
    # Input, query, key, value, attended values, the sum before each norm, the first norm's output.
    wide = n_tokens * shape.width * (8 * s + 2 * mask_bytes * _on(shape.hidden_dropout))
    inner = 2 * n_tokens * shape.intermediate * s  # before and after GELU
    scores = 0
    if not options.on_gpu:  # weights; with dropout also the mask and the product
        scores = size.rows * shape.heads * size.tokens**2 * s * (1 + 2 * _on(shape.attention_dropout))
    return wide + inner + scores + n_tokens * options.adapter_outputs * _FP32


def _layer_term(
    name: str, count: int, shape: EncoderShape, size: PassSize, options: EncoderOptions, saved: int
) -> Term:
    s, masks = size.number_bytes, _on(shape.hidden_dropout)
    n_tokens, score_parts = size.rows * size.tokens, 1 + 2 * _on(shape.attention_dropout)
    if options.on_gpu:
        formula = "layers x N x (W x (8 s + 2 dropout masks) + 2 I x s)"
        values = f"{count} x {n_tokens:,} x ({shape.width} x {8 * s + 2 * masks} + 2 x {shape.intermediate} x {s})"
    else:
        formula = "layers x s x (N x (W x (8 + 2 dropout masks) + 2 I) + B x H x T^2 x (1 + 2 with dropout))"
        values = (
            f"{count} x {s} x ({n_tokens:,} x ({shape.width} x {8 + 2 * masks} + 2 x {shape.intermediate}) + "
            f"{size.rows} x {shape.heads} x {size.tokens}^2 x {score_parts})"
        )
    if options.adapter_outputs:
        formula += " + layers x N x sum of LoRA's ranks x 4"
        values += f" + {count} x {n_tokens:,} x {options.adapter_outputs} x 4"
    return Term(name, formula, values, count * saved, is_bound=size.is_bound)


def _working_term(shape: EncoderShape, size: PassSize, options: EncoderOptions) -> Term:
    """Return the largest set of tensors that the backward pass of one layer makes besides those that are saved."""
    s, n_tokens = size.number_bytes, size.rows * size.tokens
    wide, inner = n_tokens * shape.width, n_tokens * shape.intermediate
    scores = 0 if options.on_gpu else size.rows * shape.heads * size.tokens**2
    stages = [2 * inner + 4 * wide, inner + 5 * wide + 2 * scores, inner + 14 * wide + scores]
    return Term(
        "gradients of activations in the backward pass of one layer",
        "s x max(N (2 I + 4 W), N (I + 5 W) + 2 B H T^2, N (I + 14 W) + B H T^2)",
        f"{s} x max({stages[0]:,}, {stages[1]:,}, {stages[2]:,})",
        s * max(stages),
        is_bound=size.is_bound,
    )
