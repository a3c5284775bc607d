"""The peak memory of one training worker, as a sum of terms with formulas.

docs/explanation/memory.md explains the formulas and shows how they were checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from trainer.models.base_model import is_local_base, locate_base_model
from trainer.models.model_facts import read_config
from trainer.planning.encoder_activations import EncoderOptions, PassSize, encoder_activations
from trainer.planning.encoder_shape import WeightCounts, count_used_rows, count_weights, read_encoder_shape
from trainer.planning.model_memory import ModelUse, copy_terms, model_terms
from trainer.planning.pass_size import rows_per_pass, step_unit
from trainer.planning.row_facts import RowFacts
from trainer.planning.table_memory import table_memory
from trainer.planning.term import Estimate, Term, times
from trainer.planning.traced_activations import traced_activations
from trainer.spec.run import RunSpec
from trainer.spec.section import AUTO
from trainer.tasks import catalog as task_catalog

#: Python with torch and transformers, and their buffers: the resident memory of a worker before it has a model.
LIBRARIES = 530_000_000
# Not measured here: a CUDA context with the kernels of torch, and what the caching allocator holds but cannot use.
_CUDA_CONTEXT, _CUDA_MARGIN = 600_000_000, 0.1
_CUDA_LIBRARIES = 3_000_000_000
# Freed memory between blocks in use, as a share of the activations, measured with glibc 2.36: it cannot reuse a freed block
# with torch's alignment for another of its size. Hand-written layers and fused attention free few blocks; LoRA and layers
# that are computed again free many.
_FREED_FEW, _FREED, _FREED_MANY = 0.08, 0.4, 0.9
# Matrices of a layer that LoRA extends: query, key, value and three more.
_LINEARS = 6


class WorkerMemory(NamedTuple):
    """The peak memory of one worker."""

    main: Estimate
    gpu: Estimate = Estimate()
    """Empty if the worker has no GPU."""


def worker_memory(spec: RunSpec, facts: RowFacts, *, trace: bool = True) -> WorkerMemory:
    """Return the peak memory of a worker of the smallest number of workers that `spec` allows.

    `spec` may have keys that are still `auto`; then the sum is an upper bound. Without `trace`, the activations of models
    without a closed formula are left out: tracing one takes seconds.
    """
    task = task_catalog.get_task(spec.task)
    if task.train is not None:
        return _unknown("the task has a training loop of its own")
    if task.learns_from_features:
        return WorkerMemory(table_memory(spec, facts))
    reason = why_size_is_unknown(spec)
    if reason:
        return _unknown(reason)
    on_gpu = spec.cluster.gpus_per_worker > 0
    parts = _model_and_activations(spec, facts, _pass_size(spec, facts, on_gpu=on_gpu), on_gpu=on_gpu, trace=trace)
    if parts is None:
        return _unknown("its model is counted by `raymill plan` only" if not trace else "its code cannot be traced")
    weights, use, activations = parts
    unknown = "" if activations else "activations are not counted"
    on_device = [*model_terms(spec, weights, use), *_unknown_rows(weights, facts, use), *activations]
    in_main = 0 if on_gpu else sum(term.bytes for term in activations)
    copies = [*copy_terms(spec, weights, use, in_main), *_skeleton(weights, use)]
    if not on_gpu:
        margin = _margin("freed memory between blocks in use", _freed_share(spec, use), "activations", activations)
        return WorkerMemory(Estimate((_libraries(LIBRARIES), *on_device, *copies, margin), unknown))
    context = Term("CUDA context (not measured here)", "about 0.6 GB", "", _CUDA_CONTEXT, is_base=True)
    margin = _margin("allocator's fragments (not measured here)", _CUDA_MARGIN, "all of the above", on_device)
    main = Estimate((_libraries(_CUDA_LIBRARIES), *copies))
    return WorkerMemory(main, Estimate((context, *on_device, margin), unknown))


def why_size_is_unknown(spec: RunSpec) -> str:
    """Return why the model's size cannot be known before the run, as a part of a sentence; empty if it can."""
    if spec.model.factory:
        return "the model is built by your own code"
    if spec.model.base is not None and not is_local_base(spec.model.base):
        return "the base model is on the hub"
    return ""


def _quantized_weights(spec: RunSpec, weights: WeightCounts, folder: Path | None) -> int:
    """Return the number of frozen weights in 4 bits: all but the word embedding and the output layer."""
    if spec.model.quantize is None or folder is None:
        return 0
    config = read_config(folder)
    tables = 1 if config.get("tie_word_embeddings", True) else 2
    return max(0, weights.all - weights.trained - tables * config["vocab_size"] * config["hidden_size"])


