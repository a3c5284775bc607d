"""One trial: the training loop in the trial's own actor, or a Ray Train run beside it where it has several workers.

A nested Ray Train run costs about 20 s of start-up on 2 cores and its checkpoints reach Tune only as a path in the
metrics; so a trial with one worker runs the very same loop in the actor that Tune already has (and uses again).

A trial's folder holds its history and what it goes on from, so that one that was interrupted begins where it was, and one
that had ended only says again what it said: Tune's scheduler hears of both as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

from cluster.errors import UserError
from trainer.runs.journal import read_history
from trainer.spec.run import RunSpec
from trainer.tasks import resolve
from trainer.training import stop_request, worker
from trainer.training.callbacks import Save
from trainer.training.checkpoint import best_model as best_models
from trainer.training.checkpoint.export import epoch_of
from trainer.training.checkpoint.snapshots import FOLDER, Snapshots
from trainer.training.launch import fit
from tune.point import _NAME, POINT, Point
from tune.search_space import preparation_of
from tune.trial_store import Records

_LOOK_EVERY_S = 0.3


# A training with several workers that is ended early has this long to take its steps, and its processes, to an end.
_END_WITHIN_S = 600.0


# Set in a trial's process once Ray Tune wants it to end.
_ending = threading.Event()


class _WaitedFor:
    """A trial of Ray Tune's that takes its training to an end before its process is killed.

    Ray Tune kills a trial's process as soon as it was told of the end, and Ray Train's controller with it: the workers'
    placement group would stay (its cleaner asks the dashboard, ray 2.60), and the next trial wait for those cores for ever.
    """

    def cleanup(self) -> None:
        """End the training, then what Ray Tune has of it."""
        from ray.train._internal.session import get_session

        _ending.set()
        session = get_session()
        if session is not None:
            session.finish(timeout=_END_WITHIN_S)
        super().cleanup()  # type: ignore[misc]


def trainable(**fixed: Any) -> Any:
    """Return what Ray Tune runs as a trial: `run_trial` with `fixed`."""
    from ray.tune.trainable.function_trainable import wrap_function

    # By reference to what is here, and no copy: a class made in a function is pickled whole.
    return type("Trial", (_WaitedFor, wrap_function(functools.partial(run_trial, **fixed))), {})


def run_trial(
    config: dict[str, Any], *, base: dict[str, Any], prepared: dict[str, str], folder: str, threads: int, pauses: bool
) -> None:
    """Train once with the values of `config` put into the spec `base`; called by Ray Tune inside a trial's actor.

    `pauses` says that the scheduler may have the trial wait, or go on from another's checkpoint.
    """
    import ray.tune

    name = ray.tune.get_context().get_trial_name()
    values = {key: value for key, value in config[POINT].items() if key != _NAME}
    whole = resolve.validate(base)
    records = Records(Path(folder), whole)
    try:
        spec = resolve.with_values(whole, values)
        rows = Path(prepared[preparation_of(values)])
    except UserError as error:  # values that do not go together: the same again in another attempt
        worker.note_failure(records.place(name), error)
        records.end(name, "failed", str(error))
        return
    handed = ray.tune.get_checkpoint() if pauses else None
    took_over = handed is not None and Path(handed.path).parent.name != name
    told = _Told(records, name, pauses, took_over=took_over)
    if records.has_ended(name):
        told.again()
        return
    if handed is not None:
        _go_on_from(Path(handed.path), records.place(name))
        records.begin(Point(name, values))  # it may have another's values by now
    elif pauses and (newest := _newest_state(records, name)) is not None:
        _go_on_from(newest, records.place(name))  # the search was interrupted: its last epoch lies with Ray Tune alone
    try:
        if spec.cluster.workers == 1:
            _train_here(spec, rows, records.place(name), threads, told)
        else:
            _train_beside(spec, rows, records.place(name), threads, told)
    except UserError as error:  # the same again in another attempt
        records.end(name, "failed", str(error))
        return
    finally:
        _give_back_memory()
    records.end(name, "finished")


def _give_back_memory() -> None:
    """Return what a trial freed to the system: this process trains the next one, with other threads and their heaps."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc's alone
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _go_on_from(checkpoint: Path, place: Path) -> None:
    """Put what a checkpoint has to go on from in the place of what the trial had: it may be another trial's."""
    if (checkpoint / FOLDER).is_dir():
        shutil.rmtree(place / FOLDER, ignore_errors=True)
        shutil.copytree(checkpoint / FOLDER, place / FOLDER)


