"""What one training or one search ends in; everything after it takes this and nothing else."""

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
    """The keys that were searched and what this trial had."""
    metric: float | None
    """The best value of `evaluate.metric` on the validation rows; None if it failed before its first evaluation."""
    epochs: int
    seconds: float
    history: list[dict[str, Any]]
    error: str | None = None
    state: str = "finished"
    """finished, stopped (before its end, by the search), failed, or running."""
    figures: dict[str, float] = field(default_factory=dict)
    """What is known of its best epoch, with train.seconds, model.size_mb and, where it was measured, serve.*."""

    def shown(self, key: str) -> Any:
        """Return what a table shows for a searched key: "" for `model.params.<kind>.<name>` of another kind of model."""
        kind, path = self.values.get("model.kind"), key.split(".")
        of_another = kind is not None and path[:2] == ["model", "params"] and len(path) > 3 and path[2] != kind
        return "" if of_another else self.values.get(key, "")


@dataclass(frozen=True)
class Finalist:
    """One of the best trials of a search, with all seeds it was trained with, and what serving it costs."""

    name: str
    """The trial's."""
    seeds: dict[int, float]
    """The metric by seed."""
    figures: dict[str, float]
    """Every goal and constraint: means over the seeds, what serving costs as it was measured."""
    on_front: bool
    """Whether no other finalist is as good by every goal and better by one."""
    broken: list[str]
    """The constraints that it does not keep to."""


@dataclass(frozen=True)
class SearchRecord:
    """What a search found beside its winner."""

    goals: Sequence[tuple[str, str]]
    """Name, and max or min; the first is `evaluate.metric`."""
    constraints: list[str]
    importance: dict[str, float]
    """How much of the metric's spread each key explains, the most first; empty with few trials."""
    finalists: list[Finalist]
    """Empty where there were no finals."""


@dataclass(frozen=True)
class RunResult:
    """A finished training: the winner of a search, or the only one there was."""

    checkpoint: Path
    """Folder with the best epoch's weights (safetensors), config, tokenizer and contract."""
    spec: RunSpec
    """The spec that made it; of a search, the winner's."""
    prepared: Path
    """The folder of prepared rows it was trained on."""
    metrics: dict[str, float]
    """Figures on the validation rows at the best epoch."""
    history: list[dict[str, Any]]
    """One entry for each epoch."""
    folder: Path
    """Where its history and its lines by step lie: the run's own, or of a search the winner's."""
    trials: list[TrialRecord] = field(default_factory=list)
    """All trials of the search, in the order they began; empty where there was none."""
    search: SearchRecord | None = None
    """What else the search found."""
