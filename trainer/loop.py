"""The training loop: plain PyTorch on prepared rows. No Ray in here; Ray Train, Ray Tune or a test calls it.

Letters in shapes: B rows of this worker's part of a step, C classes, T tokens.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trainer import checkpoint
from trainer.compact import CompactVocabulary
from trainer.data.prepared import Prepared, Rows
from trainer.feed import Feed, PreparedFeed, Step
from trainer.optimizer import distributed, optimizer
from trainer.spec import RunSpec
from trainer.tasks.base import Task
from trainer.training_log import Best, TrainingLog, must_be_finite

if TYPE_CHECKING:
    import torch

#: Takes an epoch's figures and, if the epoch is the best so far, a function that writes its checkpoint to a folder.
Report = Callable[[dict[str, Any], "Callable[[Path], None] | None"], None]


class Place(NamedTuple):
    """Which part of the work this process does, and where."""

    rank: int
    workers: int
    device: str
    threads: int


def train(
    task: Task,
    spec: RunSpec,
    prepared: Prepared,
    place: Place,
    report: Report,
    folder: Path,
    stream: Feed | None = None,
) -> None:
    """Train the task's model on the prepared rows, or on a `stream`, and report every epoch. All ranks call this alike.

    Rank 0 writes `history.jsonl` and its progress to `folder`. Raises `UserError` if the loss stops being a number.
    """
    import torch

    torch.set_num_threads(place.threads)
    torch.manual_seed(spec.train.seed)
    held_out = prepared.part("validation")
    feed = stream or _prepared_feed(spec, prepared, place)
    model = task.new_model(prepared.contract, spec)
    seen = [prepared.part("train"), held_out] if stream is None and task.token_input else None
    pad_id = task.pad_id(prepared.contract) if task.token_input else 0
    vocabulary = CompactVocabulary(model, seen, pad_id, spec.train.weight_decay)
    model = model.to(place.device)
    torch.manual_seed(spec.train.seed + place.rank)  # workers drop out different units
    stepped = distributed(model, place.device, place.workers)  # all ranks
    by_gradient, schedule = optimizer(model, spec.train, spec.train.epochs * feed.steps_per_epoch)
    weights = _class_weights(prepared, place)
    log = TrainingLog(folder if place.rank == 0 else None, spec, feed.n_rows)
    best = Best(spec)
    for epoch in range(1, spec.train.epochs + 1):
        log.begin_epoch(epoch)
        model.train()
        loss_sum = torch.zeros((), device=place.device)
        for number, step in enumerate(feed.epoch(epoch)):
            seed = _step_seed(spec.train.seed, epoch, number, place.rank)
            loss_sum += _step(
                task, stepped, model, by_gradient, schedule, step, place, spec, prepared, vocabulary, weights, seed
            )
            log.rows_done(step.rows)
        mean_loss = task.target.in_units(prepared.contract.fitted, _all_sum(loss_sum, place) / feed.n_rows)  # all ranks
        must_be_finite(mean_loss, epoch)
        figures = _validate(task, model, held_out, place, spec, prepared, vocabulary)  # all ranks
        must_be_finite(figures[task.target.loss], epoch)
        figures["train_loss"] = mean_loss
        better = best.is_better(figures)
        log.end_epoch(figures)

        reached = {"epoch": epoch, **figures}
        save = functools.partial(_save, task, model, vocabulary, prepared, reached)
        report(reached, save if better else None)  # all ranks
        if best.is_over:
            break
    log.finish()


def _save(
    task: Task,
    model: torch.nn.Module,
    vocabulary: CompactVocabulary,
    prepared: Prepared,
    reached: dict[str, Any],
    target: Path,
) -> None:
    with vocabulary.whole():
        checkpoint.save(target, task, model, prepared.contract, prepared.folder, reached)


def _step(
    task: Task,
    stepped: torch.nn.Module,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    step: Step,
    place: Place,
    spec: RunSpec,
    prepared: Prepared,
    vocabulary: CompactVocabulary,
    weights: torch.Tensor | None,
    seed: int,
) -> torch.Tensor:
    """Take one optimiser step; returns this worker's summed loss, detached."""
    import torch

    batch = vocabulary.batch(task.collate(prepared.contract, step.inputs), task.token_input)
    targets = task.target.tensor(prepared.contract.fitted, step.targets)
    batch, targets = task.augment(spec, prepared.contract, batch, targets, seed)
    with _autocast(spec, place):
        logits = stepped(**{name: value.to(place.device) for name, value in batch.items()}).logits
    loss = task.target.loss_sum(logits, targets.to(place.device), weights) * (1.0 if step.counts else 0.0)
    # DDP averages over workers; the loss of a step is the mean over all its rows, however they were shared out.
    (loss * (place.workers / step.rows)).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), spec.train.max_grad_norm)
    vocabulary.stepped(float(schedule.get_last_lr()[0]))
    optimizer.step()
    schedule.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def _prepared_feed(spec: RunSpec, prepared: Prepared, place: Place) -> Feed:
    return PreparedFeed(prepared.part("train"), spec.train.seed, spec.train.batch_size, place.rank, place.workers)


def _class_weights(prepared: Prepared, place: Place) -> torch.Tensor | None:
    import torch

    found = prepared.summary["class_weights"]
    return torch.tensor(found, device=place.device) if found else None


def _validate(
    task: Task,
    model: torch.nn.Module,
    rows: Rows,
    place: Place,
    spec: RunSpec,
    prepared: Prepared,
    vocabulary: CompactVocabulary,
) -> dict[str, float]:
    """Return the figures on the held-out rows; every rank computes its share and all get the whole."""
    import torch

    mine = np.arange(len(rows))[place.rank :: place.workers]
    inputs = [rows.inputs(row) for row in mine]
    with _autocast(spec, place), vocabulary.whole():
        logits = task.forward(model, prepared.contract, inputs, spec.evaluate.batch_size, place.device)
    everything = [(mine, logits)]
    if place.workers > 1:
        gathered: list[Any] = [None] * place.workers
        torch.distributed.all_gather_object(gathered, (mine, logits))
        everything = gathered
    by_row = np.concatenate([part[1] for part in everything if len(part[0])])
    order = np.argsort(np.concatenate([part[0] for part in everything]))
    scores = task.target.scores(prepared.contract.fitted, by_row[order])
    return task.target.metrics(scores, rows.targets, spec.evaluate.calibration_bins)


def _step_seed(seed: int, epoch: int, step: int, rank: int) -> int:
    """Return the seed of one step's augmentation."""
    return int(np.random.SeedSequence([seed, epoch, step, rank]).generate_state(1)[0])


def _autocast(spec: RunSpec, place: Place) -> contextlib.AbstractContextManager[Any]:
    import torch

    device_type = place.device.split(":")[0]
    wanted = spec.train.precision == "bf16" or (spec.train.precision == "auto" and has_fast_bf16(device_type))
    return torch.autocast(device_type, dtype=torch.bfloat16) if wanted else contextlib.nullcontext()


def has_fast_bf16(device_type: str) -> bool:
    """Whether bf16 pays: tensor cores on a GPU, AMX tiles on a CPU.

    AVX512-BF16 alone does not count: measured on such a CPU, bf16 GEMMs reach 161 GFLOP/s and fp32 283.
    """
    import torch

    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device_type == "cpu" and bool(torch.cpu._is_amx_tile_supported())


def _all_sum(value: torch.Tensor, place: Place) -> float:
    import torch

    if place.workers > 1:
        torch.distributed.all_reduce(value)
    return float(value)
