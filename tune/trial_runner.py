"""Run trials with Ray Tune, and free the resources of those that have ended."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cluster.connect import local_ray
from cluster.placement_groups import active_placement_groups, remove_placement_groups
from trainer.pipeline.resources import ResourcePlan
from trainer.spec.objective import Goal
from trainer.spec.run import RunSpec
from trainer.training.stop_request import request_stop
from tune.point import POINT_KEY, Point, ray_trial_name, to_ray_config, trial_name
from tune.sampler import Sampler
from tune.schedulers import build_scheduler, needs_every_checkpoint
from tune.search_space import spec_without_search
from tune.stop_rules import TimeBudget
from tune.trial import make_trainable
from tune.trial_store import TrialStore

# The resources of a trial that only waits for its workers. Ray Tune rejects an empty request, and a share of a CPU
# would be missing if the workers need all CPUs.
_WAITING_TRIAL_MEMORY_BYTES = 1 << 20
_RAY_TUNE_ENVIRONMENT = {
    # Ray Tune's own files for each trial (csv, json, TensorBoard) repeat ours and cost some ms per evaluation.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # A failed trial reports no metrics. Its record says why, and the search continues.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # The newer output prints two lines on stdout even with verbose=0.
    "RAY_AIR_NEW_OUTPUT": "0",
}
# The number of checkpoints that a trial keeps. Another trial may resume from one of them some epochs later.
_CHECKPOINTS_TO_RESUME_FROM = 8
# How long to wait for stopped trainings after all trials have ended.
_END_WITHIN_S, _POLL_EVERY_S = 60.0, 0.2


class _TrialSource(NamedTuple):
    """The source of Ray Tune's trials: a grid of all points for PBT, otherwise a searcher."""

    n_trials: int
    param_space: dict[str, Any]
    searcher: Any


