"""A search with Ray Tune: many trainings, of which the best becomes a `RunResult` like any other."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.connect import is_stopping
from cluster.errors import RaymillError, UserError
from cluster.progress import Progress
from trainer.pipeline.resources import Layout
from trainer.runs.result import Finalist, RunResult, SearchRecord, TrialRecord
from trainer.spec.run import RunSpec
from trainer.tasks import resolve
from trainer.training import stop_request
from trainer.training.launch import finished
from tune import finalists as finals
from tune import warm_start
from tune.dashboard import Board
from tune.objectives import goals_of, of_every_trial
from tune.point import POINT, Point, config_of, name_of
from tune.sampler import Sampling
from tune.schedulers import pauses, scheduler_of
from tune.search_space import preparation_of
from tune.time_budget import Clock
from tune.trial import trainable
from tune.trial_store import Records, of_final

#: Measures what serving a model costs: from its training's result to figures of `trainer.spec.tune.SERVE_FIGURES`.
Measure = Callable[[RunResult], Mapping[str, float]]

# What a trial asks for that only waits for its workers: Tune wants a bundle that is not empty, and any share of a CPU
# would be missing where the workers need them all.
_TRIAL_MEMORY_BYTES = 1 << 20
# Ray Tune's own files by trial (csv, json, TensorBoard) say nothing that ours do not, and cost each evaluation some ms.
# A trial that failed has no figures to tell of; that is in its records, and no reason to end the search.
# Its newer output prints two lines on stdout even where it is told to be silent.
_RAY_TUNE = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}

# Checkpoints of each trial where others may go on from one: it must still be there when they come to it.
_KEPT = 8
# How long trainings that were asked to end are waited for, once all trials are over.
_END_WITHIN_S, _LOOK_EVERY_S = 60.0, 0.2


class Search:
    """One search: `run` blocks until it ends, `progress` may be asked meanwhile from another thread."""

    def __init__(
        self,
        spec: RunSpec,
        prepared: dict[str, str],
        folder: Path,
        sizes: Layout,
        measure: Measure | None = None,
    ) -> None:
        """`folder` may hold trials of before an interruption. `measure` is needed where the spec asks what serving costs."""
        assert spec.tune is not None
        self.spec, self.tune, self.prepared, self.folder, self.sizes = spec, spec.tune, prepared, folder, sizes
        self._measure = measure
        self._records = Records(folder, spec)
        self._goals = of_every_trial(goals_of(spec))
        self._clock = Clock(folder, spec.tune.time_budget_s)
        self._board = Board(spec, self._records)

    def run(self) -> RunResult:
        """Search and return the winner. Raises the first trial's own error if no trial came to an evaluation."""
        self._clock.start()
        there = self._records.names(finals=False)
        sampling = Sampling(self.tune, self._goals, known=len(there))
        warm_start.teach(self.spec, self._goals, sampling, self.prepared)
        waiting = self._waiting(there)
        draws = 0 if self.tune.algorithm == "grid" else max(0, self.tune.n_trials - len(waiting))
        self._try(waiting, scheduler_of(self.spec), sampling, draws)
        trials = self._records.all(finals=False)
        # Of a search that was finished before only the winner has its weights.
        there_are = [trial for trial in trials if self._records.checkpoint(trial.name) is not None]
        finalists = finals.chosen(self.spec, there_are) or finals.ranked(self.spec, there_are)[:1]
        if not finalists:
            raise self._why_none(trials)
        if self.tune.seeds > 1:
            self._try(finals.more_seeds(self.spec, finalists), None)
        judged = finals.judged(self.spec, finalists, self._records.all(finals=True), self._served(finalists))
        record = self._record(sampling, judged)
        return self._winner(judged, record)

    def progress(self) -> Progress:
        """Return how far the search is, with a table of its trials."""
        self._clock.tick()
        return self._board.progress(self._clock)

    # -- trials

    def _waiting(self, there: Sequence[str]) -> list[Point]:
        """Return what is known already to be tried: trials that ended say again what they said, others go on."""
        begun = [self._records.point(name) for name in there]
        again = [point for point in begun if self._records.has_ended(point.name)]
        goes_on = [point for point in begun if not self._records.has_ended(point.name)]
        known = [point.values for point in begun]
        given = [values for values in warm_start.points(self.tune) if values not in known]
        room = max(0, self.tune.n_trials - len(begun))
        if self.tune.algorithm == "grid":
            given = [values for values in self.tune.combinations() if values not in known]
            room = room if self.tune.trials else len(given)
        numbered = warm_start.named(given[:room], after=len(begun))
        return [*again, *goes_on, *numbered]

    def _try(self, waiting: Sequence[Point], scheduler: Any, sampling: Sampling | None = None, draws: int = 0) -> None:
        """Have Ray Tune run trials. Raises nothing for trials that fail: they have that in their records."""
        import ray.tune

        if not waiting and not draws:
            return
        for name, value in _RAY_TUNE.items():
            os.environ.setdefault(name, value)
        one_worker = self.spec.cluster.workers == 1
        before = _groups()
        waiting, space, queue = self._queue(waiting, scheduler is not None, sampling, draws)
        ray.tune.Tuner(
            ray.tune.with_resources(self._trainable(scheduler is not None), self._resources(one_worker)),
            param_space=space,
            tune_config=ray.tune.TuneConfig(
                metric=self._goals[0].name,
                mode=self._goals[0].mode,
                search_alg=queue,
                scheduler=scheduler,
                num_samples=1 if space else len(waiting) + draws,
                # The ~8 s in which a trial's process imports torch are paid once for each place, not for each trial.
                reuse_actors=one_worker,
                time_budget_s=self._clock.left_s if scheduler is not None else None,  # the finals are run whole
                trial_name_creator=name_of,
                trial_dirname_creator=name_of,
            ),
            run_config=ray.tune.RunConfig(
                name=self._records.new_attempt(),
                storage_path=str(self.folder),
                verbose=0,
                failure_config=ray.tune.FailureConfig(max_failures=self.spec.train.max_failures),
                checkpoint_config=ray.tune.CheckpointConfig(num_to_keep=_KEPT if self._pauses else 1),
            ),
        ).fit()
        if is_stopping():
            raise KeyboardInterrupt
        self._note_the_lost()
        if not one_worker:
            self._end_what_is_left(before)

    def _note_the_lost(self) -> None:
        """Take note of population members whose process died: nobody else does, as no searcher hears of them."""
        if self.tune.scheduler != "pbt" or self._clock.is_over:
            return
        for name in self._records.names(finals=False):
            self._records.end(name, "failed", "its process died")

    def _end_what_is_left(self, before: set[str]) -> None:
        """End trainings with several workers that Ray Tune gave up waiting for, and free the cores they held."""
        for name in [*self._records.names(finals=False), *self._records.names(finals=True)]:
            if not self._records.has_ended(name) or self._records.read(name).state == "stopped":
                stop_request.ask(self._records.place(name))
        deadline = time.monotonic() + _END_WITHIN_S
        while (left := _groups() - before) and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY_S)
        _remove(left)

    @property
    def _pauses(self) -> bool:
        return pauses(self.spec)

    def _trainable(self, scheduled: bool) -> Any:
        return trainable(
            base=_without_search(self.spec),
            prepared=self.prepared,
            folder=str(self.folder),
            threads=self.sizes.cpus_per_worker,
            pauses=scheduled and self._pauses,
        )

    def _resources(self, one_worker: bool) -> dict[str, float]:
        gpus = self.spec.cluster.gpus_per_worker
        if one_worker:
            return {"CPU": self.sizes.cpus_per_worker, **({"GPU": gpus} if gpus else {})}
        # With several workers the trial itself only waits: its workers hold their own resources.
        return {"memory": _TRIAL_MEMORY_BYTES}

    def _queue(
        self, waiting: Sequence[Point], scheduled: bool, sampling: Sampling | None, draws: int
    ) -> tuple[Sequence[Point], dict[str, Any], Any]:
        """Return the points that wait, and Ray Tune's space and searcher, so that no more trials run than there is room for:
        others would wait for ever."""
        import ray.tune
        from ray.tune.search import ConcurrencyLimiter

        from tune.ray_searcher import Queue, trial_name

        last = self._last_number(waiting)
        if scheduled and self.tune.scheduler == "pbt":  # it does without a searcher: all are there from the beginning
            names = [trial_name(last + at) for at in range(1, draws + 1)]
            waiting = [*waiting, *[Point(name, sampling.draw(name)) for name in names if sampling]]
            for point in waiting:
                self._records.begin(point)
            return waiting, {POINT: ray.tune.grid_search([config_of(point)[POINT] for point in waiting])}, None
        queue = Queue(
            self._records,
            self._goals,
            waiting,
            epochs=self.spec.train.epochs,
            sampling=sampling,
            draws=draws,
            after=last,
        )
        if scheduled and self._pauses and self.spec.cluster.workers == 1:
            return waiting, {}, queue  # trials that wait for each other are all begun; cores hold them back
        return waiting, {}, ConcurrencyLimiter(queue, max_concurrent=self.sizes.trials_at_once)

    def _last_number(self, waiting: Sequence[Point]) -> int:
        names = [*self._records.names(finals=False), *[point.name for point in waiting]]
        return max((int(name) for name in names if name.isdigit()), default=0)

    # -- the end

    def _served(self, finalists: Sequence[TrialRecord]) -> dict[str, Mapping[str, float]]:
        if not self.tune.is_served or self._measure is None:
            return {}
        found = {}
        for trial in finalists:
            self._board.say(f"serving {trial.name}")
            found[trial.name] = self._measure(self._result(trial.name))
        return found

    def _record(self, sampling: Sampling, judged: list[Finalist]) -> SearchRecord:
        goals = [(goal.name, goal.mode) for goal in goals_of(self.spec)]
        is_final = self.tune.n_finalists > 0
        return SearchRecord(goals, self.tune.constraints, sampling.importance(), judged if is_final else [])

    def _winner(self, judged: list[Finalist], record: SearchRecord) -> RunResult:
        trials = self._records.all(finals=False)
        best = judged[0]
        if best.broken:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in best.figures.items())
            raise UserError(
                f"no finalist keeps to {' and '.join(best.broken)}; the nearest, {best.name}, has {shown}",
                f"allow more in tune.constraints, and go on with `raymill tune --resume {self.folder.name} --set ...`",
            )
        name = finals.best_seed(self.spec, best)
        won = dataclasses.replace(self._result(name), trials=trials, search=record)
        # Of a winner that was trained with another seed, the trial it is of stays a candidate when the search goes on.
        keep = {name, of_final(name)}
        for other in [*self._records.names(finals=False), *self._records.names(finals=True)]:
            if other not in keep:
                self._records.forget_model(other)
        return won

    def _result(self, name: str) -> RunResult:
        point, checkpoint = self._records.point(name), self._records.checkpoint(name)
        if checkpoint is None:
            raise RaymillError(f"the model of trial {name} is gone from {self.folder}")
        spec = resolve.with_values(resolve.validate(_without_search(self.spec)), point.values)
        prepared = Path(self.prepared[preparation_of(point.values)])
        return finished(spec, prepared, self._records.place(name), checkpoint)

    def _why_none(self, trials: Sequence[TrialRecord]) -> Exception:
        mistake = self._records.mistake()
        if mistake:
            return mistake
        errors = [trial.error for trial in trials if trial.error]
        if not errors:
            if self.tune.time_budget_s is None:
                return RaymillError(f"no trial of the search in {self.folder} has a model any more")
            return UserError("no trial came to an evaluation in tune.time_budget_s", "raise it, or lower train.epochs")
        return RaymillError(f"no trial of the search came to an evaluation: {errors[0]}")


def _groups() -> set[str]:
    """Return the placement groups that hold resources now, by id."""
    from ray.util import placement_group_table

    return {name for name, group in placement_group_table().items() if group["state"] != "REMOVED"}


def _remove(groups: set[str]) -> None:
    from ray._raylet import PlacementGroupID
    from ray.util import remove_placement_group
    from ray.util.placement_group import PlacementGroup

    for name in groups:
        remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))


def _without_search(spec: RunSpec) -> dict[str, Any]:
    raw = spec.model_dump(mode="json", exclude_unset=True)
    raw.pop("tune", None)
    return raw
