"""Launching a training: in this process, in an actor of its own, or with several workers in Ray Train.

A single worker needs nothing that Ray Train adds (a controller, a placement group, a process group). Without Ray Train,
the first step starts in half the time. A worker that dies is replaced in both cases.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from cluster.connect import joins_cluster, local_ray
from cluster.errors import RaymillError, ResourceError, UserError, first_line
from cluster.process_setup import collect_garbage_less_often
from cluster.ray_internals import data_parallel_trainer
from trainer.data.prepared import Prepared
from trainer.data.sources.source_file import SourceFile
from trainer.defaults.resolve import resolve_once
from trainer.runs import journal
from trainer.runs.journal import FAILURE, read_history
from trainer.runs.result import RunResult
from trainer.spec.run import RunSpec
from trainer.tasks import catalog as task_catalog
from trainer.tasks import load_spec
from trainer.tasks.estimators.backend import worker_backend
from trainer.training.checkpoint.best_model import newest_model
from trainer.training.checkpoint.export import read_epoch
from trainer.training.in_process import train_in_this_process
from trainer.training.stop_request import clear_stop_request
from trainer.training.worker import read_failure, run_worker

# Seconds that Ray waits for the cores of all workers before a placement fails. After a node has left, an elastic
# training first waits this long for the old number of workers.
_PLACEMENT_S, _ELASTIC_PLACEMENT_S = 60.0, 15.0
# Least number of placements before a run fails. Ray's default is to try forever, although a placement that seems possible
# may never succeed. In an elastic training, one also fails if Ray planned with nodes that had just left.
_PLACEMENTS, _ELASTIC_PLACEMENTS = 3, 20
# Longest time that one worker waits in a collective for another that still runs but does not answer; torch's default is
# 30 minutes. A machine that does not answer at all is noticed by Ray, much earlier.
_COLLECTIVE_TIMEOUT_S = 600
# The interval at which an elastic training checks whether it should have more or fewer workers.
_RESIZE_EVERY_S = 10.0
# The time until a worker's end is noticed; Ray's default is the longest. Ray Train's controller asks each worker every
# time, so with many workers it asks less often.
_HEALTH_CHECK_S, _LONGEST_HEALTH_CHECK_S, _HEALTH_CHECKS_PER_S = 0.5, 2.0, 128.0
# Ray Train reads this environment variable when a run starts. The preemption watcher looks for nodes that a cloud takes
# back: on one machine it only costs a process.
_RAY_TRAIN_LOCAL = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}


def launch_training(
    spec: RunSpec,
    prepared: Path,
    folder: Path,
    cpus_per_worker: float,
    files: list[SourceFile] | None = None,
    actor: Any = None,
    *,
    with_ray: bool = True,
) -> RunResult:
    """Train and return the best epoch's checkpoint. Resumes from the newest checkpoint in `folder`, if there is one.

    Keys that are still `auto` get their values, which are stored in `folder`. `folder` receives history, metrics,
    progress and checkpoints. `files` are the source files of streamed training rows, if they are already listed;
    `actor` is the result of `start_single_worker`, if it was called early. Without Ray, a training with a single worker
    runs in this process.

    Raises the worker's own `UserError`, or `ResourceError` if workers died more often than `train.max_failures`.
    """
    spec = resolve_once(spec, Prepared(prepared), folder).spec
    config = {
        "spec": spec.model_dump(mode="json", exclude_unset=True),
        "prepared": str(prepared),
        "folder": str(folder),
        "threads": max(1, int(cpus_per_worker)),
    }
    (folder / FAILURE).unlink(missing_ok=True)
    clear_stop_request(folder)
    try:
        if not with_ray:
            train_in_this_process(config)
        elif is_single_worker(spec):
            _fit_single(spec, config, cpus_per_worker, actor)
        else:
            _fit_distributed(spec, config, cpus_per_worker, _open_datasets(spec, prepared, files))
    except BaseException as error:
        raise read_failure(folder) or _ray_killed_error(error) or error from error
    failure = read_failure(folder)
    if failure:
        raise failure
    best = newest_model(folder)
    if best is None:
        raise ResourceError(
            f"no model could be written to {folder}",
            "read notices.jsonl in this folder; check free space and permissions",
        )
    return load_result(spec, prepared, folder, best)


def is_single_worker(spec: RunSpec) -> bool:
    """Return whether one process does the whole training and reads the prepared rows itself."""
    return spec.cluster.max_workers == 1 and spec.data.mode == "prepared"


def load_result(spec: RunSpec, prepared: Path, folder: Path, checkpoint: Path) -> RunResult:
    """Return the result of a training from its `folder` and the folder of its best model."""
    metrics = {name: value for name, value in read_epoch(checkpoint).items() if name != "epoch"}
    history = read_history(folder)
    return RunResult(
        checkpoint=checkpoint, spec=spec, prepared=prepared, metrics=metrics, history=history, folder=folder
    )


# -- one worker


class SingleWorker:
    """The process of a training with one worker. Started early, it imports its libraries while rows are prepared."""

    def __init__(self) -> None:
        collect_garbage_less_often()
        import torch  # noqa: F401
        import transformers  # noqa: F401

    def train(self, config: dict[str, Any]) -> None:
        """Train to the end."""
        spec = load_spec.validate_spec(config["spec"])
        device = "cuda" if spec.cluster.gpus_per_worker > 0 else "cpu"
        run_worker(config, 0, 1, device, lambda metrics: None)


def start_single_worker(spec: RunSpec, cpus: float) -> Any:
    """Start and return the actor for a training. The actor holds its cores and its GPU from now on."""
    import ray

    gpus = spec.cluster.gpus_per_worker
    # Unless OMP_NUM_THREADS is set, Ray gives libraries as many threads as an actor has cores.
    return ray.remote(SingleWorker).options(num_cpus=cpus, num_gpus=gpus).remote()


def _fit_single(spec: RunSpec, config: dict[str, Any], cpus: float, actor: Any) -> None:
    """Train in one actor. If it dies, another one resumes from the last checkpoint."""
    import ray

    for attempt in range(spec.train.max_failures + 1):
        actor = actor or start_single_worker(spec, cpus)
        try:
            ray.get(actor.train.remote(config))
            return
        except ray.exceptions.RayTaskError as error:
            raise failure_cause(error) from error
        except ray.exceptions.RayActorError as error:
            killed = _ray_killed_error(error)
            if killed:
                raise killed from error
            reason = first_line(error)
            if attempt == spec.train.max_failures:
                raise _worker_death(error) from error
            journal.append_notice(
                Path(config["folder"]),
                f"the worker died and is replaced; the run resumes from its last checkpoint ({reason})",
            )
        finally:
            ray.kill(actor)
            actor = None


# -- several workers


def _fit_distributed(spec: RunSpec, config: dict[str, Any], cpus: float, datasets: dict[str, Any] | None) -> None:
    import ray.train

    gpus, workers = spec.cluster.gpus_per_worker, spec.cluster.workers
    is_elastic = not isinstance(workers, int)
    placement_s, placements = (_ELASTIC_PLACEMENT_S, _ELASTIC_PLACEMENTS) if is_elastic else (_PLACEMENT_S, _PLACEMENTS)
    local = {} if joins_cluster(spec.cluster.address) else _RAY_TRAIN_LOCAL
    settings = {
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": f"{placement_s:g}",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": f"{health_check_s(spec.cluster.max_workers):g}",
    }
    for name, value in {**settings, **local}.items():
        os.environ.setdefault(name, value)
    trainer_type, options = _trainer_type(spec)
    trainer = trainer_type(
        worker_entry,
        train_loop_config=config,
        scaling_config=ray.train.ScalingConfig(  # type: ignore[call-arg]
            num_workers=workers,  # type: ignore[arg-type]
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": cpus, **({"GPU": gpus} if gpus else {})},
            elastic_resize_monitor_interval_s=_RESIZE_EVERY_S,
        ),
        datasets=datasets,
        **options,
        run_config=ray.train.RunConfig(
            name=_new_name(Path(config["folder"])),
            storage_path=config["folder"],
            failure_config=ray.train.FailureConfig(
                max_failures=spec.train.max_failures,
                controller_failure_limit=max(  # type: ignore[call-arg]
                    placements, math.ceil(spec.cluster.wait_for_machines_s / placement_s)
                ),
            ),
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise failure_cause(error) from error


def health_check_s(workers: int) -> float:
    """Return the seconds between two health checks of all workers."""
    return min(_LONGEST_HEALTH_CHECK_S, max(_HEALTH_CHECK_S, workers / _HEALTH_CHECKS_PER_S))


def _new_name(folder: Path) -> str:
    """Return a name that no earlier attempt of this run has: under an old name, Ray Train would load old state."""
    return f"train-{sum(1 for _ in folder.glob('train-*')) + 1}"


def _trainer_type(spec: RunSpec) -> tuple[Any, dict[str, Any]]:
    """Return the Ray Train trainer that connects the workers as the task needs it, and its options for that."""
    backend = worker_backend(task_catalog.get_task(spec.task), spec)
    if backend == "torch":
        import ray.train.torch

        config = ray.train.torch.TorchConfig(timeout_s=_COLLECTIVE_TIMEOUT_S)
        return ray.train.torch.TorchTrainer, {"torch_config": config}
    if backend == "xgboost":
        import ray.train.xgboost

        return ray.train.xgboost.XGBoostTrainer, {}
    return data_parallel_trainer(), {}


def _open_datasets(spec: RunSpec, prepared: Path, files: list[SourceFile] | None) -> dict[str, Any] | None:
    """Return the datasets that Ray Data streams to the workers; None if the workers read prepared rows themselves."""
    if spec.data.mode == "prepared":
        return None
    from trainer.training.stream import stream_training_rows

    return {"train": stream_training_rows(spec, Prepared(prepared), files)}


def worker_entry(config: dict[str, Any]) -> None:
    """Run one worker of Ray Train."""
    import ray.train

    context = ray.train.get_context()
    spec = load_spec.validate_spec(config["spec"])
    shard = ray.train.get_dataset_shard("train") if spec.data.mode == "streaming" else None
    run_worker(
        config,
        context.get_world_rank(),
        context.get_world_size(),
        _device(spec),
        lambda metrics: ray.train.report(metrics),  # all ranks must report the same number of times
        shard,
    )


def _device(spec: RunSpec) -> str:
    if not spec.cluster.gpus_per_worker:
        return "cpu"
    import ray.train.torch

    return str(ray.train.torch.get_device())


# -- errors


def _ray_killed_error(error: BaseException) -> RaymillError | None:
    """Return the error for a run whose own local Ray is gone; None if Ray is alive or the error has another cause."""
    if isinstance(error, (UserError, KeyboardInterrupt)) or not local_ray.is_gone:
        return None
    return RaymillError("Ray itself was killed, and the training with it")


def _worker_death(error: BaseException) -> ResourceError:
    """Return the error for a training whose workers died more often than it may restart."""
    return ResourceError(
        f"workers died more often than train.max_failures allows: {first_line(error)}",
        "look for the reason in the run's ray.log and on that machine (a process that takes too much memory is killed), "
        "then resume the run",
    )


def failure_cause(error: BaseException) -> RaymillError:
    """Return the error to show for a failed training: the worker's own message, if it has one."""
    import ray.exceptions

    # If a worker's process has ended, Ray Train says that its health check failed.
    failures: dict[int, BaseException] = {
        rank: getattr(failure, "health_check_failure", failure)
        for rank, failure in getattr(error, "worker_failures", {}).items()
    }
    controller_failure: Any = getattr(error, "controller_failure", None)
    causes = [getattr(failure, "cause", None) or failure for failure in failures.values()]
    causes = causes or [getattr(error, "cause", None) or error]
    for cause in causes:
        if isinstance(cause, UserError):
            return cause
        if isinstance(cause, OSError) and cause.errno == 28:
            return ResourceError(f"no space is left for a checkpoint: {cause}", "free space in the storage folder")
    first = causes[0]
    if type(controller_failure).__name__ == "WorkerGroupStartupTimeoutError":
        return ResourceError(
            f"the cluster has room for {controller_failure.num_workers} workers, but other work holds it",
            "wait until the other work ends or add machines, then resume the run",
        )
    died = next((failure for failure in failures.values() if isinstance(failure, ray.exceptions.RayActorError)), None)
    if died is not None:  # the others then fail in a collective
        return _worker_death(died)
    return RaymillError(f"training failed: {type(first).__name__}: {first_line(first)}")
