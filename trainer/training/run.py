"""Start the training loop of a task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainer.data.prepared import Prepared
from trainer.optim.distributed.worker_context import Place
from trainer.spec.run import RunSpec
from trainer.tasks.base import Task

if TYPE_CHECKING:
    from trainer.training.callbacks import Report
    from trainer.training.feed import Feed


def run(
    task: Task,
    spec: RunSpec,
    prepared: Prepared,
    place: Place,
    report: Report,
    folder: Path,
    stream: Feed | None = None,
) -> None:
    """Train `spec` with the task's own loop, an estimator's loop or torch's; `report` is called after each epoch.

    Every worker calls this with the same arguments. The loops are imported here: only one of them needs torch.
    """
    if task.train is not None:
        task.train(spec, prepared, place, report, folder, stream)
    elif task.learns_from_features:
        from trainer.training import estimator_loop

        estimator_loop.train(task, spec, prepared, place, report, folder)
    else:
        from trainer.training import loop

        loop.train(task, spec, prepared, place, report, folder, stream)
