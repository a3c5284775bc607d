"""Sentences about what a search left out: trials that failed, and what the trials themselves left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cluster.errors import first_line
from cluster.text import list_some
from trainer.runs.journal import read_notices
from trainer.runs.result import TrialRecord
from tune.trial_store import TrialStore

_MAX_NAMES_SHOWN = 5


def notices_of_trials(folder: Path, store: TrialStore) -> Iterator[str]:
    """Yield the sentences that the notices of the run in `folder` do not have yet."""
    known = set(read_notices(folder))
    for sentence in (*_failed_trials(store), *_notices_by_trials(store)):
        if sentence not in known:
            yield sentence


def _failed_trials(store: TrialStore) -> Iterator[str]:
    """Yield a sentence for each error with which trials failed."""
    trials = [*store.read_all(reseeded=False), *store.read_all(reseeded=True)]
    by_error: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        if trial.state == "failed":
            by_error.setdefault(first_line(Exception(trial.error or "no reason")), []).append(trial)
    for error, failed in by_error.items():
        values = ", ".join(f"{key}={value}" for key, value in failed[0].values.items())
        names = list_some([trial.name for trial in failed], _MAX_NAMES_SHOWN)
        yield f"{len(failed)} of {len(trials)} trials failed, and the search went on: {names} ({values}): {error}"


def _notices_by_trials(store: TrialStore) -> Iterator[str]:
    """Yield what the trials noticed, each sentence once."""
    trials: dict[str, list[str]] = {}
    for name in store.all_names():
        for text in read_notices(store.folder(name)):
            trials.setdefault(text, []).append(name)
    for text, names in trials.items():
        yield f"in trial{'s' * (len(names) > 1)} {list_some(names, _MAX_NAMES_SHOWN)}: {text}"
