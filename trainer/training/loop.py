"""The training loop: plain PyTorch on prepared rows, without Ray. A Ray worker, a trial of Ray Tune or a test calls it.

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
from trainer.optim.distributed.collectives import all_gather_object, broadcast_object
from trainer.optim.matmul_rate import matmul_rate
from trainer.optim.precision import Precision, autocast, resolve_precision
from trainer.runs.environment import write_hardware
from trainer.training.batch_sources import open_batches
from trainer.training.callbacks import ModelWriter
from trainer.training.checkpoint.background_writer import BackgroundWriter
from trainer.training.checkpoint.best_model import (
    BestTracker,
    check_finite_loss,
    check_finite_scores,
    delete_models_from,
)
from trainer.training.checkpoint.checkpoints import Checkpoints, LoadedCheckpoint
from trainer.training.checkpoint.train_state import TrainState
from trainer.training.context import TrainContext
from trainer.training.log import TrainingLog
from trainer.training.methods import make_method
from trainer.training.step_window import StepWindow
from trainer.training.stop_request import is_stop_requested

if TYPE_CHECKING:
    import torch

_MAX_ROWS_NAMED = 8


class _StopRequested(Exception):
    """The training was asked to stop at once. Raised on all ranks at the same step."""


def train_model(context: TrainContext) -> None:
    """Train the task's model on the prepared rows, or on `context.stream`, and report every epoch.

    All ranks call this.

    Resumes from the newest checkpoint in `context.folder`, if there is one. Rank 0 writes history, metrics, progress
    and checkpoints there. Raises `UserError` if the loss is no longer finite.
    """
    TrainLoop(context).run()


class TrainLoop:
    """One worker's part of a training, from the newest checkpoint to its end."""

    def __init__(self, context: TrainContext) -> None:
        self._context = context
        self._task, self._spec, self._prepared = context.task, context.spec, context.prepared
        self._worker, self._folder, self._callback = context.worker, context.folder, context.callback
        spec, worker = context.spec, context.worker
        self._batches = context.stream or open_batches(context)
        steps = spec.train.n_epochs * self._batches.steps_per_epoch
        self._n_steps = min(steps, spec.train.max_steps or steps)
        self._state = TrainState()
        folder = self._folder if worker.rank == 0 else None
        share = self._n_steps / max(1, steps)
        self._log = TrainingLog(folder, spec, self._batches.n_rows, share_of_rows=share)
        self._checkpoints = Checkpoints(self._folder, spec.train.checkpoint.keep)
        self._writer = BackgroundWriter(self._log.notice)
        self._window = StepWindow(worker)

    def run(self) -> None:
        """Train until the last epoch, early stopping, a limit of the spec or a stop request."""
        import torch

        torch.set_num_threads(self._worker.threads)
        # Not `use_deterministic_algorithms`: that imports the compiler, which takes over a second.
        torch.set_deterministic_debug_mode("error" if self._spec.train.deterministic else "default")
        self._begin()
        best = BestTracker(self._spec, self._state)
        # An epoch that was interrupted after its last step still has to be validated, so it is entered again.
        with contextlib.suppress(_StopRequested):
            while self._state.epoch <= self._spec.train.n_epochs and (
                self._state.step_in_epoch or not (best.should_stop or self._is_done)
            ):
                self._log.begin_epoch(self._state.epoch)
                self._train_epoch(self._state.epoch)
                self._end_epoch(self._state.epoch, best)
        self._writer.wait()
        self._log.finish()

    # -- start and resume

    def _begin(self) -> None:
        from trainer.training.train_module import TrainModule

        checkpoint = self._load_newest()
        worker, requested = self._worker, checkpoint.state["precision"] if checkpoint else self._spec.train.precision
        resolved = resolve_precision(requested, worker.device_type, worker.threads)
        self._precision: Precision = broadcast_object(resolved, worker)
        self._module = TrainModule(self._context, self._batches, self._precision, self._n_steps)
        self._arithmetic = self._task.step_arithmetic(self._module.model)
        counts = self._arithmetic is not None and worker.rank == 0
        self._log.peak_arithmetic = worker.workers * matmul_rate(self._precision, worker.device) if counts else None
        self._method = make_method(self._context, self._batches, self._precision)
        self._method.begin(self._module.model)  # all ranks
        if checkpoint:
            self._restore(checkpoint)
        if worker.rank == 0:
            write_hardware(self._folder, worker, self._precision)
            self._checkpoints.delete_after(self._state.step)
            delete_models_from(self._folder, self._state.epoch)
        self._callback.on_begin(self._state)  # all ranks
        self._log.begin(self._state)
        self._saved_at = time.monotonic()
        self._started_at = self._saved_at - self._state.seconds

    def _load_newest(self) -> LoadedCheckpoint | None:
        """Return the newest complete checkpoint: rank 0 verifies it, and the other ranks load the same step."""
        checkpoint = self._checkpoints.load_newest(self._log.notice) if self._worker.rank == 0 else None
        step = broadcast_object(checkpoint.step if checkpoint else None, self._worker)  # all ranks
        return checkpoint if checkpoint or step is None else self._checkpoints.load(step, verify=False)

    def _restore(self, checkpoint: LoadedCheckpoint) -> None:
        try:
            self._module.restore(checkpoint.tensors, checkpoint.state["learner"])
        except (ValueError, KeyError, RuntimeError) as error:
            raise ModelError(
                f"the checkpoint of step {checkpoint.step} in {self._folder} belongs to another model or spec",
                "resume with the run's own spec, or start a new run",
            ) from error
        self._state = TrainState.model_validate(checkpoint.state["position"])

    # -- steps

    def _train_epoch(self, epoch: int) -> None:
        state = self._state
        self._module.model.train()
        for number, step in enumerate(self._batches.iter_steps(epoch, state.step_in_epoch), state.step_in_epoch):
            if self._is_done:
                return
            step = self._method.prepare(self._module.model, step, epoch, number)  # all ranks
            loss, norm = self._module.train_step(step, epoch, number, state.step)
            state.advance(step.rows, step.divisor)
            tokens = sum(map(len, step.inputs)) if self._task.token_input else 0
            self._window.add(loss, norm, step, tokens, self._arithmetic(step.inputs) if self._arithmetic else 0.0)
            self._log.add_rows(step.rows)
            self._check_steps(is_last=number + 1 == self._batches.steps_per_epoch)

    def _check_steps(self, *, is_last: bool) -> None:
        """Every few steps: check that the losses are finite, log the steps, and save or stop if it is time."""
        state, every = self._state, self._spec.train.checkpoint.every_steps
        is_save_step = self._batches.is_exact and every is not None and state.step % every == 0
        if not (is_last or is_save_step or self._is_done or state.step % self._spec.track.every_steps == 0):
            return
        stats = self._window.flush(  # all ranks
            is_out_of_time=self._is_out_of_time(),
            is_save_due=self._is_save_due(),
            is_stop_requested=self._worker.rank == 0 and is_stop_requested(self._folder),
        )
        if stats.is_stop_requested:
            raise _StopRequested
        if stats.first_bad is not None:
            number = state.step_in_epoch - stats.steps + stats.first_bad
            raise self._divergence_error(number, stats.losses[stats.first_bad])
        for loss in stats.losses:  # one by one, so that the sum does not depend on the size of the window
            state.loss_sum += loss
        metrics = {
            "loss": sum(stats.losses) / stats.divisor,
            "learning_rate": self._module.learning_rate(state.step - 1),
            "grad_norm": stats.grad_norm,
            "workers": self._worker.workers,
            **self._method.step_metrics(),
        }
        self._log.log_steps(state, metrics, stats)
        if stats.is_out_of_time:
            self._n_steps = state.step
        if is_save_step or stats.is_save_due:
            self._save()

    @property
    def _is_done(self) -> bool:
        return self._state.step >= self._n_steps

    def _is_out_of_time(self) -> bool:
        limit = self._spec.train.max_time_s
        return limit is not None and time.monotonic() - self._started_at > limit

    def _is_save_due(self) -> bool:
        """Return whether `checkpoint.every_minutes` have passed; a save in progress postpones the next one."""
        minutes = self._spec.train.checkpoint.every_minutes
        if minutes is None or not self._batches.is_exact or self._writer.is_busy:
            return False
        return time.monotonic() - self._saved_at > 60.0 * minutes

    def _checkpoint(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return everything needed to resume from here: tensors, and the rest as JSON values. All ranks call this."""
        self._state.seconds = time.monotonic() - self._started_at
        tensors, others = self._module.state()
        return tensors, {"position": self._state.model_dump(), "precision": self._precision, "learner": others}

    def _write_state(self, folder: Path) -> None:
        tensors, state = self._checkpoint()  # all ranks
        if self._worker.rank == 0:
            Checkpoints(folder, keep=1).save(self._state.step, tensors, state)

    def _save(self) -> None:
        """Save a checkpoint in the background."""
        tensors, state = self._checkpoint()  # all ranks
        claim = self._log.claim
        if claim:  # on rank 0
            claim.check()
        self._saved_at = time.monotonic()
        if self._worker.rank == 0:
            self._writer.wait()  # at most one copy of the state is in memory
            step = self._state.step

            def write() -> None:
                self._callback.settle()  # the checkpoint names the best epoch, so its model must be written first
                if claim and claim.is_valid:
                    self._checkpoints.save(step, tensors, state)

            self._writer.submit(f"the checkpoint of step {step}", write)

    def _divergence_error(self, number: int, loss: float) -> UserError:
        """Return the error for step `number` (from 0) of this epoch, whose loss or gradient is not finite."""
        rows = self._batches.rows_of(self._state.epoch, number)
        names = [self._prepared.source("train", int(row)) for row in rows[:_MAX_ROWS_NAMED]]
        more = f" and {len(rows) - len(names)} more" if len(rows) > len(names) else ""
        where = f", in the rows {'; '.join(names)}{more}" if names else ""
        problem = f"the loss is {loss}" if not math.isfinite(loss) else "the gradient is not finite"
        step = (self._state.epoch - 1) * self._batches.steps_per_epoch + number + 1
        return UserError(
            f"training diverged: {problem} at step {step} (epoch {self._state.epoch}){where}",
            "lower `train.learning_rate`, raise `train.warmup_fraction`, or check the rows",
        )

    # -- epochs

    def _end_epoch(self, epoch: int, best: BestTracker) -> None:
        state, target, fitted = self._state, self._task.target, self._prepared.contract.fitted
        with self._module.evaluation_model() as model:
            metrics = self._validate(model, epoch)  # all ranks
        check_finite_loss(metrics[target.loss_metric], epoch)
        metrics["train_loss"] = target.scale_loss(fitted, state.loss_sum / state.divisor)
        is_better = best.record(metrics)
        self._log.end_epoch(metrics, state)
        reached = {"epoch": epoch, **metrics}
        save = None
        if is_better and (self._worker.rank == 0 or self._spec.cluster.strategy == "fsdp"):
            save = ModelWriter(self._module.make_writer(reached))  # all ranks if weights are sharded
        state.begin_next_epoch()
        self._callback(reached, save, self._write_state)  # all ranks
        if not self._batches.is_exact:
            self._save()

    def _validate(self, model: torch.nn.Module, epoch: int) -> dict[str, float]:
        """Return the metrics on the validation rows. Each rank computes its share; all ranks get the same result."""
        rows, worker, contract = self._prepared.part("validation"), self._worker, self._prepared.contract
        # Every worker gets the same number of rows, because a sharded model runs on all workers together.
        share = -(-len(rows) // worker.workers)
        own = np.minimum(np.arange(share) * worker.workers + worker.rank, len(rows) - 1)
        inputs = [rows.inputs(row) for row in own]
        with autocast(self._precision, worker.device_type):
            logits = self._task.forward(model, contract, inputs, self._spec.evaluate.batch_size, worker.device)
        parts = all_gather_object((own, logits), worker)  # all ranks
        logits_by_row = np.empty((len(rows), logits.shape[1]), logits.dtype)
        for indices, values in parts:
            logits_by_row[indices] = values
        scores = self._task.target.scores(contract.fitted, logits_by_row)
        check_finite_scores(scores, epoch)
        metrics = self._task.target.metrics(scores, rows.targets, self._spec.evaluate.calibration_bins)
        return {**metrics, **self._method.metrics(model, scores)}  # all ranks
