"""The memory of a model in training besides its activations: weights, gradients, optimizer, averages and copies."""

from __future__ import annotations

from typing import NamedTuple

from trainer.planning.encoder_shape import WeightCounts
from trainer.planning.term import Term, times, without_empty
from trainer.spec.run import RunSpec

_FP32 = 4
_MOMENTS = 2
# bitsandbytes stores a byte for each moment and a 4-byte scale for each block of 256.
_8BIT_BYTES = 2 * (1 + 4 / 256)
# bitsandbytes stores half a byte for a weight of 4 bits, a 1-byte scale for each block of 64, and a 4-byte scale for 256 of
# those.
_4BIT_BYTES = 0.5 + (1 + 4 / 256) / 64


class ModelUse(NamedTuple):
    """How a training holds its model."""

    by_hand: bool = False
    """Whether hand-written layers multiply by copies of their weights and write gradients of their own, on CPUs."""
    has_fused_attention: bool = False
    """Whether attention is one operation without scores in memory."""
    number_bytes: int = _FP32
    """Bytes of a number in matrix products."""
    used_rows: int | None = None
    """Rows of the word embedding that are trained; None: all."""
    shards: int = 1
    """Workers among which weights, gradients and optimizer are divided (FSDP)."""
    quantized: int = 0
    """Frozen weights that are held in 4 bits."""
    buckets: bool = False
    """Whether DDP collects gradients in buckets of its own, on GPUs."""


def model_terms(spec: RunSpec, weights: WeightCounts, use: ModelUse) -> tuple[Term, ...]:
    """Return the terms of weights, gradients, optimizer and averages on the device that trains."""
    trained = trained_weights(weights, use)
    per_shard = -(-trained // use.shards)
    each = f" / {use.shards} workers" if use.shards > 1 else ""
    frozen = weights.all - weights.trained - use.quantized
    full_embedding = weights.word_embedding if use.used_rows is not None else 0
    copied = weights.in_layers if use.by_hand else 0
    terms = [
        times(f"trained weights{each}", f"4 bytes x weights{each}", _FP32, per_shard),
        times(f"frozen weights{each}", f"4 bytes x weights{each}", _FP32, -(-frozen // use.shards)),
        times("frozen weights in 4 bits", "bytes of 4 bits and their scales x weights", _4BIT_BYTES, use.quantized),
        times("whole word embedding, of which the used rows are trained", "4 bytes x weights", _FP32, full_embedding),
        times(f"gradients{each}", f"4 bytes x trained weights{each}", _FP32, per_shard),
        _optimizer_term(spec, per_shard, each),
        times("copies and gradients of layers' weights", "2 x s bytes x weights", 2, use.number_bytes, copied),
        times(
            f"moving average{each}", f"4 bytes x trained weights{each}", _FP32, per_shard if spec.train.ema_decay else 0
        ),
        times("buckets of gradients (DDP)", "4 bytes x trained weights", _FP32, trained if use.buckets else 0),
    ]
    if use.number_bytes < _FP32 and not use.by_hand:
        terms.append(
            times(
                "weights in the precision of products",
                "s bytes x weights",
                use.number_bytes,
                weights.all - use.quantized,
            )
        )
    return without_empty(terms)


def trained_weights(weights: WeightCounts, use: ModelUse) -> int:
    """Return the number of weights that the optimizer changes, without unused rows of the word embedding."""
    if use.used_rows is None:
        return weights.trained
    return weights.trained - round(weights.word_embedding * (1 - use.used_rows / weights.vocabulary))


def _optimizer_term(spec: RunSpec, count: int, each: str) -> Term:
    if spec.train.optimizer == "adamw_8bit":
        return times(f"optimizer, 8 bits{each}", f"bytes of two moments x trained weights{each}", _8BIT_BYTES, count)
    return times(f"optimizer: two moments{each}", f"2 x 4 bytes x trained weights{each}", _MOMENTS, _FP32, count)


def state_bytes(spec: RunSpec, trained: int) -> int:
    """Return the bytes of a checkpoint to resume from: trained weights, moments and the moving average."""
    per_weight = _FP32 + (_8BIT_BYTES if spec.train.optimizer == "adamw_8bit" else _MOMENTS * _FP32)
    return round(trained * (per_weight + (_FP32 if spec.train.ema_decay else 0)))


def copy_terms(spec: RunSpec, weights: WeightCounts, use: ModelUse, activations: int) -> tuple[Term, ...]:
    """Return the terms of copies in main memory that are written in the background while the training goes on.

    `activations` are the bytes of activations in main memory: a checkpoint is copied when there are none.
    """
    trained = trained_weights(weights, use)
    state = state_bytes(spec, trained)
    checkpoint = spec.train.checkpoint
    one_epoch = spec.train.epochs == 1
    terms = [
        times("best epoch's model, until it is written", "4 bytes x weights", _FP32, 0 if one_epoch else weights.all)
    ]
    if checkpoint.every_minutes is not None or checkpoint.every_steps is not None:
        values = f"{trained:,} x {state / max(1, trained):,.1f}"
        formula = "trained weights x bytes of weight and moments"
        terms.append(Term("checkpoint, until it is written", formula, values, state))
    if checkpoint.every_steps is not None and state > activations:
        name = "next checkpoint, copied while the one before is written"
        terms.append(Term(name, "checkpoint - activations", f"{state:,} - {activations:,}", state - activations))
    return without_empty(terms)