def _newest_state(records: Records, name: str) -> Path | None:
    """Return the checkpoint of a trial that is further than what its own folder holds, if there is one."""
    own = Snapshots(records.place(name), keep=1).steps()
    further = [(step, path) for path in records.checkpoints(name) for step in Snapshots(path, keep=1).steps()[:1]]
    step, newest = max(further, key=lambda each: each[0], default=(0, None))
    return newest if newest is not None and step > max(own, default=0) else None


class _Told:
    """What Ray Tune was told of a trial."""

    def __init__(self, records: Records, name: str, pauses: bool, *, took_over: bool) -> None:
        self._records, self._name, self._pauses = records, name, pauses
        self.best = self._best_own if took_over else None
        """Returns the figure of the best model of its own, where it goes on from another's state, whose best model is there."""
        self._epochs = 0

    def again(self) -> None:
        """Tell of the epochs of a trial that had ended, its best model with the last one."""
        self._tell_up_to(None, self._records.checkpoint(self._name))

    def _best_own(self) -> float | None:
        own = self._records.checkpoint(self._name)
        return float(epoch_of(own)[self._records.metric]) if own else None

    def __call__(self, figures: dict[str, Any], save: Save | None, state: Save | None = None) -> None:
        """Tell of an epoch, and hand its model over if it is the best so far."""
        epoch = int(figures["epoch"])
        if save is None and (not self._pauses or state is None):
            self._tell_up_to(epoch, None)
            return
        with tempfile.TemporaryDirectory(dir=self._records.place(self._name)) as local:
            folder = Path(local)
            if save is not None:
                save(folder)
                self._records.weigh(self._name, folder)
            elif kept := self._records.checkpoint(self._name):
                shutil.copytree(kept, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(FOLDER))
            if self._pauses and state is not None:
                state(folder)
            self._tell_up_to(epoch, folder)

    def _tell_up_to(self, epoch: int | None, folder: Path | None) -> None:
        """Tell of every epoch that was not told of yet, those of before an interruption among them."""
        import ray.tune

        lines = [
            line for line in read_history(self._records.place(self._name)) if epoch is None or line["epoch"] <= epoch
        ]
        new = lines[self._epochs :] if not self._pauses else lines[-1:]
        for line in new[:-1]:
            ray.tune.report(line)
        self._epochs = len(lines)
        if new:
            checkpoint = ray.tune.Checkpoint.from_directory(str(folder)) if folder else None
            ray.tune.report(new[-1], checkpoint=checkpoint)


def _train_here(spec: RunSpec, rows: Path, place: Path, threads: int, told: _Told) -> None:
    from trainer.data.prepared import Prepared
    from trainer.optim.distributed.worker_context import Place
    from trainer.tasks import catalog as task_catalog
    from trainer.training.run import run

    device = "cuda" if spec.cluster.gpus_per_worker > 0 else "cpu"
    try:
        run(task_catalog.get(spec.task), spec, Prepared(rows), Place(0, 1, device, threads), told, place)
    except UserError as error:
        worker.note_failure(place, error)
        raise


def _train_beside(spec: RunSpec, rows: Path, place: Path, threads: int, told: _Told) -> None:
    """Run Ray Train with several workers and pass its epochs on to Tune as they come, with the best model so far."""
    outcome: dict[str, Any] = {}

    def body() -> None:
        try:
            outcome["result"] = fit(spec, rows, place, float(threads))
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=body, daemon=True, name="raymill-nested-train")
    stop_request.forget(place)
    thread.start()
    passed = 0
    try:
        while thread.is_alive() and not _ending.is_set():
            thread.join(_LOOK_EVERY_S)
            history = read_history(place)
            # The last epoch's model may still be on its way to storage while the training runs.
            for line in history[passed : len(history) if not thread.is_alive() else -1]:
                told(line, _model_of(place, int(line["epoch"])))  # and no further, where that ends the trial
                passed += 1
    finally:
        if thread.is_alive():
            stop_request.ask(place)
            thread.join()
    if _ending.is_set():
        raise SystemExit
    if "error" in outcome:
        raise outcome["error"]


def _model_of(place: Path, epoch: int) -> Save | None:
    """Return what hands the model of an epoch over, if that is the best one so far."""
    newest = best_models.newest(place)
    try:
        if newest is None or int(epoch_of(newest)["epoch"]) != epoch:
            return None
        kept = Path(tempfile.mkdtemp(dir=place))
        shutil.copytree(newest, kept / "model")
    except (OSError, ValueError, shutil.Error):  # a better one took its place meanwhile: that one is handed over next
        return None

    def move(folder: Path) -> None:
        for path in (kept / "model").iterdir():
            path.rename(folder / path.name)
        shutil.rmtree(kept)

    return move
