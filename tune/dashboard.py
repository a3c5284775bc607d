"""What is seen of a search while it runs: how far each trial is, the best so far, the time left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster.progress import Progress, Table, read_all
from trainer.runs.result import TrialRecord
from trainer.spec.run import RunSpec
from tune.schedulers import longest_training
from tune.time_budget import Clock
from tune.trial_store import Records, better_of

# So many trials are shown: those that run, and the best of the others.
_SHOWN = 10
_LONGEST_VALUE = 24


class Board:
    """The trials of one search, from their folders."""

    def __init__(self, spec: RunSpec, records: Records) -> None:
        assert spec.tune is not None
        self._spec, self._tune, self._records = spec, spec.tune, records
        self._ended: dict[str, TrialRecord] = {}
        self._note = ""

    def say(self, note: str) -> None:
        """Show what is done when no trial runs."""
        self._note = note

    def progress(self, clock: Clock) -> Progress:
        """Return the search's progress in epochs, and its table."""
        trials = [*self._seen(finals=False), *self._seen(finals=True)]
        longest = longest_training(self._spec)
        planned = self._tune.n_trials + self._tune.n_finalists * (self._tune.seeds - 1)
        ended = [trial for trial in trials if trial.state != "running"]
        done = sum(self._epochs_of(trial, longest) for trial in trials)
        # What a trial takes that is still to begin: as much as those that ended did, on average.
        each = sum(trial.epochs for trial in ended) / len(ended) if ended else float(longest)
        to_come = max(0, planned - len(trials)) * each
        running = sum(max(0.0, longest - self._epochs_of(t, longest)) for t in trials if t.state == "running")
        total = done + to_come + min(running, each * (len(trials) - len(ended)) if len(ended) > 2 else running)
        note = f"{len(ended)}/{planned} trials"
        best = self._best(trials)
        if best is not None:
            note += f", best {self._spec.evaluate.metric} {best.metric:.4f}"
        if clock.left_s is not None:
            note += f", {clock.left_s:.0f} s of the budget left"
        if self._note:
            note += f", {self._note}"
        return Progress(done=done, total=total, unit="epochs", note=note, table=self._table(trials, longest))

    def _seen(self, *, finals: bool) -> list[TrialRecord]:
        """Return all trials; those that ended are read once."""
        found = []
        for name in self._records.names(finals=finals):
            trial = self._ended.get(name) or self._records.read(name)
            if trial.state != "running":
                self._ended[name] = trial
            found.append(trial)
        return found

    def _epochs_of(self, trial: TrialRecord, longest: int) -> float:
        """Return the epochs of a trial, with the share of the one that runs."""
        if trial.state != "running":
            return float(trial.epochs)
        parts = read_all(self._records.place(trial.name) / "progress")
        shares = [part.done / part.total for part in parts if part.total]
        return max(float(trial.epochs), longest * max(shares, default=0.0))

    def _best(self, trials: Sequence[TrialRecord]) -> TrialRecord | None:
        there = [trial for trial in trials if trial.metric is not None]
        return better_of(self._spec)(there, key=lambda trial: trial.metric or 0.0) if there else None

    def _table(self, trials: Sequence[TrialRecord], longest: int) -> Table:
        sign = 1 if self._spec.evaluate.mode == "max" else -1
        keys = list(self._tune.space)

        def order(trial: TrialRecord) -> tuple[bool, float]:
            return trial.state != "running", -sign * trial.metric if trial.metric is not None else float("inf")

        rows = [
            [
                trial.name,
                trial.state,
                f"{self._epochs_of(trial, longest):.1f}/{longest}",
                *[_short(trial.shown(key)) for key in keys],
                trial.metric,
            ]
            for trial in sorted(trials, key=order)[:_SHOWN]
        ]
        names = [key.removeprefix("train.") for key in keys]
        return Table(columns=["trial", "", "epochs", *names, self._spec.evaluate.metric], rows=rows)


def _short(value: Any) -> Any:
    if isinstance(value, (int, float)):
        return value
    text = str(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def table_of(trials: Sequence[TrialRecord], keys: Sequence[str]) -> list[list[Any]]:
    """Return the rows of the table that is printed at the end."""
    return [
        [trial.name, *[trial.shown(key) for key in keys], trial.epochs, trial.state, trial.metric] for trial in trials
    ]
