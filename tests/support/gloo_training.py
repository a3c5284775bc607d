"""Train on several processes of this machine with gloo, without Ray."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from cluster.ports import free_port
from support.local_training import LocalTraining
from trainer.data.prepare import prepare as preparing
from trainer.data.prepared import Prepared
from trainer.optim.distributed.worker_context import WorkerContext
from trainer.tasks.catalog import get_task
from trainer.tasks.load_spec import load_spec
from trainer.training.callbacks import FunctionCallback
from trainer.training.context import TrainContext
from trainer.training.run import run_training


def train_on_workers(specs: list[dict[str, Any]], folder: Path, workers: int) -> list[LocalTraining]:
    """Train with each of `specs` on `workers` processes, in `folder`/0, `folder`/1 and so on.

    The best epoch's model is saved in the subfolder `best` of each.
    """
    folders = [folder / str(number) for number in range(len(specs))]
    prepared = []
    for spec, of_spec in zip(specs, folders, strict=True):
        of_spec.mkdir(parents=True)
        prepared.append(preparing.prepare_rows(load_spec(spec), lambda progress: None, of_spec / "quarantine.parquet"))
    jobs = [(spec, rows.folder, of_spec) for spec, rows, of_spec in zip(specs, prepared, folders, strict=True)]
    torch.multiprocessing.spawn(_train_all, (workers, free_port(), jobs), nprocs=workers)
    return [LocalTraining(rows, of_spec, of_spec / "best") for rows, of_spec in zip(prepared, folders, strict=True)]


def _train_all(rank: int, workers: int, port: int, jobs: list[tuple[dict[str, Any], Path, Path]]) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=workers)
    for spec, prepared, folder in jobs:
        _train(WorkerContext(rank, workers, "cpu", 1), spec, prepared, folder)
    torch.distributed.destroy_process_group()


def _train(worker: WorkerContext, spec: dict[str, Any], prepared: Path, folder: Path) -> None:
    def report(metrics: dict[str, Any], save: Any) -> None:
        if save is not None and worker.rank == 0:
            save(folder / "best")
        torch.distributed.barrier()

    loaded = load_spec(spec)
    callback = FunctionCallback(report)
    run_training(TrainContext(get_task(loaded.task), loaded, Prepared(prepared), worker, callback, folder))
