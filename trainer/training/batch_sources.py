"""The source of a training's batches, by the unit in which its task counts a step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trainer.training.batch_source import BatchSource, PreparedBatches
from trainer.training.context import TrainContext
from trainer.training.cut_rows import CutRows
from trainer.training.loss import make_objective
from trainer.training.mixture import Mixture
from trainer.training.prompt_batches import PromptBatches
from trainer.training.repeated_batches import RepeatedBatches
from trainer.training.token_batches import TokenBatches


def open_batches(context: TrainContext) -> BatchSource:
    """Return the prepared rows of a training in the steps of its plan."""
    unit = "prompts" if context.spec.train.method.samples_answers else context.task.step_unit
    return _SOURCES[unit](context)


def _by_rows(context: TrainContext) -> BatchSource:
    train, worker = context.spec.train, context.worker
    rows = context.prepared.part("train")
    return PreparedBatches(rows, train.seed, train.rows_per_step, train.micro_batch_size, worker.rank, worker.workers)


def _by_tokens(context: TrainContext) -> BatchSource:
    train, worker = context.spec.train, context.worker
    rows, weight = context.prepared.part("train"), make_objective(context).weight
    n_tokens, per_pass = train.n_tokens_per_step, train.micro_batch_tokens
    used = rows if train.sequence_tokens is None else CutRows(rows, train.sequence_tokens)
    numbers = used.row_numbers if isinstance(used, CutRows) else np.arange(len(rows))
    files = context.prepared.files_of("train") if train.mixture else None
    mixture = Mixture(files, numbers, used.lengths, train) if files else None
    return TokenBatches(used, weight, train.seed, n_tokens, per_pass, worker.rank, worker.workers, mixture)


def _by_prompts(context: TrainContext) -> BatchSource:
    train, worker = context.spec.train, context.worker
    rows, method = context.prepared.part("train"), train.method
    prompts = PromptBatches(rows, train.seed, method.rollout.prompts, None, worker.rank, worker.workers)
    return RepeatedBatches(prompts, method.updates)


_SOURCES: dict[str, Callable[[TrainContext], BatchSource]] = {
    "rows": _by_rows,
    "tokens": _by_tokens,
    "prompts": _by_prompts,
}
