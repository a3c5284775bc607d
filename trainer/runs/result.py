"""The result of a training or a search. Evaluation, registration and the report need nothing else of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.spec.run import RunSpec


@dataclass(frozen=True)
class TrialRecord:
    """One trial of a search, as the report shows it."""

    name: str
    values: dict[str, Any]
    """The value of each searched key."""
    metric: float | None
    """The best value of `evaluate.metric` on the validation rows; None if the trial failed before its first evaluation."""
    epochs: int
    seconds: float
    history: list[dict[str, Any]]
    """One entry per epoch."""
    error: str | None = None
    state: str = "finished"
    """finished, stopped (early, by the search), failed, or running."""
    metrics: dict[str, float] = field(default_factory=dict)
    """All metrics of the best epoch, with train.seconds, model.size_mb and, if it was measured, serve.*."""

    def display_value(self, key: str) -> Any:
        """Return the value of a searched key for a table; an empty string if this trial has no such key.

        A key `model.params.<kind>.<name>` belongs only to trials of that kind of model.
        """
        kind, path = self.values.get("model.kind"), key.split(".")
        is_of_other_kind = kind is not None and path[:2] == ["model", "params"] and len(path) > 3 and path[2] != kind
        return "" if is_of_other_kind else self.values.get(key, "")


@dataclass(frozen=True)
class Finalist:
    """One of the best trials of a search, with the results of all its seeds and the cost of serving it."""

    name: str
    """The trial's name."""
    seeds: dict[int, float]
    """The metric by seed."""
    metrics: dict[str, float]
    """Every objective and constraint: the mean over the seeds, or for serve.* the value measured in the load test."""
    on_front: bool
    """Whether it is on the Pareto front: no other finalist is at least as good in every objective and better in one."""
    violated: list[str]
    """The constraints that it violates."""


@dataclass(frozen=True)
class SearchRecord:
    """The results of a search besides its winner."""

    objectives: Sequence[tuple[str, str]]
    """Name and direction, max or min; the first is `evaluate.metric`."""
    constraints: list[str]
    importance: dict[str, float]
    """The fraction of the metric's variance that each key explains, largest first; empty if there are few trials."""
    finalists: list[Finalist]
    """Empty if the search neither trains its best trials again nor load-tests them."""


@dataclass(frozen=True)
class RunResult:
    """The result of a run's only training, or of the winner of its search."""

    checkpoint: Path
    """Folder with the best epoch's weights (safetensors), config, tokenizer and contract."""
    spec: RunSpec
    """The spec of this training; in a search, the winner's."""
    prepared: Path
    """The folder of prepared rows it was trained on."""
    metrics: dict[str, float]
    """Metrics on the validation rows at the best epoch."""
    history: list[dict[str, Any]]
    """One entry per epoch."""
    folder: Path
    """The folder with the history and the metrics by step: the run's folder; in a search, the winner's."""
    trials: list[TrialRecord] = field(default_factory=list)
    """All trials of the search in the order they started; empty without a search."""
    search: SearchRecord | None = None
    """Further results of the search."""
