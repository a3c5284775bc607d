"""One training as a Ray Train run: N workers around the plain loop of `trainer.loop`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.errors import RaymillError, ResourceError, UserError
from trainer import golden, spec_load, tasks
from trainer.checkpoint import epoch_of
from trainer.data.prepared import Prepared
from trainer.data.sources import SourceFile
from trainer.feed import StreamFeed
from trainer.loop import Place
from trainer.result import RunResult, read_history
from trainer.spec import RunSpec
from trainer.steps import Cleaner

# A placement that is possible but never comes is tried this often before the run fails; Ray's default is for ever.
_CONTROLLER_FAILURES = 3


def fit(
    spec: RunSpec, prepared: Path, folder: Path, cpus_per_worker: float, files: list[SourceFile] | None = None
) -> RunResult:
    """Train with Ray Train and return the best epoch's checkpoint. `folder` gets history, progress and checkpoints.

    `files` are the source files where training rows are streamed and their files are known already.

    Raises the worker's own `UserError`, or `RaymillError` if workers died more often than `train.max_failures`.
    """
    import ray.train

    gpus = spec.cluster.gpus_per_worker
    trainer = _trainer_type(spec)(
        worker,
        train_loop_config={
            "spec": spec.model_dump(mode="json", exclude_unset=True),
            "prepared": str(prepared),
            "folder": str(folder),
            "threads": max(1, int(cpus_per_worker)),
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=spec.cluster.workers,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": cpus_per_worker, **({"GPU": gpus} if gpus else {})},
        ),
        datasets=_streams(spec, prepared, files),
        run_config=ray.train.RunConfig(
            name="train",
            storage_path=str(folder),
            failure_config=ray.train.FailureConfig(
                max_failures=spec.train.max_failures,
                controller_failure_limit=_CONTROLLER_FAILURES,  # type: ignore[call-arg]
            ),
            # Only epochs better than all before send a checkpoint, so the last one is the best one.
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        ),
    )
    try:
        result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise cause_of(error) from error
    if result.checkpoint is None:
        raise RaymillError(f"Ray Train ended without a checkpoint; see {folder}")
    return finished(spec, prepared, folder, Path(result.checkpoint.path))


def _trainer_type(spec: RunSpec) -> Any:
    """Return the trainer of Ray Train that joins the workers as the task needs it."""
    backend = tasks.get(spec.task).backend(spec)
    if backend == "torch":
        import ray.train.torch

        return ray.train.torch.TorchTrainer
    if backend == "xgboost":
        import ray.train.xgboost

        return ray.train.xgboost.XGBoostTrainer
    import ray.train.v2.api.data_parallel_trainer

    return ray.train.v2.api.data_parallel_trainer.DataParallelTrainer


def _streams(spec: RunSpec, prepared: Path, files: list[SourceFile] | None) -> dict[str, Any] | None:
    """Return what Ray Data feeds the workers with; None where they read prepared rows themselves."""
    if spec.data.mode == "prepared":
        return None
    from trainer.data.stream import training_rows

    return {"train": training_rows(spec, Prepared(prepared), files)}


def finished(spec: RunSpec, prepared: Path, folder: Path, checkpoint: Path) -> RunResult:
    """Return the result of a training whose history lies in `folder`."""
    figures = {name: value for name, value in epoch_of(checkpoint).items() if name != "epoch"}
    return RunResult(checkpoint=checkpoint, spec=spec, prepared=prepared, metrics=figures, history=read_history(folder))


def worker(config: dict[str, Any]) -> None:
    """What every Ray Train worker runs."""
    import ray.train

    context = ray.train.get_context()
    rank = context.get_world_rank()

    def report(figures: dict[str, Any], save: Callable[[Path], None] | None) -> None:
        if save is None or rank != 0:
            ray.train.report(figures)  # all ranks report equally often
            return
        with tempfile.TemporaryDirectory() as local:
            save(Path(local))
            ray.train.report(figures, checkpoint=ray.train.Checkpoint.from_directory(local))

    spec = spec_load.validate(config["spec"])
    place = Place(rank, context.get_world_size(), _device(spec), config["threads"])
    prepared = Prepared(Path(config["prepared"]))
    if rank == 0:
        _library_agrees(prepared)
    stream = None
    if spec.data.mode == "streaming":
        n_rows = prepared.summary["rows"]["train"]
        shard = ray.train.get_dataset_shard("train")
        stream = StreamFeed(shard, prepared.contract, n_rows, spec.train.seed, spec.train.batch_size, place.workers)
    tasks.get(spec.task).train(spec, prepared, place, report, Path(config["folder"]), stream)


def _device(spec: RunSpec) -> str:
    if not spec.cluster.gpus_per_worker:
        return "cpu"
    import ray.train.torch

    return str(ray.train.torch.get_device())


def _library_agrees(prepared: Prepared) -> None:
    """Raise `ModelError` now, and not after training, where the model's own library gives other inputs than ours."""
    rows, contract = prepared.part("test"), prepared.contract
    task = tasks.of(contract)
    raw = {role: rows.raw(role, golden.ROWS) for role in task.subjects(contract)}
    columns, _ = Cleaner(contract).columns(raw, task.texts)
    inputs = [rows.inputs(at) for at in range(min(golden.ROWS, len(rows)))]
    task.library_agrees(contract, prepared.folder, columns, inputs)


def cause_of(error: BaseException) -> RaymillError:
    """Return what a failed training means for the user: the worker's own message where it gave one."""
    failures = getattr(error, "worker_failures", {})
    causes = [getattr(failure, "cause", None) or failure for failure in failures.values()]
    for cause in causes:
        if isinstance(cause, UserError):
            return cause
        if isinstance(cause, OSError) and cause.errno == 28:
            return ResourceError(f"no space is left for a checkpoint: {cause}", "free space in the storage folder")
    first = causes[0] if causes else error
    return RaymillError(f"training failed: {type(first).__name__}: {str(first).splitlines()[0] if str(first) else ''}")
