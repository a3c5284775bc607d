"""A search with Ray Tune: many trainings, of which the best becomes a `RunResult` like any other."""

from __future__ import annotations

import dataclasses
import functools
import math
import shutil
from pathlib import Path
from typing import Any

from cluster.errors import RaymillError, UserError, user_error_in
from cluster.progress import Progress, read_all
from trainer import spec_load
from trainer.checkpoint import epoch_of
from trainer.fit import finished
from trainer.layout import Layout
from trainer.result import RunResult, TrialRecord, read_history
from trainer.spec import RunSpec
from tune.space import grid, preparation_of, to_ray
from tune.trial import run_trial

# Of the trials that reach a rung, ASHA lets one in this many go on.
_REDUCTION = 3
# What a trial asks for that only waits for its workers: Tune wants a bundle that is not empty, and any share of a CPU
# would be missing where the workers need them all.
_TRIAL_MEMORY_BYTES = 1 << 20


class Search:
    """One search: `run` blocks until it ends, `progress` may be asked meanwhile from another thread."""

    def __init__(self, spec: RunSpec, prepared: dict[str, str], folder: Path, sizes: Layout) -> None:
        assert spec.tune is not None
        self.spec, self.tune, self.prepared, self.folder, self.sizes = spec, spec.tune, prepared, folder, sizes
        self._board = _Board(spec.evaluate.metric, spec.evaluate.mode)

    def run(self) -> RunResult:
        """Search and return the winner. Raises the first trial's own error if no trial came to an evaluation."""
        import ray.tune

        trainable = functools.partial(
            run_trial,
            base=_without_search(self.spec),
            prepared=self.prepared,
            folder=str(self.folder),
            threads=self.sizes.cpus_per_worker,
        )
        one_worker = self.spec.cluster.workers == 1
        gpus = self.spec.cluster.gpus_per_worker
        # With several workers the trial itself only waits: its workers hold their own resources.
        resources: dict[str, float] = {"memory": _TRIAL_MEMORY_BYTES}
        if one_worker:
            resources = {"CPU": self.sizes.cpus_per_worker, **({"GPU": gpus} if gpus else {})}
        tuner = ray.tune.Tuner(
            ray.tune.with_resources(trainable, resources),
            param_space={} if self.tune.algorithm == "optuna" else to_ray(self.tune.space),
            tune_config=ray.tune.TuneConfig(
                metric=self.spec.evaluate.metric,
                mode=self.spec.evaluate.mode,
                search_alg=self._algorithm(),
                scheduler=self._scheduler(),
                num_samples=self.tune.n_trials,
                # The ~8 s in which a trial's process imports torch are paid once for each place, not for each trial.
                reuse_actors=one_worker,
                time_budget_s=self.tune.time_budget_s,
            ),
            run_config=ray.tune.RunConfig(
                name="tune",
                storage_path=str(self.folder),
                verbose=0,
                checkpoint_config=ray.tune.CheckpointConfig(num_to_keep=1),
                callbacks=[_watch(self._board)],
            ),
        )
        return self._winner(tuner.fit())

    def progress(self) -> Progress:
        """Return how far the search is, in rows trained; a trial that was stopped early counts as done."""
        running = 0.0
        each = 0.0
        for place in (self.folder / "trials").glob("*"):
            for part in read_all(place / "progress"):
                each = max(each, part.total)
                running += part.total if place.name in self._board.ended else part.done
        note = f"{len(self._board.ended)}/{self.tune.n_trials} trials"
        if self._board.best is not None:
            note += f", best {self.spec.evaluate.metric} {self._board.best:.4f}"
        return Progress(done=running, total=each * self.tune.n_trials, unit="rows", note=note)

    def _algorithm(self) -> Any:
        from ray.tune.search import ConcurrencyLimiter
        from ray.tune.search.basic_variant import BasicVariantGenerator

        if self.tune.algorithm == "optuna":
            from ray.tune.search.optuna import OptunaSearch

            searcher = OptunaSearch(
                space=None, metric=self.spec.evaluate.metric, mode=self.spec.evaluate.mode, seed=self.tune.seed
            )
            searcher.set_search_properties(self.spec.evaluate.metric, self.spec.evaluate.mode, to_ray(self.tune.space))
            return ConcurrencyLimiter(searcher, max_concurrent=self.sizes.trials_at_once)
        points = grid(self.tune) if self.tune.algorithm == "grid" else None
        return BasicVariantGenerator(
            points_to_evaluate=points, random_state=self.tune.seed, max_concurrent=self.sizes.trials_at_once
        )

    def _scheduler(self) -> Any:
        from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

        domain = self.tune.space.get("train.epochs")
        longest = max(domain.edges) if domain else self.spec.train.epochs
        if self.tune.scheduler == "none" or longest <= self.tune.grace_epochs:
            return FIFOScheduler()
        return ASHAScheduler(
            time_attr="epoch", max_t=longest, grace_period=self.tune.grace_epochs, reduction_factor=_REDUCTION
        )

    def _winner(self, grid_of_results: Any) -> RunResult:
        # A trial with several workers hands its checkpoint over at its end: one that was cut off has none.
        whole = [result for result in grid_of_results if result.checkpoint is not None]
        if not whole:
            raise _why_none(list(grid_of_results))
        pick = max if self.spec.evaluate.mode == "max" else min
        best = pick(whole, key=lambda result: epoch_of(Path(result.checkpoint.path))[self.spec.evaluate.metric])
        values = dict(best.config)
        spec = spec_load.with_values(spec_load.validate(_without_search(self.spec)), values)
        place = self.folder / "trials" / best.metrics["trial_id"]
        won = finished(spec, Path(self.prepared[preparation_of(values)]), place, Path(best.checkpoint.path))
        records = [self._record(result) for result in grid_of_results]
        _remove_checkpoints([result.path for result in grid_of_results if result.path != best.path])
        return dataclasses.replace(won, trials=records)

    def _record(self, result: Any) -> TrialRecord:
        figures = result.metrics or {}
        name = figures.get("trial_id") or Path(result.path).name
        history = read_history(self.folder / "trials" / name)
        values = [epoch[self.spec.evaluate.metric] for epoch in history]
        pick = max if self.spec.evaluate.mode == "max" else min
        return TrialRecord(
            name=name,
            values=dict(result.config or {}),
            metric=pick(values) if values else None,
            epochs=len(history),
            seconds=round(sum(epoch["seconds"] for epoch in history), 2),
            history=history,
            error=str(result.error).splitlines()[-1] if result.error else None,
        )


