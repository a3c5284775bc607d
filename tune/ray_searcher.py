"""Ray Tune's searcher interface over queued points and Optuna's sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.tune.search import Searcher

from cluster.connect import local_ray
from trainer.runs.result import TrialRecord
from trainer.spec.objective import Goal
from trainer.spec.section import AUTO
from tune.point import Point, to_ray_config, trial_name
from tune.sampler import Sampler
from tune.trial_store import TrialStore


class QueueSearcher(Searcher):
    """Yields queued points, then samples new ones. Reports results to the sampler."""

    def __init__(
        self,
        store: TrialStore,
        goals: Sequence[Goal],
        queued: Sequence[Point],
        *,
        epochs: int,
        sampler: Sampler | None = None,
        n_new: int = 0,
        last_number: int = 0,
    ) -> None:
        """Sample at most `n_new` points, with names that continue after `last_number`.

        `epochs` is the number of epochs of a trial whose values do not set `train.epochs`.
        """
        super().__init__(metric=goals[0].name, mode=goals[0].mode)
        self._store, self._goals, self._epochs = store, list(goals), epochs
        self._queued, self._sampler, self._n_new, self._number = list(queued), sampler, n_new, last_number
        self._names: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:
        """Return the config of the next trial, or `FINISHED`."""
        point = self._next_point()
        if point is None:
            return Searcher.FINISHED
        self._names[trial_id] = point.name
        self._store.start(point)
        return to_ray_config(point)

    def _next_point(self) -> Point | None:
        if self._queued:
            return self._queued.pop(0)
        if self._sampler is None or not self._n_new:
            return None
        self._n_new -= 1
        self._number += 1
        name = trial_name(self._number)
        return Point(name, self._sampler.ask(name))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Record a trial that finished, was stopped by the scheduler or failed, and tell the sampler."""
        name = self._names.pop(trial_id, None)
        if name is None:
            return
        if local_ray.is_stopping:  # an interrupt killed the trial's process: the trial is resumed later
            raise KeyboardInterrupt
        self._record_end(name, error)
        if self._sampler is not None:
            tell_sampler(self._sampler, self._goals, self._store.read(name))

    def _record_end(self, name: str, error: bool) -> None:
        """Record the end of a trial whose process could not record it.

        The process died, or Ray Tune stopped the trial, perhaps at its last epoch.
        """
        record = self._store.read(name)
        if error:
            self._store.end(name, "failed", self._store.last_error(name) or "its process died")
        elif record.epochs >= self._epochs_of(record):
            self._store.end(name, "finished")
        else:
            self._store.end(name, "stopped")

    def _epochs_of(self, trial: TrialRecord) -> int:
        """Return the maximum number of epochs of a trial."""
        value = trial.values.get("train.epochs", AUTO)
        return self._epochs if value == AUTO else int(value)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the trial store has the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: a resumed search builds a new searcher."""


def tell_sampler(sampler: Sampler, goals: Sequence[Goal], trial: TrialRecord) -> None:
    """Tell a sampler the result of a trial."""
    scores = [trial.metrics[goal.name] for goal in goals] if trial.metric is not None else None
    by_epoch = {int(line["epoch"]): float(line[goals[0].name]) for line in trial.history}
    sampler.tell(trial.name, trial.values, scores, by_epoch, stopped=trial.state == "stopped")
