"""The training worker: the code of every training process, in Ray Train or in a single actor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster import errors
from cluster.errors import UserError
from cluster.files import read_json, wait_for_folders, write_json
from trainer.data.prepared import Prepared
from trainer.inference import golden
from trainer.optim.distributed.collectives import broadcast_object
from trainer.optim.distributed.worker_context import WorkerContext
from trainer.runs import journal
from trainer.runs.journal import FAILURE
from trainer.spec.run import RunSpec
from trainer.steps.cleaner import Cleaner
from trainer.tasks import catalog as task_catalog
from trainer.tasks import load_spec
from trainer.tasks.roles import input_roles
from trainer.training.batch_source import BatchSource, StreamedBatches
from trainer.training.callbacks import EpochCallback, ModelWriter, SaveFn
from trainer.training.checkpoint.background_writer import BackgroundWriter
from trainer.training.checkpoint.best_model import BestModels, has_model
from trainer.training.checkpoint.train_state import TrainState
from trainer.training.context import TrainContext
from trainer.training.run import run_training

#: Called with the metrics of every epoch, on every rank.
ReportFn = Callable[[dict[str, Any]], None]


def run_worker(
    config: dict[str, Any], rank: int, workers: int, device: str, report: ReportFn, shard: Any = None
) -> None:
    """Train with `config` and save the best model in the run's folder; call `report` after every epoch on every rank.

    A `UserError` is written to the folder and raised, so that the workers that wait for this worker are stopped. The
    next attempt then returns at once.
    """
    folder = Path(config["folder"])
    wait_for_folders([folder, Path(config["prepared"])])
    if (folder / FAILURE).is_file():
        return
    try:
        _train(config, folder, WorkerContext(rank, workers, device, config["threads"]), report, shard)
    except UserError as error:
        with contextlib.suppress(OSError, UserError):  # the storage may be the reason
            write_failure(folder, error)
        raise


def write_failure(folder: Path, error: UserError) -> None:
    """Write a user error to the folder."""
    write_json(folder / FAILURE, {"kind": type(error).__name__, "problem": error.problem, "fix": error.fix})


def read_failure(folder: Path) -> UserError | None:
    """Return the user error that a worker wrote to the folder, or None."""
    if not (folder / FAILURE).is_file():
        return None
    failure = read_json(folder / FAILURE)
    kind = getattr(errors, failure["kind"], UserError)
    error: UserError = kind(failure["problem"], failure["fix"])
    return error


def _train(config: dict[str, Any], folder: Path, worker: WorkerContext, report: ReportFn, shard: Any) -> None:
    spec = load_spec.validate_spec(config["spec"])
    prepared = Prepared(Path(config["prepared"]))
    if worker.rank == 0:
        _check_against_library(prepared)
    callback = CheckpointingCallback(folder, worker, report)
    stream = _open_stream(spec, prepared, worker, shard)
    run_training(TrainContext(task_catalog.get_task(spec.task), spec, prepared, worker, callback, folder, stream))
    callback.finish()


class CheckpointingCallback(EpochCallback):
    """Saves the best epoch's model in the run's folder, and reports every epoch."""

    def __init__(self, folder: Path, worker: WorkerContext, report: ReportFn) -> None:
        self._folder, self._worker, self._report = folder, worker, report
        self._models = BestModels(folder, BackgroundWriter(lambda text: journal.append_notice(folder, text)))

    def __call__(self, metrics: dict[str, Any], save: SaveFn | None, write_state: SaveFn | None = None) -> None:
        if self._worker.rank == 0:
            if save is not None:
                self._models.save(int(metrics["epoch"]), save, deferred=isinstance(save, ModelWriter))
            else:
                self._models.write_pending()
        self._report(metrics)

    def on_begin(self, state: TrainState) -> None:
        """Reset the best metric if its model was lost, so that a later epoch is saved."""
        is_first = self._worker.rank == 0
        if not state.best_epoch or broadcast_object(
            is_first and has_model(self._folder, state.best_epoch), self._worker
        ):  # all ranks
            return
        if self._worker.rank == 0:
            journal.append_notice(
                self._folder,
                f"the model of epoch {state.best_epoch}, the best so far, was lost; the next best model is saved",
            )
        state.best, state.best_epoch, state.since_best = None, 0, 0

    def settle(self) -> None:
        """Wait until the newest model is on storage or its write has failed."""
        self._models.settle()

    def finish(self) -> None:
        """Write the last model and delete the older models."""
        if self._worker.rank == 0:
            self._models.settle()
            self._models.delete_older()


def _open_stream(spec: RunSpec, prepared: Prepared, worker: WorkerContext, shard: Any) -> BatchSource | None:
    if shard is None:
        return None
    n_rows = prepared.summary["rows"]["train"]
    train = spec.train
    return StreamedBatches(
        shard, prepared.contract, n_rows, train.seed, train.rows_per_step, train.micro_batch_size, *worker[:2]
    )


def _check_against_library(prepared: Prepared) -> None:
    """Before training, raise `ModelError` if the model's own library computes other inputs than ours."""
    rows, contract = prepared.part("test"), prepared.contract
    task = task_catalog.task_of_contract(contract)
    raw = {role: rows.raw(role, golden.MAX_ROWS) for role in input_roles(task, contract)}
    columns, _ = Cleaner(contract).columns(raw, task.text_roles)
    inputs = [rows.inputs(row) for row in range(min(golden.MAX_ROWS, len(rows)))]
    task.check_against_library(contract, prepared.folder, columns, inputs)