def _remove_checkpoints(trial_folders: list[str]) -> None:
    """Remove the losers' weights: 91 MB each even for a small encoder, and nothing reads them again."""
    for folder in trial_folders:
        for checkpoint in Path(folder).glob("checkpoint_*"):
            shutil.rmtree(checkpoint, ignore_errors=True)


def _without_search(spec: RunSpec) -> dict[str, Any]:
    raw = spec.model_dump(mode="json", exclude_unset=True)
    raw.pop("tune", None)
    return raw


class _Board:
    """What is known of the trials so far. Plain values: Tune writes its callbacks to storage with pickle."""

    def __init__(self, metric: str, mode: str) -> None:
        self.metric, self.mode = metric, mode
        self.ended: set[str] = set()
        self.best: float | None = None

    def saw(self, figures: dict[str, Any]) -> None:
        """Take note of one evaluation of one trial."""
        value = figures.get(self.metric)
        if value is None or not math.isfinite(value):
            return
        pick = max if self.mode == "max" else min
        self.best = value if self.best is None else pick(self.best, value)


def _watch(board: _Board) -> Any:
    import ray.tune

    class Watch(ray.tune.Callback):
        """Keeps the board up to date; runs in the driver."""

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
            board.saw(result)

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            board.ended.add(trial.trial_id)

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            board.ended.add(trial.trial_id)

    return Watch()


def _why_none(results: list[Any]) -> RaymillError:
    errors = [result.error for result in results if result.error]
    for error in errors:
        cause = user_error_in(error)
        if cause:
            return cause
    if not errors:
        return UserError("no trial came to an evaluation in tune.time_budget_s", "raise it, or lower train.epochs")
    last_line = str(errors[0]).strip().splitlines()[-1]
    return RaymillError(f"no trial of the search came to an evaluation: {last_line}")
