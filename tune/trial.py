"""One trial: the training loop in the trial's own actor, or a Ray Train run beside the actor for several workers.

A nested Ray Train run costs about 20 s of start-up on 2 cores, and its checkpoints reach Ray Tune only as a path in the
metrics. So a trial with one worker runs the same loop in the actor that Ray Tune starts anyway, and reuses.

A trial's folder holds its history and its checkpoints. An interrupted trial resumes from them, and an ended one replays
its metrics: Ray Tune's scheduler sees both as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

from cluster.errors import UserError
from cluster.files import wait_for_folders
from cluster.ray_internals import finish_trial_session
from trainer.data.prepared import Prepared
from trainer.defaults.resolve import resolve_once
from trainer.runs.claim import Superseded
from trainer.runs.journal import read_history, record_error
from trainer.spec.run import RunSpec
from trainer.tasks import load_spec
from trainer.training.callbacks import EpochCallback, SaveFn
from trainer.training.checkpoint.best_model import newest_model
from trainer.training.checkpoint.checkpoints import FOLDER, Checkpoints
from trainer.training.checkpoint.export import read_epoch
from trainer.training.checkpoint.train_state import TrainState
from trainer.training.launch import launch_training
from trainer.training.stop_request import clear_stop_request, request_stop
from trainer.training.worker import write_failure
from tune.point import Point, values_in_config
from tune.trial_store import TrialStore
from tune.variants import find_variant

_POLL_EVERY_S = 0.3
# A training with several workers that is stopped early has this long to finish its steps and end its processes.
_END_WITHIN_S = 600.0
# How long Ray Tune waits for a stopped trial's thread before the next trial reuses its process. If the thread takes
# longer, the next trial fails: on a busy machine the default of 2 s is too short.
_THREAD_TIMEOUT = ("TUNE_FUNCTION_THREAD_TIMEOUT_S", "60")

# Set in a trial's process once Ray Tune wants to end the trial.
_ending = threading.Event()


class _GracefulTrainable:
    """Lets a trial's training end before Ray Tune kills its process.

    Ray Tune kills the process at once when it ends the trial, and Ray Train's controller with it. The workers'
    placement group would stay, because its cleaner needs the dashboard (ray 2.60), and the next trial would wait for
    its cores forever.
    """

    def cleanup(self) -> None:
        """End the training, then clean up Ray Tune's state of the trial."""
        _ending.set()
        finish_trial_session(_END_WITHIN_S)
        super().cleanup()  # type: ignore[misc]


def make_trainable(**fixed: Any) -> Any:
    """Return the class that Ray Tune runs as a trial: `run_trial` with `fixed` arguments."""
    from ray.tune.trainable.function_trainable import wrap_function

    # `_GracefulTrainable` is pickled by reference. A class defined in this function would be pickled with its code.
    return type("Trial", (_GracefulTrainable, wrap_function(functools.partial(run_trial, **fixed))), {})


def run_trial(
    config: dict[str, Any],
    *,
    base: dict[str, Any],
    prepared: dict[str, str],
    folder: str,
    threads: int,
    every_checkpoint: bool,
) -> None:
    """Train once with the spec `base` and the values of `config`. Ray Tune calls this inside a trial's actor.

    `every_checkpoint` says that the scheduler may pause the trial, or resume it from another's checkpoint.
    """
    import ray.tune

    os.environ.setdefault(*_THREAD_TIMEOUT)
    name = ray.tune.get_context().get_trial_name()
    values = values_in_config(config)
    base_spec = load_spec.validate_spec(base)
    store = TrialStore(Path(folder), base_spec)
    wait_for_folders([store.folder(name)])
    try:
        rows = find_variant(Path(folder), prepared, values)
        spec = resolve_once(load_spec.override_spec(base_spec, values), Prepared(rows), store.folder(name)).spec
    except UserError as error:  # the values contradict each other: another attempt would fail too
        write_failure(store.folder(name), error)
        store.end(name, "failed", str(error))
        return
    checkpoint = ray.tune.get_checkpoint() if every_checkpoint else None
    took_over = checkpoint is not None and Path(checkpoint.path).parent.name != name
    reporter = _TuneReporter(store, name, every_checkpoint, took_over=took_over)
    if store.has_ended(name):
        reporter.replay()
        return
    if checkpoint is not None:
        _restore_state(Path(checkpoint.path), store.folder(name))
        store.start(Point(name, values))  # the values may be another trial's by now
    elif every_checkpoint and (newest := _newer_checkpoint(store, name)) is not None:
        _restore_state(newest, store.folder(name))  # an interrupted search: only Ray Tune's folder has the last epoch
    train = _train_in_process if spec.cluster.workers == 1 else _train_distributed
    try:
        train(spec, rows, store.folder(name), threads, reporter)
    except UserError as error:  # another attempt would fail too
        store.end(name, "failed", str(error))
        return
    except Superseded:  # the trial runs elsewhere, too
        raise
    except Exception as error:  # of a library: Ray Tune tries again
        record_error(store.folder(name), error)
        raise
    finally:
        _release_memory()
    store.end(name, "finished")