def _pass_size(spec: RunSpec, facts: RowFacts, *, on_gpu: bool) -> PassSize:
    is_bound = not facts.is_known or getattr(spec.train, step_unit(spec).step_key) == AUTO
    rows = rows_per_pass(spec, spec.cluster.min_workers, facts.longest)
    return PassSize(rows, facts.longest, _number_bytes(spec, on_gpu=on_gpu), is_bound)


def _model_and_activations(
    spec: RunSpec, facts: RowFacts, size: PassSize, *, on_gpu: bool, trace: bool
) -> tuple[WeightCounts, ModelUse, tuple[Term, ...]] | None:
    """Return the sizes of the model and the terms of the activations, none if they are not counted.

    None if the model cannot be counted.
    """
    train, workers = spec.train, spec.cluster.min_workers
    is_sharded = spec.cluster.strategy == "fsdp" and workers > 1
    folder = locate_base_model(spec.model.base) if spec.model.base is not None else None
    shape = read_encoder_shape(read_config(folder)) if folder else None
    use = ModelUse(
        number_bytes=size.number_bytes,
        shards=workers if is_sharded else 1,
        buckets=on_gpu and workers > 1 and not is_sharded,
    )
    if folder is None or shape is None:
        traced = traced_activations(spec, facts, size, on_gpu=on_gpu) if trace else None
        if traced is None and folder is None:
            return None
        weights = traced.weights if traced else count_weights(folder, spec, facts.outputs)  # type: ignore[arg-type]
        use = use._replace(
            used_rows=count_used_rows(weights, facts, spec),
            quantized=_quantized_weights(spec, weights, folder),
            has_fused_attention=traced is not None and traced.has_fused_attention,
        )
        return weights, use, traced.activations if traced else ()
    weights = count_weights(folder, spec, facts.outputs)
    is_flat = not (on_gpu or is_sharded or train.precision == "fp16")
    use = use._replace(
        by_hand=bool(weights.in_layers) and is_flat and not train.gradient_checkpointing,
        used_rows=count_used_rows(weights, facts, spec),
    )
    options = EncoderOptions(
        on_gpu=on_gpu,
        checkpointed=train.gradient_checkpointing,
        embeddings_learn=weights.word_embedding > 0,
        adapter_outputs=_LINEARS * spec.model.lora.rank if spec.model.lora else 0,
    )
    activations = encoder_activations(shape, size, options)
    return weights, use, (*activations, *_embedding_gradient(weights, use, activations))


def _unknown_rows(weights: WeightCounts, facts: RowFacts, use: ModelUse) -> list[Term]:
    """Return the term of the embedding's rows that the texts may use, if the texts are not known."""
    if facts.is_known or use.used_rows is None:
        return []
    # Weights, gradients and two moments of all rows, instead of a copy without them.
    name = "rows of the word embedding that the texts may use"
    return [times(name, "at most 3 x 4 bytes x weights", 3, 4, weights.word_embedding, is_bound=True)]


def _embedding_gradient(weights: WeightCounts, use: ModelUse, activations: tuple[Term, ...]) -> tuple[Term, ...]:
    """Return the term of the word embedding's gradient, which is made when the activations are gone, if it is larger."""
    share = 1.0 if use.used_rows is None else use.used_rows / max(1, weights.vocabulary)
    size, saved = round(4 * weights.word_embedding * share), sum(term.bytes for term in activations)
    if size <= saved:
        return ()
    name = "gradient of the word embedding beyond the activations"
    return (Term(name, "4 bytes x weights - activations", f"{size:,} - {saved:,}", size - saved),)


def _skeleton(weights: WeightCounts, use: ModelUse) -> list[Term]:
    """Return the term of the copy in main memory into which sharded weights are gathered to save them."""
    return [times("copy to gather sharded weights in", "4 bytes x weights", 4, weights.all)] if use.shards > 1 else []


def _number_bytes(spec: RunSpec, *, on_gpu: bool) -> int:
    """Return the bytes of a number in matrix products. `auto` on a CPU counts as fp32, the larger of its choices."""
    if spec.train.precision == "auto":
        return 2 if on_gpu else 4
    return 4 if spec.train.precision == "fp32" else 2


def _libraries(size: int) -> Term:
    return Term("Python, torch and transformers", "measured before a model is loaded", "", size, is_base=True)


def _freed_share(spec: RunSpec, use: ModelUse) -> float:
    if spec.model.lora or spec.train.gradient_checkpointing:
        return _FREED_MANY
    return _FREED_FEW if use.by_hand or use.has_fused_attention else _FREED


def _margin(name: str, share: float, of: str, terms: Sequence[Term]) -> Term:
    total = sum(term.bytes for term in terms)
    is_bound = any(term.is_bound for term in terms)
    return Term(name, f"share x {of}", f"{share:.0%} x {total:,}", round(share * total), is_bound=is_bound)


def _unknown(reason: str) -> WorkerMemory:
    return WorkerMemory(Estimate((_libraries(LIBRARIES),), f"the memory of a worker is not known: {reason}"))
