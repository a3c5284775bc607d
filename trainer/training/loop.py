"""The training loop: plain PyTorch on prepared rows. No Ray in here; a Ray worker, a trial of Ray Tune or a test calls it.

Letters in shapes: B rows of this worker's part of a step, C classes, T tokens.
"""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.errors import ModelError, UserError
from trainer.data.prepared import Prepared
from trainer.optim.distributed.collectives import agreed, gathered
from trainer.optim.distributed.worker_context import Place
from trainer.optim.precision import Precision, autocast, chosen
from trainer.runs.environment import write_hardware
from trainer.spec.run import RunSpec
from trainer.training import stop_request
from trainer.training.callbacks import Frozen, Report
from trainer.training.checkpoint import best_model as best_models
from trainer.training.checkpoint.background_writer import Background
from trainer.training.checkpoint.best_model import Best, must_be_finite
from trainer.training.checkpoint.snapshots import Snapshot, Snapshots
from trainer.training.checkpoint.train_state import Position
from trainer.training.feed import Feed, PreparedFeed
from trainer.training.log import TrainingLog
from trainer.training.step_window import Window

if TYPE_CHECKING:
    import torch

    from trainer.tasks.base import Task

_ROWS_NAMED = 8


class _Asked(Exception):
    """The training was asked to end at once. Raised on all ranks at the same step."""


def train(
    task: Task,
    spec: RunSpec,
    prepared: Prepared,
    place: Place,
    report: Report,
    folder: Path,
    stream: Feed | None = None,
) -> None:
    """Train the task's model on the prepared rows, or on a `stream`, and report every epoch. All ranks call this alike.

    Goes on from the newest checkpoint in `folder`, if there is one. Rank 0 writes history, figures, progress and
    checkpoints there. Raises `UserError` if the loss stops being a number.
    """
    Training(task, spec, prepared, place, report, folder, stream).run()


