"""The facts that the defaults of a training depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from trainer.data.prepared import Prepared
from trainer.models.model_facts import ModelFacts
from trainer.spec.run import RunSpec
from trainer.tasks.base import Task


class Choice(NamedTuple):
    """A value that raymill chose for a key of the spec."""

    value: float | int
    reason: str
    """Why this value, as a part of a sentence."""


def choice_rows(choices: Mapping[str, Choice]) -> list[list[str]]:
    """Return a row of a table for each choice: the key, the value as a spec has it, the reason."""
    return [[key, _as_written(choice.value), choice.reason] for key, choice in choices.items()]


def _as_written(value: float | int) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class TrainingFacts:
    """The rows and the model of a training."""

    n_rows: int
    """Training rows, with those that `balance` repeats."""
    n_classes: int
    """Classes or tags; 0 if the target is a number."""
    mean_length: float
    """Mean length of the inputs, for texts in tokens; 0 if all inputs have one length."""
    model: ModelFacts
    workers: int = 1
    """Maximum number of workers that share a batch."""

    @property
    def n_tokens(self) -> float:
        """Tokens of the training rows."""
        return self.n_rows * self.mean_length

    @property
    def rows_per_class(self) -> float:
        """Training rows per class or tag; all rows if the target is a number."""
        return self.n_rows / max(1, self.n_classes)


def collect_facts(spec: RunSpec, task: Task, prepared: Prepared) -> TrainingFacts:
    """Return the facts of a training of `spec` on prepared rows."""
    n_rows = int(prepared.summary["rows"]["train"])
    # Streamed training rows are not stored; the held-out rows have about the same lengths.
    rows = prepared.part("train") if spec.data.mode == "prepared" else prepared.part("validation")
    mean_length = float(rows.lengths.mean()) if task.token_input and len(rows) else 0.0
    fitted = prepared.contract.fitted
    n_classes = len(task.target.labels(fitted)) if task.target.has_labels else 0
    return TrainingFacts(n_rows, n_classes, mean_length, task.model_facts(spec), spec.cluster.max_workers)
