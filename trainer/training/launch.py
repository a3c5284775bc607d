"""One training on a connected Ray: a single worker in an actor of its own, several with Ray Train around the same loop.

A single worker has no use for what Ray Train adds (a controller, a placement group, a process group): without it the first
step comes in half the time, and what is left is what matters here: a worker that dies is replaced.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cluster.connect import joins, local_ray_is_gone
from cluster.errors import RaymillError, ResourceError, UserError
from trainer.data.prepared import Prepared
from trainer.data.sources.resolve import SourceFile
from trainer.runs import journal
from trainer.runs.journal import read_history
from trainer.runs.result import RunResult
from trainer.spec.run import RunSpec
from trainer.tasks import catalog as task_catalog
from trainer.tasks import resolve
from trainer.training import worker
from trainer.training.checkpoint import best_model as best_models
from trainer.training.checkpoint.export import epoch_of

# A placement that is possible but never comes is tried this often before the run fails; Ray's default is for ever.
_CONTROLLER_FAILURES = 3
# Of an elastic training such a failure means that it was planned with nodes that had just left.
_ELASTIC_CONTROLLER_FAILURES = 20
# How often an elastic training looks whether there is room for more workers, or fewer.
_RESIZE_EVERY_S = 10.0
# Of Ray Train's own, read when a run starts: how soon a worker's end is seen (its default is 2 s), and a watcher of nodes
# that a cloud takes back, which costs a process and has nothing to watch on one machine.
_RAY_TRAIN = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5"}
_RAY_TRAIN_HERE = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
# After a node has left, Ray Train first waits for so many workers as there were (its default is a minute).
_RAY_TRAIN_ELASTIC = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15"}


def fit(
    spec: RunSpec,
    prepared: Path,
    folder: Path,
    cpus_per_worker: float,
    files: list[SourceFile] | None = None,
    actor: Any = None,
) -> RunResult:
    """Train and return the best epoch's checkpoint. Goes on from the newest checkpoint in `folder`, if there is one.

    `folder` gets history, figures, progress and checkpoints. `files` are the source files where training rows are streamed
    and their files are known already; `actor` is what `start_alone` returned, where it was started early.

    Raises the worker's own `UserError`, or `RaymillError` if workers died more often than `train.max_failures`.
    """
    config = {
        "spec": spec.model_dump(mode="json", exclude_unset=True),
        "prepared": str(prepared),
        "folder": str(folder),
        "threads": max(1, int(cpus_per_worker)),
    }
    (folder / worker.FAILURE).unlink(missing_ok=True)
    try:
        if is_alone(spec):
            _alone(spec, config, cpus_per_worker, actor)
        else:
            _together(spec, config, cpus_per_worker, _streams(spec, prepared, files))
    except BaseException as error:
        raise worker.failure(folder) or _ray_is_gone(error) or error from error
    found = worker.failure(folder)
    if found:
        raise found
    best = best_models.newest(folder)
    if best is None:
        raise ResourceError(
            f"no model could be written to {folder}", "look at notices.jsonl in it; check space and permissions"
        )
    return finished(spec, prepared, folder, best)


def is_alone(spec: RunSpec) -> bool:
    """Whether one process does the whole training, with rows that it reads itself."""
    return spec.cluster.most_workers == 1 and spec.data.mode == "prepared"


def finished(spec: RunSpec, prepared: Path, folder: Path, checkpoint: Path) -> RunResult:
    """Return the result of a training whose history lies in `folder`."""
    figures = {name: value for name, value in epoch_of(checkpoint).items() if name != "epoch"}
    history = read_history(folder)
    return RunResult(
        checkpoint=checkpoint, spec=spec, prepared=prepared, metrics=figures, history=history, folder=folder
    )


# -- one worker


class Alone:
    """The process of a training with one worker. Made early, it imports what it will need while rows are prepared."""

    def __init__(self) -> None:
        import torch  # noqa: F401
        import transformers  # noqa: F401

    def train(self, config: dict[str, Any]) -> None:
        """Train to the end."""
        spec = resolve.validate(config["spec"])
        device = "cuda" if spec.cluster.gpus_per_worker > 0 else "cpu"
        worker.work(config, 0, 1, device, lambda figures: None)


def start_alone(spec: RunSpec, cpus: float) -> Any:
    """Return a new actor that is to train; it takes its cores and its GPU from now on."""
    import ray

    gpus = spec.cluster.gpus_per_worker
    # Ray gives libraries as many threads as an actor has cores, where OMP_NUM_THREADS is not set.
    return ray.remote(Alone).options(num_cpus=cpus, num_gpus=gpus).remote()


def _alone(spec: RunSpec, config: dict[str, Any], cpus: float, actor: Any) -> None:
    """Train in one actor; where it dies another one goes on from the last checkpoint."""
    import ray

    for attempt in range(spec.train.max_failures + 1):
        actor = actor or start_alone(spec, cpus)
        try:
            ray.get(actor.train.remote(config))
            return
        except ray.exceptions.RayTaskError as error:
            raise cause_of(error) from error
        except ray.exceptions.RayActorError as error:
            gone = _ray_is_gone(error)
            if gone:
                raise gone from error
            said = str(error).strip().splitlines()[0]
            if attempt == spec.train.max_failures:
                raise RaymillError(f"the worker died {attempt + 1} times, the last time: {said}") from error
            journal.notice(
                Path(config["folder"]),
                f"the worker died and is replaced; the run goes on from its last checkpoint ({said})",
            )
        finally:
            ray.kill(actor)
            actor = None


# -- several workers


def _together(spec: RunSpec, config: dict[str, Any], cpus: float, datasets: dict[str, Any] | None) -> None:
    import ray.train

    gpus, workers = spec.cluster.gpus_per_worker, spec.cluster.workers
    elastic = not isinstance(workers, int)
    here = {} if joins(spec.cluster.address) else _RAY_TRAIN_HERE
    for name, value in {**_RAY_TRAIN, **here, **(_RAY_TRAIN_ELASTIC if elastic else {})}.items():
        os.environ.setdefault(name, value)
    trainer = _trainer_type(spec)(
        one_of_many,
        train_loop_config=config,
        scaling_config=ray.train.ScalingConfig(  # type: ignore[call-arg]
            num_workers=workers,  # type: ignore[arg-type]
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": cpus, **({"GPU": gpus} if gpus else {})},
            elastic_resize_monitor_interval_s=_RESIZE_EVERY_S,
        ),
        datasets=datasets,
        run_config=ray.train.RunConfig(
            name=_new_name(Path(config["folder"])),
            storage_path=config["folder"],
            failure_config=ray.train.FailureConfig(
                max_failures=spec.train.max_failures,
                controller_failure_limit=_ELASTIC_CONTROLLER_FAILURES if elastic else _CONTROLLER_FAILURES,  # type: ignore[call-arg]
            ),
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise cause_of(error) from error


def _new_name(folder: Path) -> str:
    """Return a name no attempt of this run had: under an old one Ray Train would take over what it left."""
    return f"train-{sum(1 for _ in folder.glob('train-*')) + 1}"


def _trainer_type(spec: RunSpec) -> Any:
    """Return the trainer of Ray Train that joins the workers as the task needs it."""
    backend = task_catalog.get(spec.task).backend(spec)
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
    from trainer.training.stream import training_rows

    return {"train": training_rows(spec, Prepared(prepared), files)}


def one_of_many(config: dict[str, Any]) -> None:
    """What every Ray Train worker runs."""
    import ray.train

    context = ray.train.get_context()
    spec = resolve.validate(config["spec"])
    shard = ray.train.get_dataset_shard("train") if spec.data.mode == "streaming" else None
    worker.work(
        config,
        context.get_world_rank(),
        context.get_world_size(),
        _device(spec),
        lambda figures: ray.train.report(figures),  # all ranks report equally often
        shard,
    )


def _device(spec: RunSpec) -> str:
    if not spec.cluster.gpus_per_worker:
        return "cpu"
    import ray.train.torch

    return str(ray.train.torch.get_device())


# -- what went wrong


def _ray_is_gone(error: BaseException) -> RaymillError | None:
    """Return what to say where no worker failed but the Ray that was started for this run; None if it is there."""
    if isinstance(error, (UserError, KeyboardInterrupt)) or not local_ray_is_gone():
        return None
    return RaymillError("Ray itself was killed, and the training with it")


def cause_of(error: BaseException) -> RaymillError:
    """Return what a failed training means for the user: the worker's own message where it gave one."""
    failures = getattr(error, "worker_failures", {})
    causes = [getattr(failure, "cause", None) or failure for failure in failures.values()]
    causes = causes or [getattr(error, "cause", None) or error]
    for cause in causes:
        if isinstance(cause, UserError):
            return cause
        if isinstance(cause, OSError) and cause.errno == 28:
            return ResourceError(f"no space is left for a checkpoint: {cause}", "free space in the storage folder")
    first = causes[0]
    return RaymillError(f"training failed: {type(first).__name__}: {str(first).splitlines()[0] if str(first) else ''}")
