"""The progress of a running search: the epochs of each trial, the best so far, the time left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from cluster.progress import Progress, ProgressTable, read_progress
from trainer.runs.result import TrialRecord
from trainer.spec.run import RunSpec
from tune.schedulers import max_epochs
from tune.search_gauges import SearchState
from tune.stop_rules import TimeBudget
from tune.trial_store import TrialStore, max_or_min

# The maximum number of rows in the table: running trials first, then the best of the other trials.
_MAX_ROWS = 10
_MAX_VALUE_CHARS = 24
# With fewer ended trials, their mean length says little about the other trials.
_MIN_ENDED_FOR_MEAN = 3


class Dashboard:
    """The progress line and the table of one search, read from the folders of its trials."""

    def __init__(self, spec: RunSpec, store: TrialStore) -> None:
        assert spec.tune is not None
        self._spec, self._tune, self._store = spec, spec.tune, store
        self._ended: dict[str, TrialRecord] = {}
        self._remark = ""

    def set_remark(self, text: str) -> None:
        """Set the text that says what the search does while no trial runs."""
        self._remark = text

    def progress(self, budget: TimeBudget) -> Progress:
        """Return the progress of the search in epochs, with its table."""
        trials = [*self._read_trials(reseeded=False), *self._read_trials(reseeded=True)]
        longest = max_epochs(self._spec)
        epochs = {trial.name: self._epochs_done(trial, longest) for trial in trials}
        done = sum(epochs.values())
        total = done + self._epochs_to_come(trials, epochs, longest)
        return Progress(
            done=done, total=total, unit="epochs", note=self._note(trials, budget), table=self._table(trials, epochs)
        )

    def state(self) -> SearchState:
        """Return the numbers of trials and the best value so far."""
        trials = [*self._read_trials(reseeded=False), *self._read_trials(reseeded=True)]
        best = self._best(trials)
        return SearchState(
            Counter(trial.state for trial in trials),
            max(self._n_planned, len(trials)),
            self._spec.evaluate.metric,
            best.metric if best else None,
        )

    @property
    def _n_planned(self) -> int:
        return self._tune.n_trials + self._tune.n_finalists * (self._tune.seeds - 1)

    def _epochs_to_come(self, trials: Sequence[TrialRecord], epochs: dict[str, float], longest: int) -> float:
        """Estimate the epochs left. For a trial to come, take the mean of the ended trials."""
        ended = [trial for trial in trials if trial.state != "running"]
        mean = sum(trial.epochs for trial in ended) / len(ended) if ended else float(longest)
        not_started = max(0, self._n_planned - len(trials)) * mean
        running = sum(max(0.0, longest - epochs[t.name]) for t in trials if t.state == "running")
        if len(ended) >= _MIN_ENDED_FOR_MEAN:
            running = min(running, mean * (len(trials) - len(ended)))
        return not_started + running

    def _note(self, trials: Sequence[TrialRecord], budget: TimeBudget) -> str:
        n_ended = sum(trial.state != "running" for trial in trials)
        parts = [f"{n_ended}/{self._n_planned} trials"]
        best = self._best(trials)
        if best is not None:
            parts.append(f"best {self._spec.evaluate.metric} {best.metric:.4f}")
        if budget.remaining_s is not None:
            parts.append(f"{budget.remaining_s:.0f} s of the budget left")
        if self._remark:
            parts.append(self._remark)
        return ", ".join(parts)

    def _read_trials(self, *, reseeded: bool) -> list[TrialRecord]:
        """Return the records of all trials. Ended trials are read once."""
        trials = []
        for name in self._store.names(reseeded=reseeded):
            trial = self._ended.get(name) or self._store.read(name)
            if trial.state != "running":
                self._ended[name] = trial
            trials.append(trial)
        return trials

    def _epochs_done(self, trial: TrialRecord, longest: int) -> float:
        """Return the epochs that a trial has done, including the share done of its current epoch."""
        if trial.state != "running":
            return float(trial.epochs)
        parts = read_progress(self._store.folder(trial.name) / "progress")
        shares = [part.done / part.total for part in parts if part.total]
        return max(float(trial.epochs), longest * max(shares, default=0.0))

    def _best(self, trials: Sequence[TrialRecord]) -> TrialRecord | None:
        evaluated = [trial for trial in trials if trial.metric is not None]
        if not evaluated:
            return None
        best: TrialRecord = max_or_min(self._spec)(evaluated, key=lambda trial: trial.metric or 0.0)
        return best

    def _table(self, trials: Sequence[TrialRecord], epochs: dict[str, float]) -> ProgressTable:
        sign = 1 if self._spec.evaluate.mode == "max" else -1
        longest = max_epochs(self._spec)
        keys = list(self._tune.space)

        def order(trial: TrialRecord) -> tuple[bool, float]:
            return trial.state != "running", -sign * trial.metric if trial.metric is not None else float("inf")

        rows = [
            [
                trial.name,
                trial.state,
                f"{epochs[trial.name]:.1f}/{longest}",
                *[_shorten(trial.display_value(key)) for key in keys],
                trial.metric,
            ]
            for trial in sorted(trials, key=order)[:_MAX_ROWS]
        ]
        names = [key.removeprefix("train.") for key in keys]
        return ProgressTable(columns=["trial", "", "epochs", *names, self._spec.evaluate.metric], rows=rows)


def _shorten(value: Any) -> Any:
    if isinstance(value, (int, float)):
        return value
    text = str(value)
    return text if len(text) <= _MAX_VALUE_CHARS else text[: _MAX_VALUE_CHARS - 1] + "…"


def trial_rows(trials: Sequence[TrialRecord], keys: Sequence[str]) -> list[list[Any]]:
    """Return the rows of the table that is printed when the search ends."""
    return [
        [trial.name, *[trial.display_value(key) for key in keys], trial.epochs, trial.state, trial.metric]
        for trial in trials
    ]