def _release_memory() -> None:
    """Return freed memory to the system: this process trains the next trial too, with new threads and heaps."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _restore_state(checkpoint: Path, folder: Path) -> None:
    """Replace a trial's training state with that of a checkpoint, which may be another trial's."""
    if (checkpoint / FOLDER).is_dir():
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        shutil.copytree(checkpoint / FOLDER, folder / FOLDER)


def _newer_checkpoint(store: TrialStore, name: str) -> Path | None:
    """Return a trial's checkpoint in Ray Tune's folder if it has more steps than the state in its own folder."""
    own_steps = Checkpoints(store.folder(name), keep=1).steps()
    candidates = [(step, path) for path in store.checkpoints(name) for step in Checkpoints(path, keep=1).steps()[:1]]
    step, newest = max(candidates, key=lambda candidate: candidate[0], default=(0, None))
    return newest if newest is not None and step > max(own_steps, default=0) else None


class _TuneReporter(EpochCallback):
    """Reports the epochs of a trial to Ray Tune."""

    def __init__(self, store: TrialStore, name: str, every_checkpoint: bool, *, took_over: bool) -> None:
        self._store, self._name, self._every_checkpoint = store, name, every_checkpoint
        self._took_over, self._n_reported = took_over, 0

    def replay(self) -> None:
        """Report the epochs of a trial that has ended, and with the last epoch its best model."""
        self._report_up_to(None, self._store.best_checkpoint(self._name))

    def on_begin(self, state: TrainState) -> None:
        """Set the best metric to this trial's own if PBT loaded another trial's state."""
        if self._took_over:
            state.best, state.since_best = self._own_best(), 0

    def _own_best(self) -> float | None:
        checkpoint = self._store.best_checkpoint(self._name)
        return float(read_epoch(checkpoint)[self._store.metric]) if checkpoint else None

    def __call__(self, metrics: dict[str, Any], save: SaveFn | None, write_state: SaveFn | None = None) -> None:
        """Report an epoch, with its model if it is the best so far, and its state if every checkpoint is needed."""
        epoch = int(metrics["epoch"])
        if save is None and (not self._every_checkpoint or write_state is None):
            self._report_up_to(epoch, None)
            return
        with tempfile.TemporaryDirectory(dir=self._store.folder(self._name)) as temporary:
            folder = Path(temporary)
            if save is not None:
                save(folder)
                self._store.record_size(self._name, folder)
            elif best := self._store.best_checkpoint(self._name):
                shutil.copytree(best, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(FOLDER))
            if self._every_checkpoint and write_state is not None:
                write_state(folder)
            self._report_up_to(epoch, folder)

    def _report_up_to(self, epoch: int | None, folder: Path | None) -> None:
        """Report every epoch that was not reported yet, including those before an interruption.

        If every checkpoint is needed, report the last epoch only.
        """
        import ray.tune

        lines = [
            line for line in read_history(self._store.folder(self._name)) if epoch is None or line["epoch"] <= epoch
        ]
        new = lines[-1:] if self._every_checkpoint else lines[self._n_reported :]
        for line in new[:-1]:
            ray.tune.report(line)
        self._n_reported = len(lines)
        if new:
            checkpoint = ray.tune.Checkpoint.from_directory(str(folder)) if folder else None
            ray.tune.report(new[-1], checkpoint=checkpoint)


def _train_in_process(spec: RunSpec, rows: Path, folder: Path, threads: int, reporter: _TuneReporter) -> None:
    from trainer.optim.distributed.worker_context import WorkerContext
    from trainer.tasks import catalog as task_catalog
    from trainer.training.context import TrainContext
    from trainer.training.run import run_training

    device = "cuda" if spec.cluster.gpus_per_worker > 0 else "cpu"
    task, context = task_catalog.get_task(spec.task), WorkerContext(0, 1, device, threads)
    try:
        run_training(TrainContext(task, spec, Prepared(rows), context, reporter, folder))
    except UserError as error:
        write_failure(folder, error)
        raise


def _train_distributed(spec: RunSpec, rows: Path, folder: Path, threads: int, reporter: _TuneReporter) -> None:
    """Run Ray Train with several workers. Report its epochs to Ray Tune as they come, with the best model so far."""
    outcome: dict[str, Any] = {}

    def body() -> None:
        try:
            outcome["result"] = launch_training(spec, rows, folder, float(threads))
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=body, daemon=True, name="raymill-nested-train")
    clear_stop_request(folder)
    thread.start()
    n_reported = 0
    try:
        while thread.is_alive() and not _ending.is_set():
            thread.join(_POLL_EVERY_S)
            history = read_history(folder)
            # While the training runs, the last epoch's model may not be on storage yet.
            complete = history[: len(history) if not thread.is_alive() else -1]
            for line in complete[n_reported:]:
                reporter(line, _model_writer(folder, int(line["epoch"])))  # does not return if Ray Tune ends the trial
                n_reported += 1
    finally:
        if thread.is_alive():
            request_stop(folder)
            thread.join()
    if _ending.is_set():
        raise SystemExit
    if "error" in outcome:
        raise outcome["error"]


def _model_writer(run: Path, epoch: int) -> SaveFn | None:
    """Return a function that moves an epoch's model into a folder, or None if that epoch is not the best so far."""
    newest = newest_model(run)
    try:
        if newest is None or int(read_epoch(newest)["epoch"]) != epoch:
            return None
        copy = Path(tempfile.mkdtemp(dir=run))
        shutil.copytree(newest, copy / "model")
    except (OSError, ValueError, shutil.Error):  # a better model replaced it meanwhile, and is reported next
        return None

    def move(folder: Path) -> None:
        for path in (copy / "model").iterdir():
            path.rename(folder / path.name)
        shutil.rmtree(copy)

    return move
