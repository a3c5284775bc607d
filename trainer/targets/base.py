"""What every kind of target answers: how its raw values are checked and learned, its loss, scores, metrics and report.

`fitted` in the methods is `Contract.fitted`: what `fit` returned, beside what the task fitted for its inputs.
Letters in shapes: B rows, C outputs of the model (classes, tags, or 1 for a number).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError
from trainer.contract.row_hash import content_keys
from trainer.spec.run import Metric

if TYPE_CHECKING:
    import torch

    from trainer.charts.section import Section
    from trainer.spec.data import Data
    from trainer.spec.train import Loss

Fitted = Mapping[str, Any]

# A label is part of URLs, metrics and reports; more than that is usually the wrong column.
_MAX_LABELS = 10_000


#: Keys of a spec that the training loop of `trainer.training` goes by, and estimators for tables do not.
LOOP = frozenset(
    {
        "model.lora",
        "model.factory",
        "train.max_steps",
        "train.max_time_s",
        "train.micro_batch_size",
        "train.head_learning_rate",
        "train.layer_decay",
        "train.freeze",
        "train.optimizer",
        "train.loss",
        "train.ema_decay",
        "train.gradient_checkpointing",
        "train.checkpoint",
        "cluster.sharding",
    }
)

#: Keys of a spec that only some tasks know what to do with: a task or its target says so in `uses`.
OPTIONAL = LOOP | {
    "data.image",
    "data.tag_separator",
    "model.kind",
    "model.params",
    "train.augment",
    "train.folds",
}


class Target(ABC):
    """One kind of target. Plain functions of their arguments; nothing is kept between calls."""

    #: Its name in `Contract.types`.
    kind: str
    #: Figures that `metrics` computes and a spec may go by.
    metrics_known: tuple[Metric, ...]
    #: What `evaluate.metric` is where the spec does not say.
    metric: Metric
    #: The figure of `metrics` that is the validation loss: what learning curves show beside the training loss.
    loss: str
    #: Whether rows fall into classes that a spec may declare (`data.labels`), balance and stratify.
    has_classes = False
    #: Those of `OPTIONAL` that it goes by.
    uses: frozenset[str] = frozenset()
    #: What of `train.loss` its loss can do beside the default.
    loss_options: frozenset[Literal["focal", "label_smoothing"]] = frozenset()
    #: Whether `data.labels` may list what there is.
    has_labels = True
    #: Whether an empty cell is a value, as no tags are.
    may_be_empty = False
    #: Whether raw values may be of any kind (numbers, lists), which are read as text.
    loose = False

    def settings(self, data: Data) -> dict[str, Any]:
        """Return what of the spec's `data` the target goes by; in `Contract.fitted` before anything is fitted."""
        return {}

    def canonical(self, fitted: Fitted, values: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return raw values (string, null where empty) in the spelling that all other methods take, by `settings`.

        A mistake in a value stays in it, for `check` to find.
        """
        return values

    @abstractmethod
    def check(self, role: str, values: pa.ChunkedArray) -> list[pa.ChunkedArray]:
        """Return columns of reasons (string, null where nothing is wrong) for raw `values` (string) of the target `role`.

        Null and empty values are looked at elsewhere, for all roles alike.
        """

    @abstractmethod
    def tally(self, values: pa.ChunkedArray) -> dict[str, int]:
        """Return what the driver keeps of one block's usable values, to be added up key by key over all blocks."""

    @abstractmethod
    def fit(self, role: str, tally: Mapping[str, int], declared: list[str] | None) -> dict[str, Any]:
        """Return what rows to train on teach about the target, plain JSON, from the blocks' tallies added up.

        `declared` are the spec's `data.labels`. Raises `DataError` where nothing can be learned.
        """

    def undeclared(self, role: str, values: pa.ChunkedArray, declared: list[str]) -> pa.ChunkedArray:
        """Return a reason where a value is none of those `declared`, else null."""
        return where(pc.invert(pc.is_in(values, value_set=pa.array(declared, pa.string()))), f"unknown {role}")

    @abstractmethod
    def encode(self, fitted: Fitted, values: pa.Array) -> pa.Array:
        """Return what the index stores for raw `values` (string): one fixed Arrow type a kind; null for an unknown value."""

    @abstractmethod
    def array(self, fitted: Fitted, encoded: pa.ChunkedArray) -> np.ndarray:
        """Return encoded targets as `metrics` takes them: shape (B,), or (B, C) for tags."""

    def codes(self, fitted: Fitted, values: pa.Array) -> np.ndarray:
        """Return int32 codes, shape (B,): -1 for an unknown value, else not negative and equal for equal targets.

        Each block of rows is asked for its own: a code goes by its value alone, never by the other values of the call.
        Here: a hash of the raw value. For classes: ids.
        """
        known = self.encode(fitted, values).is_valid().to_numpy(zero_copy_only=False)
        keys = content_keys([value or "" for value in values.to_pylist()])
        return np.where(known, code_of(keys), np.int32(-1))

    def labels(self, fitted: Fitted) -> list[str]:
        """Return the names of the model's outputs: classes or tags; empty for a number."""
        found: list[str] = fitted.get("labels", [])
        return found

    def groups(self, fitted: Fitted) -> list[str]:
        """Return the groups that rows are counted by: the classes, or one group of all rows."""
        return self.labels(fitted) if self.has_classes else [""]

    def unit(self, fitted: Fitted) -> float:
        """Return how much a score has to move to matter: 1 for probabilities, of numbers their standard deviation."""
        return 1.0

    def width(self, fitted: Fitted) -> int:
        """Return the number of outputs of the model."""
        return max(1, len(self.labels(fitted)))

    def as_learned(self, fitted: Fitted, targets: np.ndarray) -> np.ndarray:
        """Return the same as `tensor` for models that are not torch's: int64 class ids, or float32 numbers, shape (B,)."""
        return self.tensor(fitted, targets).numpy()

    @abstractmethod
    def tensor(self, fitted: Fitted, targets: np.ndarray) -> torch.Tensor:
        """Return targets as `loss_sum` takes them, from what `array` returned."""

    @abstractmethod
    def loss_sum(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor | None = None,
        how: Loss | None = None,
    ) -> torch.Tensor:
        """Return the summed loss of a batch: logits (B, C), targets of `tensor`. Summed, so that workers' parts add up.

        `weights` (C,) weighs the rows of each class; `how` is the spec's `train.loss` where it is not the default.
        """

    def in_units(self, fitted: Fitted, loss: float) -> float:
        """Return a mean of `loss_sum` in the units of the figure `loss`."""
        return loss

    @abstractmethod
    def scores(self, fitted: Fitted, logits: np.ndarray) -> np.ndarray:
        """Return float64 scores, shape (B, C), of float logits (B, C): probabilities, or the number itself."""

    @abstractmethod
    def metrics(self, scores: np.ndarray, targets: np.ndarray, n_bins: int) -> dict[str, float]:
        """Return the figures of `metrics_known`, and others, for scores (B, C) and targets as `array` returns them.

        One that cannot be computed for these rows is left out.
        """

    @abstractmethod
    def answer(self, fitted: Fitted, scores: np.ndarray) -> list[dict[str, Any]]:
        """Return one JSON object for each row of scores (B, C), as HTTP clients see it."""

    @abstractmethod
    def columns(self, answers: Sequence[dict[str, Any]]) -> dict[str, pa.Array]:
        """Return the columns `prediction` and `score` of a file of predictions; types do not depend on the answers."""

    @abstractmethod
    def counted(self, answer: dict[str, Any]) -> list[str]:
        """Return the labels under which a replica counts one answer."""

    @abstractmethod
    def example(self, fitted: Fitted) -> dict[str, Any]:
        """Return an answer as documentation shows it."""

    @abstractmethod
    def aligned(self, scores: np.ndarray, theirs: Fitted, ours: Fitted) -> np.ndarray:
        """Return scores of a model fitted as `theirs` in the columns of `ours`; a label it lacks scores 0."""

    @abstractmethod
    def sections(
        self, fitted: Fitted, shown: Sequence[str], scores: np.ndarray, targets: np.ndarray, n_bins: int, n_worst: int
    ) -> list[Section]:
        """Return the report's sections about scores (B, C): charts, tables, the worst rows.

        `shown` is how a page shows each row's input (markup where it is a `markupsafe.Markup`).
        """


def in_columns_of(scores: np.ndarray, theirs: Sequence[str], ours: Sequence[str]) -> np.ndarray:
    """Return scores whose columns are labels `theirs` in the columns of `ours`; a label that is lacking scores 0."""
    found = np.zeros((len(scores), len(ours)))
    place = {label: column for column, label in enumerate(theirs)}
    for column, label in enumerate(ours):
        if label in place:
            found[:, column] = scores[:, place[label]]
    return found


def known_labels(role: str, counts: Mapping[str, int], declared: list[str] | None) -> list[str]:
    """Return the sorted labels to learn: those `declared`, or those with `counts` in the training rows.

    Raises `DataError` if a declared one has no rows, and if there are too many.
    """
    labels = sorted(declared) if declared is not None else sorted(counts)
    absent = [label for label in labels if label not in counts]
    if absent:
        raise DataError(
            f"no training row has the label {absent[0]!r}, which data.labels names",
            "add rows of it, or take it out",
        )
    if len(labels) > _MAX_LABELS:
        raise DataError(
            f"the {role} column has {len(labels)} different labels; at most {_MAX_LABELS} can be learned",
            f"check data.columns.{role}: it looks like an id or a text",
        )
    return labels


def code_of(keys: np.ndarray) -> np.ndarray:
    """Return int32 codes that are not negative, for uint64 hashes."""
    return (keys >> np.uint64(33)).astype(np.int32)


def where(condition: pa.ChunkedArray, reason: str) -> pa.ChunkedArray:
    """Return `reason` where `condition` holds, else null."""
    return pc.if_else(condition, reason, pa.scalar(None, pa.string()))


def missed(losses: torch.Tensor) -> torch.Tensor:
    """Return the probability that is not given to the truth, for cross entropies: what focal loss weighs rows by."""
    import torch

    # Not quite 0: the gradient of a power below 1 is infinite there.
    return (-torch.expm1(-losses)).clamp_min(1e-7)