class Training:
    """One worker's part of a training, from the newest checkpoint to its end."""

    def __init__(
        self,
        task: Task,
        spec: RunSpec,
        prepared: Prepared,
        place: Place,
        report: Report,
        folder: Path,
        stream: Feed | None,
    ) -> None:
        self._task, self._spec, self._prepared, self._place = task, spec, prepared, place
        self._report, self._folder = report, folder
        self._feed = stream or PreparedFeed(
            prepared.part("train"), spec.train.seed, spec.train.batch_size, place.rank, place.workers
        )
        steps = spec.train.epochs * self._feed.steps_per_epoch
        self._n_steps = min(steps, spec.train.max_steps or steps)
        self._at = Position()
        self._log = TrainingLog(folder if place.rank == 0 else None, spec, self._feed.n_rows, self._n_steps)
        self._snapshots = Snapshots(folder, spec.train.checkpoint.keep)
        self._background = Background(self._log.notice)
        self._window = Window(place)

    def run(self) -> None:
        """Train to the end, or for as long as the spec says."""
        import torch

        torch.set_num_threads(self._place.threads)
        # Not `use_deterministic_algorithms`: that imports the compiler, which takes over a second.
        torch.set_deterministic_debug_mode("error" if self._spec.train.deterministic else "default")
        self._begin()
        best = Best(self._spec, self._at)
        # An epoch that was trained to its end, or the training's, is still to be judged.
        with contextlib.suppress(_Asked):
            while self._at.epoch <= self._spec.train.epochs and (
                self._at.step_in_epoch or not (best.is_over or self._is_over)
            ):
                self._log.begin_epoch(self._at.epoch)
                self._train_epoch(self._at.epoch)
                self._end_epoch(self._at.epoch, best)
        self._background.wait()
        self._log.finish()

    # -- beginning, and going on

    def _begin(self) -> None:
        from trainer.training.learner import Learner

        found = self._newest()
        place, wanted = self._place, found.state["precision"] if found else self._spec.train.precision
        precision: Precision = agreed(chosen(wanted, place.device_type, place.threads), place)
        self._precision = precision
        self._learner = Learner(self._task, self._spec, self._prepared, place, self._feed, precision, self._n_steps)
        if found:
            try:
                self._learner.restore(found.tensors, found.state["learner"])
            except (ValueError, KeyError, RuntimeError) as error:
                raise ModelError(
                    f"the checkpoint of step {found.step} in {self._folder} is of another model or spec",
                    "go on with the run's own spec, or begin a new run",
                ) from error
            self._at = Position.model_validate(found.state["position"])
        if place.rank == 0:
            write_hardware(self._folder, place, precision)
            self._snapshots.forget_after(self._at.step)
            best_models.forget_from(self._folder, self._at.epoch)
        self._must_have_the_best()
        self._log.begin(self._at)
        self._saved_at = time.monotonic()
        self._started = self._saved_at - self._at.seconds

    def _must_have_the_best(self) -> None:
        """Judge anew from here on where the best epoch's model could not be kept, so that some model is."""
        at = self._at
        own = getattr(self._report, "best", None)
        if own is not None:  # the state is another training's, and so is its best model
            at.best, at.since_best = own(), 0
            return
        if not at.best_epoch or not hasattr(self._report, "settle"):
            return
        if not agreed(best_models.is_there(self._folder, at.best_epoch), self._place):  # all ranks
            self._log.notice(f"the model of epoch {at.best_epoch}, the best so far, was not kept; the next best one is")
            at.best, at.best_epoch, at.since_best = None, 0, 0

    def _newest(self) -> Snapshot | None:
        """Return the newest snapshot that is whole: rank 0 looks, the others read the same one."""
        found = self._snapshots.newest(self._log.notice) if self._place.rank == 0 else None
        step = agreed(found.step if found else None, self._place)  # all ranks
        return found if found or step is None else self._snapshots.read(step)

    # -- steps

    def _train_epoch(self, epoch: int) -> None:
        at = self._at
        self._learner.model.train()
        for number, step in enumerate(self._feed.epoch(epoch, at.step_in_epoch), at.step_in_epoch):
            if self._is_over:
                return
            loss, norm = self._learner.step(step, epoch, number, at.step)
            at.after(step.rows)
            tokens = sum(map(len, step.inputs)) if self._task.token_input else 0
            self._window.add(loss, norm, step.rows, tokens)
            self._log.rows_done(step.rows)
            self._look(last=number + 1 == self._feed.steps_per_epoch)

    def _look(self, *, last: bool) -> None:
        """Look at the last steps, every few: are they sound, is it time to save, is it time to end?"""
        at, save = self._at, self._spec.train.checkpoint.every_steps
        must_save = self._feed.exact and save is not None and at.step % save == 0
        if not (last or must_save or self._is_over or at.step % self._spec.track.every_steps == 0):
            return
        stops = self._place.rank == 0 and stop_request.is_asked(self._folder)
        found = self._window.closed(ends=self._is_out_of_time(), saves=self._is_due(), stops=stops)  # all ranks
        if found.stops:
            raise _Asked
        if found.bad is not None:
            raise self._diverged(at.step_in_epoch - found.steps + found.bad, found.losses[found.bad])
        for loss in found.losses:  # one by one: the sum is the same whenever it is looked at
            at.loss_sum += loss
        figures = {
            "loss": sum(found.losses) / found.rows,
            "learning_rate": self._learner.rate(at.step - 1),
            "grad_norm": found.norm,
            "workers": self._place.workers,
        }
        self._log.steps_done(at, figures, steps=found.steps, rows=found.rows, tokens=found.tokens)
        if found.ends:
            self._n_steps = at.step
        if must_save or found.saves:
            self._save()

    @property
    def _is_over(self) -> bool:
        return self._at.step >= self._n_steps

    def _is_out_of_time(self) -> bool:
        limit = self._spec.train.max_time_s
        return limit is not None and time.monotonic() - self._started > limit

    def _is_due(self) -> bool:
        """Whether so many minutes have gone by; a save that is still going on puts the next one off."""
        minutes = self._spec.train.checkpoint.every_minutes
        if minutes is None or not self._feed.exact or self._background.busy:
            return False
        return time.monotonic() - self._saved_at > 60.0 * minutes

    def _state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return everything that is needed to go on from here: tensors, and the rest as JSON. All ranks call this."""
        self._at.seconds = time.monotonic() - self._started
        tensors, others = self._learner.state()
        return tensors, {"position": self._at.model_dump(), "precision": self._precision, "learner": others}

    def _write_state(self, folder: Path) -> None:
        tensors, state = self._state()  # all ranks
        if self._place.rank == 0:
            Snapshots(folder, keep=1).write(self._at.step, tensors, state)

    def _save(self) -> None:
        """Keep everything that is needed to go on from here; it is written beside the training."""
        tensors, state = self._state()  # all ranks
        self._saved_at = time.monotonic()
        if self._place.rank == 0:
            self._background.wait()  # the copy of one state is in memory at a time
            step = self._at.step
            settle = getattr(self._report, "settle", None)

            def write() -> None:
                if settle is not None:
                    settle()  # a checkpoint names the best epoch: first the model of that one
                self._snapshots.write(step, tensors, state)

            self._background.submit(f"the checkpoint of step {step}", write)

    def _diverged(self, number: int, loss: float) -> UserError:
        """Return what to tell of step `number` (from 0) of this epoch, whose loss or gradient is no number."""
        rows = self._feed.rows(self._at.epoch, number)
        said = [self._prepared.source("train", int(row)) for row in rows[:_ROWS_NAMED]]
        more = f" and {len(rows) - len(said)} more" if len(rows) > len(said) else ""
        of = f", in the rows {'; '.join(said)}{more}" if said else ""
        what = f"the loss is {loss}" if not math.isfinite(loss) else "the gradient is no number"
        step = (self._at.epoch - 1) * self._feed.steps_per_epoch + number + 1
        return UserError(
            f"training diverged: {what} at step {step} (epoch {self._at.epoch}){of}",
            "lower train.learning_rate, raise train.warmup_fraction, or look at these rows",
        )

    # -- epochs

    def _end_epoch(self, epoch: int, best: Best) -> None:
        at, target, fitted = self._at, self._task.target, self._prepared.contract.fitted
        rows = at.rows - (epoch - 1) * self._feed.n_rows
        with self._learner.ready() as model:
            figures = self._validated(model)  # all ranks
        must_be_finite(figures[target.loss], epoch)
        figures["train_loss"] = target.in_units(fitted, at.loss_sum / rows)
        better = best.is_better(figures)
        self._log.end_epoch(figures, at)
        reached = {"epoch": epoch, **figures}
        save = None
        if better and (self._place.rank == 0 or self._spec.cluster.sharding == "fsdp"):
            save = Frozen(self._learner.export(reached))  # all ranks where weights are sharded
        at.next_epoch()
        self._report(reached, save, self._write_state)  # all ranks
        if not self._feed.exact:
            self._save()

    def _validated(self, model: torch.nn.Module) -> dict[str, float]:
        """Return the figures on the held-out rows; every rank computes its share and all get the whole."""
        rows, place, spec, contract = (
            self._prepared.part("validation"),
            self._place,
            self._spec,
            self._prepared.contract,
        )
        # Equally many on every worker: those of a sharded model go through it together.
        each = -(-len(rows) // place.workers)
        mine = np.minimum(np.arange(each) * place.workers + place.rank, len(rows) - 1)
        inputs = [rows.inputs(row) for row in mine]
        with autocast(self._precision, place.device_type):
            logits = self._task.forward(model, contract, inputs, spec.evaluate.batch_size, place.device)
        parts = gathered((mine, logits), place)  # all ranks
        by_row = np.empty((len(rows), logits.shape[1]), logits.dtype)
        for at, values in parts:
            by_row[at] = values
        scores = self._task.target.scores(contract.fitted, by_row)
        return self._task.target.metrics(scores, rows.targets, spec.evaluate.calibration_bins)
