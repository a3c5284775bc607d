"""Ray Tune's way to ask for the next trial, over our own points and Optuna's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.tune.search import Searcher

from cluster.connect import is_stopping
from trainer.runs.result import TrialRecord
from trainer.spec.tune import Goal
from tune.point import Point, config_of
from tune.sampler import Sampling
from tune.trial_store import Records


class Queue(Searcher):
    """Gives out points that wait, then draws new ones; what becomes of each is told to who draws."""

    def __init__(
        self,
        records: Records,
        goals: Sequence[Goal],
        waiting: Sequence[Point],
        *,
        epochs: int,
        sampling: Sampling | None = None,
        draws: int = 0,
        after: int = 0,
    ) -> None:
        """At most `draws` points are drawn, with names that count on from `after`.

        `epochs` is how many a trial takes where its values do not say it.
        """
        super().__init__(metric=goals[0].name, mode=goals[0].mode)
        self._records, self._goals = records, list(goals)
        self._waiting, self._sampling, self._draws, self._number = list(waiting), sampling, draws, after
        self._epochs = epochs
        self._name_of: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:
        """Return the config of the next trial, or that there is none."""
        point = self._next()
        if point is None:
            return Searcher.FINISHED
        self._name_of[trial_id] = point.name
        self._records.begin(point)
        return config_of(point)

    def _next(self) -> Point | None:
        if self._waiting:
            return self._waiting.pop(0)
        if self._sampling is None or not self._draws:
            return None
        self._draws -= 1
        self._number += 1
        name = trial_name(self._number)
        return Point(name, self._sampling.draw(name))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learn from a trial that ended, by its end, by the scheduler or by an error."""
        name = self._name_of.pop(trial_id, None)
        if name is None:
            return
        if is_stopping():  # its process was ended because somebody interrupted the search: it goes on another time
            raise KeyboardInterrupt
        self._note_end(name, error)
        if self._sampling is not None:
            learn(self._sampling, self._goals, self._records.read(name))

    def _note_end(self, name: str, error: bool) -> None:
        """Take note of an end that the trial itself did not: by an error, or by the scheduler, at its last epoch too."""
        record = self._records.read(name)
        if error:
            self._records.end(name, "failed", "its process died")
        elif record.epochs >= int(record.values.get("train.epochs", self._epochs)):
            self._records.end(name, "finished")
        else:
            self._records.end(name, "stopped")

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what it knows lies in the records."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a search that goes on makes a new one."""


def trial_name(number: int) -> str:
    """Return what the trial of a number is called."""
    return f"{number:04d}"


def learn(sampling: Sampling, goals: Sequence[Goal], trial: TrialRecord) -> None:
    """Tell who draws what came of a trial."""
    figures = [trial.figures[goal.name] for goal in goals] if trial.metric is not None else None
    by_epoch = {int(line["epoch"]): float(line[goals[0].name]) for line in trial.history}
    sampling.learn(trial.name, trial.values, figures, by_epoch, stopped=trial.state == "stopped")
