"""The activations of a model without a closed formula: one pass is traced on torch's device `meta`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from trainer.planning.encoder_activations import PassSize
from trainer.planning.encoder_shape import WeightCounts, count_used_rows
from trainer.planning.row_facts import RowFacts
from trainer.planning.term import Term
from trainer.planning.trace import trace_pass
from trainer.spec.run import RunSpec
from trainer.tasks import catalog as task_catalog

if TYPE_CHECKING:
    import torch


class TracedModel(NamedTuple):
    """What a trace tells of a model."""

    weights: WeightCounts
    activations: tuple[Term, ...]
    """Empty if the pass cannot be traced."""
    has_fused_attention: bool
    """Whether torch computes attention in one operation, without scores in memory."""


def traced_activations(spec: RunSpec, facts: RowFacts, size: PassSize, *, on_gpu: bool) -> TracedModel | None:
    """Return what a trace tells of the model of `spec`; None if the task cannot say what its model is."""
    task = task_catalog.get_task(spec.task)
    model = task.model_on_meta(spec, facts.outputs)
    if model is None:
        return None
    model = _as_trained(model, spec, on_gpu=on_gpu)
    weights = _count(model, uses_tokens=task.token_input is not None)
    used_rows = count_used_rows(weights, facts, spec)
    if used_rows is not None:
        _use_rows(model, used_rows)
    traced = trace_pass(model, task.batch_on_meta(spec, size.rows, max(1, facts.longest)), task.loss_on_meta)
    has_fused_attention = _attention_dropout(model) == 0.0
    if traced is None:
        return TracedModel(weights, (), has_fused_attention)
    share = size.number_bytes / 4
    of = f"{size.rows} rows" + (f" x {facts.longest} tokens" if facts.longest else "")
    of += " in half the bytes" if share < 1 else ""
    saved, working = round(traced.saved * share), round((traced.peak - traced.saved) * share)
    activations = (
        Term("tensors that the backward pass needs", "traced with shapes alone", of, saved, is_bound=size.is_bound),
        Term("further tensors at the highest point", "traced with shapes alone", of, working, is_bound=size.is_bound),
    )
    return TracedModel(weights, activations, has_fused_attention)


def _attention_dropout(model: Any) -> float | None:
    """Return the dropout of a model's attention; None if it has no attention."""
    config = model.config
    rates = [getattr(config, key, None) for key in ("attention_probs_dropout_prob", "attention_dropout")]
    return next((float(rate) for rate in rates if isinstance(rate, (int, float))), None)


def _as_trained(model: Any, spec: RunSpec, *, on_gpu: bool) -> torch.nn.Module:
    """Return the model as a training uses it, with the same order of changes."""
    from trainer.models import lora
    from trainer.models.gradient_checkpointing import enable_gradient_checkpointing
    from trainer.optim.bert.dropout import install_row_dropout
    from trainer.optim.optimizer import freeze_parameters

    if spec.model.lora:
        lora.add_adapters(model, spec.model.lora, ())
    freeze_parameters(model, spec.train.freeze)
    if spec.train.gradient_checkpointing:
        enable_gradient_checkpointing(model)
    if not on_gpu:
        install_row_dropout(model)
    trained: torch.nn.Module = model.train()
    return trained


def _use_rows(model: Any, used_rows: int) -> None:
    """Replace the word embedding by one of `used_rows` rows, as `CompactVocabulary` does."""
    import torch

    width = model.get_input_embeddings().embedding_dim
    model.set_input_embeddings(torch.nn.Embedding(used_rows, width, device="meta"))


def _count(model: Any, *, uses_tokens: bool) -> WeightCounts:
    parameters = list(model.parameters())
    trained = [value for value in parameters if value.requires_grad]
    # As `trainer.training.compact_vocabulary`: a model that predicts tokens keeps all rows.
    keeps_rows = not uses_tokens or model.get_output_embeddings() is not None
    embedding: Any = None if keeps_rows else model.get_input_embeddings().weight
    learns = embedding is not None and embedding.requires_grad
    size, rows = (embedding.numel(), len(embedding)) if learns else (0, 0)
    return WeightCounts(
        all=sum(value.numel() for value in parameters),
        trained=sum(value.numel() for value in trained),
        word_embedding=size,
        vocabulary=rows,
    )
