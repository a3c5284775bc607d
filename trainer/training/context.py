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
    """The task, spec, rows and worker of a training. The contexts of its workers differ in `worker` only."""

    task: Task
    spec: RunSpec
    prepared: Prepared
    worker: WorkerContext
    callback: EpochCallback
    """Called after every epoch."""
    folder: Path
    """The folder for history, metrics, progress and checkpoints; a training resumes from its newest checkpoint."""
    stream: BatchSource | None = None
    """Training rows straight from Ray Data; None to read the prepared rows."""
