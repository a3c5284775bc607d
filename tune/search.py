"""A search: many trials with Ray Tune. The best trial becomes a `RunResult`, like any training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cluster.errors import RaymillError, UserError, error_summary
from cluster.progress import Progress
from trainer.data.prepared import Prepared
from trainer.defaults.resolve import resolve_once
from trainer.pipeline.resources import ResourcePlan
from trainer.runs.journal import append_notice
from trainer.runs.result import Finalist, RunResult, SearchRecord, TrialRecord
from trainer.spec.run import RunSpec
from trainer.tasks import load_spec
from trainer.training.launch import load_result
from tune.dashboard import Dashboard
from tune.finalists import best_run_name, points_with_more_seeds, rank_trials, score_finalists, select_finalists
from tune.objectives import list_goals, trial_goals
from tune.point import Point
from tune.sampler import Sampler
from tune.search_gauges import SearchState
from tune.search_space import spec_without_search
from tune.stop_rules import TimeBudget
from tune.trial_runner import TrialRunner
from tune.trial_store import TrialStore, original_name
from tune.variants import find_variant
from tune.warm_start import initial_points, number_points, warm_start_sampler

#: Load-tests a model: takes its training's result, and returns the metrics in `trainer.spec.tune.SERVING_METRICS`.
Measure = Callable[[RunResult], Mapping[str, float]]


class Search:
    """One search. `run` blocks until it ends; another thread may call `progress` meanwhile."""

    def __init__(
        self,
        spec: RunSpec,
        prepared: dict[str, str],
        folder: Path,
        resources: ResourcePlan,
        measure: Measure | None = None,
    ) -> None:
        """`folder` may hold trials from before an interruption. `measure` is needed if the spec has serving metrics."""
        assert spec.tune is not None
        self._spec, self._tune, self._prepared, self._folder = spec, spec.tune, prepared, folder
        self._measure = measure
        self._goals = trial_goals(list_goals(spec))
        self._store = TrialStore(folder, spec)
        self._budget = TimeBudget(folder, spec.tune.time_budget_s)
        self._dashboard = Dashboard(spec, self._store)
        self._runner = TrialRunner(spec, prepared, folder, resources, self._store, self._goals, self._budget)

    def run(self) -> RunResult:
        """Search and return the winner. Raises the first trial's own error if no trial reached an evaluation."""
        self._budget.start()
        started = self._store.names(reseeded=False)
        sampler = Sampler(self._tune, self._goals, known=len(started))
        warm_start_sampler(self._spec, self._goals, sampler, self._prepared)
        points = self._points_to_queue(started)
        n_new = 0 if self._tune.algorithm == "grid" else max(0, self._tune.n_trials - len(points))
        self._runner.run_search(points, sampler, n_new)
        finalists = self._select_finalists()
        if self._tune.seeds > 1:
            self._runner.run_to_end(points_with_more_seeds(self._spec, finalists))
        reseeded, serving = self._store.read_all(reseeded=True), self._measure_serving(finalists)
        if serving:
            finalists = [trial for trial in finalists if trial.name in serving]
        scored = score_finalists(self._spec, finalists, reseeded, serving)
        return self._conclude(scored, sampler.importance())

    def progress(self) -> Progress:
        """Return the progress of the search, with a table of its trials."""
        self._budget.save()
        return self._dashboard.progress(self._budget)

    def state(self) -> SearchState:
        """Return the numbers of trials and the best value so far."""
        return self._dashboard.state()

    def _points_to_queue(self, started: Sequence[str]) -> list[Point]:
        """Return the points to queue, in order: ended trials, unfinished trials, and the points of the spec.

        An ended trial replays its metrics; an unfinished trial resumes.
        """
        earlier = [self._store.read_point(name) for name in started]
        ended = [point for point in earlier if self._store.has_ended(point.name)]
        unfinished = [point for point in earlier if not self._store.has_ended(point.name)]
        tried = [point.values for point in earlier]
        is_grid = self._tune.algorithm == "grid"
        candidates = self._tune.grid_points() if is_grid else initial_points(self._tune)
        new = [values for values in candidates if values not in tried]
        room = max(0, self._tune.n_trials - len(earlier))
        if is_grid and not self._tune.trials:
            room = len(new)
        return [*ended, *unfinished, *number_points(new[:room], last_number=len(earlier))]

    def _select_finalists(self) -> list[TrialRecord]:
        """Return the finalists, or the best trial if the search has none. Raises if no trial has a model."""
        trials = self._store.read_all(reseeded=False)
        # After a finished search only the winner still has its weights.
        with_model = [trial for trial in trials if self._store.best_checkpoint(trial.name) is not None]
        finalists = select_finalists(self._spec, with_model) or rank_trials(self._spec, with_model)[:1]
        if not finalists:
            raise self._no_result_error(trials)
        return finalists

    def _measure_serving(self, finalists: Sequence[TrialRecord]) -> dict[str, Mapping[str, float]]:
        if not self._tune.measures_serving or self._measure is None:
            return {}
        metrics: dict[str, Mapping[str, float]] = {}
        problems: dict[str, Exception] = {}
        for trial in finalists:
            self._dashboard.set_remark(f"serving {trial.name}")
            try:
                metrics[trial.name] = self._measure(self._load_trial(trial.name))
            except Exception as error:  # of an engine, or of the model in it
                problems[trial.name] = error
        if problems and not metrics:
            raise next(iter(problems.values()))
        for name, problem in problems.items():
            append_notice(
                self._folder, f"the finalist {name} could not be served and cannot win: {error_summary(problem)}"
            )
        return metrics

    def _conclude(self, scored: list[Finalist], importance: dict[str, float]) -> RunResult:
        """Return the winner's result with the record of the search, and delete the models of all other trials."""
        best = scored[0]
        if best.violated:
            values = ", ".join(f"{name} {value:.4g}" for name, value in best.metrics.items())
            raise UserError(
                f"no finalist satisfies {' and '.join(best.violated)}; the closest, {best.name}, has {values}",
                f"relax the constraints: `raymill tune --resume {self._folder.name} --set 'tune.constraints=[...]'`",
            )
        objectives = [(goal.name, goal.mode) for goal in list_goals(self._spec)]
        has_finals = self._tune.n_finalists > 0
        record = SearchRecord(objectives, self._tune.constraints, importance, scored if has_finals else [])
        winner = best_run_name(self._spec, best)
        trials = self._store.read_all(reseeded=False)
        result = dataclasses.replace(self._load_trial(winner), trials=trials, search=record)
        # If the winner is a reseeded trial, keep its original too: it still competes after a resume.
        for name in self._store.all_names():
            if name not in (winner, original_name(winner)):
                self._store.delete_models(name)
        return result

    def _load_trial(self, name: str) -> RunResult:
        point, checkpoint = self._store.read_point(name), self._store.best_checkpoint(name)
        if checkpoint is None:
            raise RaymillError(f"the model of trial {name} is missing in {self._folder}")
        base = load_spec.validate_spec(spec_without_search(self._spec))
        prepared, folder = find_variant(self._folder, self._prepared, point.values), self._store.folder(name)
        spec = resolve_once(load_spec.override_spec(base, point.values), Prepared(prepared), folder).spec
        return load_result(spec, prepared, folder, checkpoint)

    def _no_result_error(self, trials: Sequence[TrialRecord]) -> Exception:
        """Return the error of a search in which no trial has a model."""
        user_error = self._store.first_user_error()
        if user_error:
            return user_error
        errors = [trial.error for trial in trials if trial.error]
        if errors:
            return RaymillError(f"no trial of the search reached an evaluation: {errors[0]}")
        if self._tune.time_budget_s is None:
            return RaymillError(f"the models of all trials of the search in {self._folder} are missing")
        return UserError(
            f"no trial reached an evaluation within tune.time_budget_s={self._tune.time_budget_s:g}",
            "raise `tune.time_budget_s`, or lower `train.epochs`",
        )
