"""The context of a training: everything its loop needs, in one value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.data.prepared import Prepared
from trainer.optim.distributed.worker_context import WorkerContext
from trainer.spec.run import RunSpec
from trainer.training.callbacks import EpochCallback

if TYPE_CHECKING:
    from trainer.tasks.base import Task
    from trainer.training.batch_source import BatchSource


@dataclass(frozen=True)
class TrainContext:
    """What is trained, on which rows, by which worker. Every worker has one; only `worker` differs between them."""

    task: Task
    spec: RunSpec
    prepared: Prepared
    worker: WorkerContext
    callback: EpochCallback
    """Called after every epoch."""
    folder: Path
    """Receives history, metrics, progress and checkpoints; a training resumes from the newest checkpoint in it."""
    stream: BatchSource | None = None
    """Training rows straight from Ray Data; None to read the prepared rows."""