class TrialRunner:
    """Runs the trials of one search on the connected Ray. A failed trial is recorded in the store, not raised."""

    def __init__(
        self,
        spec: RunSpec,
        prepared: Mapping[str, str],
        folder: Path,
        resources: ResourcePlan,
        store: TrialStore,
        goals: Sequence[Goal],
        budget: TimeBudget,
    ) -> None:
        assert spec.tune is not None
        self._spec, self._tune, self._prepared, self._folder = spec, spec.tune, dict(prepared), folder
        self._resources, self._store, self._goals, self._budget = resources, store, list(goals), budget
        self._is_single_worker = spec.cluster.workers == 1

    def run_search(self, points: Sequence[Point], sampler: Sampler, n_new: int) -> None:
        """Run `points` and `n_new` sampled points with the spec's scheduler, within the time budget."""
        if points or n_new:
            source = self._build_source(points, sampler, n_new)
            self._run(source, build_scheduler(self._spec), needs_every_checkpoint(self._spec), self._budget.remaining_s)

    def run_to_end(self, points: Sequence[Point]) -> None:
        """Run `points` without a scheduler and without the time budget."""
        if points:
            searcher = self._limit(self._build_searcher(points))
            self._run(_TrialSource(len(points), {}, searcher), None, every_checkpoint=False, time_budget_s=None)

    def _run(self, source: _TrialSource, scheduler: Any, every_checkpoint: bool, time_budget_s: float | None) -> None:
        import ray.tune

        for name, value in _RAY_TUNE_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        groups_before = active_placement_groups().keys()
        trainable = make_trainable(
            base=spec_without_search(self._spec),
            prepared=self._prepared,
            folder=str(self._folder),
            threads=self._resources.cpus_per_worker,
            every_checkpoint=every_checkpoint,
        )
        ray.tune.Tuner(
            ray.tune.with_resources(trainable, self._trial_resources()),
            param_space=source.param_space,
            tune_config=ray.tune.TuneConfig(
                metric=self._goals[0].name,
                mode=self._goals[0].mode,
                search_alg=source.searcher,
                scheduler=scheduler,
                num_samples=1 if source.param_space else source.n_trials,
                # Importing torch takes a trial's process about 8 s: pay that once per concurrent trial, not per trial.
                reuse_actors=self._is_single_worker,
                time_budget_s=time_budget_s,
                trial_name_creator=ray_trial_name,
                trial_dirname_creator=ray_trial_name,
            ),
            run_config=ray.tune.RunConfig(
                name=self._store.new_attempt_name(),
                storage_path=str(self._folder),
                verbose=0,
                failure_config=ray.tune.FailureConfig(max_failures=self._spec.train.max_failures),
                checkpoint_config=ray.tune.CheckpointConfig(
                    num_to_keep=_CHECKPOINTS_TO_RESUME_FROM if needs_every_checkpoint(self._spec) else 1
                ),
            ),
        ).fit()
        if local_ray.is_stopping:
            raise KeyboardInterrupt
        self._mark_dead_trials()
        if not self._is_single_worker:
            self._end_trainings(groups_before)

    def _trial_resources(self) -> dict[str, float]:
        if not self._is_single_worker:
            # The trial only waits: its workers hold their own resources.
            return {"memory": _WAITING_TRIAL_MEMORY_BYTES}
        gpus = self._spec.cluster.gpus_per_worker
        return {"CPU": self._resources.cpus_per_worker, **({"GPU": gpus} if gpus else {})}

    def _build_source(self, points: Sequence[Point], sampler: Sampler, n_new: int) -> _TrialSource:
        last_number = self._last_number(points)
        if self._tune.scheduler == "pbt":
            return self._build_population(points, sampler, n_new, last_number)
        searcher: Any = self._build_searcher(points, sampler=sampler, n_new=n_new, last_number=last_number)
        # Trials that pause for each other must all start, or they would wait forever. The cores limit how many run.
        if not (needs_every_checkpoint(self._spec) and self._is_single_worker):
            searcher = self._limit(searcher)
        return _TrialSource(len(points) + n_new, {}, searcher)

    def _build_population(
        self, points: Sequence[Point], sampler: Sampler, n_new: int, last_number: int
    ) -> _TrialSource:
        """Return the source for PBT, which takes no searcher: all its members exist from the start."""
        import ray.tune

        names = [trial_name(number) for number in range(last_number + 1, last_number + n_new + 1)]
        members = [*points, *[Point(name, sampler.ask(name)) for name in names]]
        for point in members:
            self._store.start(point)
        grid = ray.tune.grid_search([to_ray_config(point)[POINT_KEY] for point in members])
        return _TrialSource(len(members), {POINT_KEY: grid}, None)

    def _build_searcher(self, points: Sequence[Point], **options: Any) -> Any:
        from tune.ray_searcher import QueueSearcher

        return QueueSearcher(self._store, self._goals, points, epochs=self._spec.train.n_epochs, **options)

    def _limit(self, searcher: Any) -> Any:
        """Limit the number of concurrent trials by the resources. More trials would wait forever for their workers."""
        from ray.tune.search import ConcurrencyLimiter

        return ConcurrencyLimiter(searcher, max_concurrent=self._resources.trials_at_once)

    def _last_number(self, points: Sequence[Point]) -> int:
        names = [*self._store.names(reseeded=False), *[point.name for point in points]]
        return max((int(name) for name in names if name.isdigit()), default=0)

    def _mark_dead_trials(self) -> None:
        """Record PBT's members whose process died as failed: without a searcher nothing else records it."""
        if self._tune.scheduler != "pbt" or self._budget.is_over:
            return
        for name in self._store.names(reseeded=False):
            self._store.end(name, "failed", self._store.last_error(name) or "its process died")

    def _end_trainings(self, groups_before: Iterable[str]) -> None:
        """Stop trainings with several workers that Ray Tune no longer waits for, and free their cores."""
        for name in self._store.all_names():
            if not self._store.has_ended(name) or self._store.read(name).state == "stopped":
                request_stop(self._store.folder(name))
        deadline = time.monotonic() + _END_WITHIN_S
        while (left := active_placement_groups().keys() - groups_before) and time.monotonic() < deadline:
            time.sleep(_POLL_EVERY_S)
        remove_placement_groups(left)
